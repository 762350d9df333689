"""Heads and necks for MMSegmentation."""

from importlib.util import find_spec

from .fpn import SegFPN
from .segformer_head import SegformerHead
from .uper_head import UPerHead

__all__ = ['SegFPN', 'SegformerHead', 'UPerHead']

# MMSegmentation's MaskFormer head needs MMDetection too.
if find_spec('mmdet'):
    from .maskformer_head import MaskFormerHead  # noqa: F401

    __all__ += ['MaskFormerHead']
