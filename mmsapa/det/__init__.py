"""Necks and pixel decoders that need MMDetection."""

from .fpn import FPN, PAFPN, YOLOXPAFPN, CSPNeXtPAFPN
from .maskformer_head import DetMaskFormerHead
from .pixel_decoders import (
    MSDeformAttnPixelDecoder,
    PixelDecoder,
    TransformerEncoderPixelDecoder,
)

__all__ = [
    'FPN',
    'PAFPN',
    'CSPNeXtPAFPN',
    'DetMaskFormerHead',
    'MSDeformAttnPixelDecoder',
    'PixelDecoder',
    'TransformerEncoderPixelDecoder',
    'YOLOXPAFPN',
]
