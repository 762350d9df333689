"""The pixel decoders of MaskFormer and Mask2Former with a slot.

MMSegmentation's heads build them too, from MMDetection's registry.
"""

from mmdet.models import layers

from ..registry import MODELS
from ..upsamplers import SlotMixin


@MODELS.register_module()
class PixelDecoder(SlotMixin, layers.PixelDecoder):
    """MaskFormer's pixel decoder whose top-down steps take any layer.

    The guide of a step is the lateral map, after its norm, that the result
    is added to. A head must let a subclass of MMDetection's pixel decoder
    stand for it: :class:`mmsapa.seg.MaskFormerHead` does.

    Args:
        upsample_cfg (dict, optional): The upsample layer, as in
            :class:`mmsapa.upsamplers.SlotMixin`. Default: None.
        *args: As in :class:`mmdet.models.layers.PixelDecoder`.
        **kwargs: As in :class:`mmdet.models.layers.PixelDecoder`.
    """


@MODELS.register_module()
class TransformerEncoderPixelDecoder(
    SlotMixin, layers.TransformerEncoderPixelDecoder
):
    """The same, with MaskFormer's transformer encoder before the steps."""

    first_step = 1  # after the padding mask


@MODELS.register_module()
class MSDeformAttnPixelDecoder(SlotMixin, layers.MSDeformAttnPixelDecoder):
    """Mask2Former's pixel decoder whose last steps take any upsample layer.

    With three levels in the encoder there is one step after it, from stride
    8 to stride 4. Guides and arguments as in :class:`PixelDecoder`, and
    :class:`mmdet.models.layers.MSDeformAttnPixelDecoder`.
    """
