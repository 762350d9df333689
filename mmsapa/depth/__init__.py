"""Depth from one image: BTS, for MMSegmentation's DepthEstimator."""

from .bts_head import BTSHead
from .checkpoint import from_bts
from .planar_guidance import local_planar_guidance, to_plane
from .resnet import StemResNet
from .silog_loss import SILogLoss
from .tta import DepthTTAModel

__all__ = [
    'BTSHead',
    'DepthTTAModel',
    'SILogLoss',
    'StemResNet',
    'from_bts',
    'local_planar_guidance',
    'to_plane',
]
