"""Heads, necks, SegNet's encoder and loss for MMSegmentation."""

from importlib.util import find_spec

from .balanced_loss import BalancedCrossEntropyLoss
from .fpn import SegFPN
from .segformer_head import SegformerHead
from .segnet_head import SegNetHead
from .uper_head import UPerHead
from .vgg import SegNetVGG

__all__ = [
    'BalancedCrossEntropyLoss',
    'SegFPN',
    'SegNetHead',
    'SegNetVGG',
    'SegformerHead',
    'UPerHead',
]

# MMSegmentation's MaskFormer head needs MMDetection too.
if find_spec('mmdet'):
    from .maskformer_head import MaskFormerHead  # noqa: F401

    __all__ += ['MaskFormerHead']
