"""MMSegmentation's MaskFormer head for a pixel decoder with slots."""

from mmseg.models.decode_heads import MaskFormerHead as MMSegMaskFormerHead

from ..det.maskformer_head import AnyPixelDecoder
from ..registry import MODELS


@MODELS.register_module()
class MaskFormerHead(AnyPixelDecoder, MMSegMaskFormerHead):
    """MMSegmentation's MaskFormer head that takes any pixel decoder.

    Args:
        *args: As in :class:`mmsapa.det.maskformer_head.AnyPixelDecoder` and
            :class:`mmseg.models.decode_heads.MaskFormerHead`.
        **kwargs: Likewise.
    """
