"""Heads and necks for MMSegmentation."""

from importlib.util import find_spec

from .fpn import SegFPN
from .segformer_head import SegformerHead
from .uper_head import UPerHead

__all__ = ['SegFPN', 'SegformerHead', 'UPerHead']

# MMSegmentation's own cannot be built without MMDetection either.
if find_spec('mmdet'):
    from .maskformer_head import MaskFormerHead  # noqa: F401

    __all__ += ['MaskFormerHead']
