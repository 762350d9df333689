"""SAPA, and what its layer needs, as functions of tensors; torch alone."""

from .functional import norm_project, sapa_upsample
from .normalization import channel_norm, channel_norm_reference
from .prior import interpolation_prior
from .reassembly import reassemble, reassemble_reference
from .reference import (
    norm_project_reference,
    sapa_kernels,
    sapa_upsample_reference,
)
from .tiled import sapa_upsample_tiled

__all__ = [
    'channel_norm',
    'channel_norm_reference',
    'interpolation_prior',
    'norm_project',
    'norm_project_reference',
    'reassemble',
    'reassemble_reference',
    'sapa_kernels',
    'sapa_upsample',
    'sapa_upsample_reference',
    'sapa_upsample_tiled',
]
