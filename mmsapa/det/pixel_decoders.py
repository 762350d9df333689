"""The pixel decoders of MaskFormer and Mask2Former with upsampler slots.

MMSegmentation's heads build them too.
"""

from mmdet.models import layers

from ..registry import MODELS
from ..upsamplers.mixin import SlotMixin


class DecoderSlots(SlotMixin):
    """Slots of a decoder that initializes its own weights by name alone."""

    def init_weights(self):
        """Initialize the weights, those of the slots too."""
        super().init_weights()
        if hasattr(self, 'upsamplers'):
            self.upsamplers.init_weights()


@MODELS.register_module()
class PixelDecoder(DecoderSlots, layers.PixelDecoder):
    """MaskFormer's pixel decoder whose top-down steps take any layer.

    The guide of a step is the lateral map, after its norm, that the result
    is added to. The libraries' heads accept MMDetection's exact class only;
    :class:`DetMaskFormerHead` and :class:`mmsapa.seg.MaskFormerHead` accept
    subclasses.

    Args:
        upsample_cfg (dict, optional): The upsample layer, as in
            :class:`mmsapa.upsamplers.SlotMixin`. Default: None.
        *args: As in :class:`mmdet.models.layers.PixelDecoder`.
        **kwargs: As in :class:`mmdet.models.layers.PixelDecoder`.
    """


@MODELS.register_module()
class TransformerEncoderPixelDecoder(
    DecoderSlots, layers.TransformerEncoderPixelDecoder
):
    """MaskFormer's pixel decoder with a transformer encoder and slots.

    Guides and arguments as in :class:`PixelDecoder`.
    """

    first_step = 1  # after the padding mask


@MODELS.register_module()
class MSDeformAttnPixelDecoder(DecoderSlots, layers.MSDeformAttnPixelDecoder):
    """Mask2Former's pixel decoder whose last steps take any upsample layer.

    With three levels in the encoder there is one step after it, from stride
    8 to stride 4. Guides and arguments as in :class:`PixelDecoder`, and
    :class:`mmdet.models.layers.MSDeformAttnPixelDecoder`.
    """
