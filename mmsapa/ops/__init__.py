"""SAPA as two functions of tensors. Needs torch alone."""

from .functional import sapa_kernels, sapa_upsample
from .reference import sapa_kernels_reference, sapa_upsample_reference
from .tiled import sapa_upsample_tiled

__all__ = [
    'sapa_kernels',
    'sapa_kernels_reference',
    'sapa_upsample',
    'sapa_upsample_reference',
    'sapa_upsample_tiled',
]
