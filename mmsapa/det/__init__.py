"""Necks and pixel decoders that need MMDetection."""

from .fpn import FPN, PAFPN, YOLOXPAFPN, CSPNeXtPAFPN
from .pixel_decoders import (
    MSDeformAttnPixelDecoder,
    PixelDecoder,
    TransformerEncoderPixelDecoder,
)

__all__ = [
    'FPN',
    'PAFPN',
    'CSPNeXtPAFPN',
    'MSDeformAttnPixelDecoder',
    'PixelDecoder',
    'TransformerEncoderPixelDecoder',
    'YOLOXPAFPN',
]
