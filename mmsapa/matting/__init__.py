"""Image matting: A2U matting's baseline on mmengine alone."""

from .a2u_head import A2UHead
from .checkpoint import from_a2u
from .data_preprocessor import MattingDataPreprocessor
from .data_sample import MattingDataSample, is_unknown
from .matting_loss import MattingLoss
from .mattor import Mattor
from .resnet import MattingFeatures, MattingResNet
from .tiles import ImageTooLarge

__all__ = [
    'A2UHead',
    'ImageTooLarge',
    'MattingDataPreprocessor',
    'MattingDataSample',
    'MattingFeatures',
    'MattingLoss',
    'MattingResNet',
    'Mattor',
    'from_a2u',
    'is_unknown',
]
