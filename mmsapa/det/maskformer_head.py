"""MaskFormer's head for a pixel decoder with upsampler slots."""

from mmcv.cnn import Conv2d
from mmdet.models.dense_heads import MaskFormerHead
from mmdet.models.layers import PixelDecoder, TransformerEncoderPixelDecoder

from ..registry import MODELS


class AnyPixelDecoder:
    """Mix into a MaskFormer head, so that it takes any pixel decoder.

    The parent projects the transformer's input only if the pixel decoder is
    exactly MMDetection's ``PixelDecoder``; with this a head does so for
    subclasses too.

    Args:
        in_channels (list[int]): Channels of the backbone's maps.
        enforce_decoder_input_project (bool): Project even if the channels
            are equal. Default: False.
        **kwargs: As in the parent.
    """

    def __init__(
        self,
        in_channels: list[int],
        enforce_decoder_input_project: bool = False,
        **kwargs,
    ):
        super().__init__(
            in_channels=in_channels,
            enforce_decoder_input_project=enforce_decoder_input_project,
            **kwargs,
        )
        decoder = self.pixel_decoder
        channels = in_channels[-1], self.decoder_embed_dims
        if (
            isinstance(decoder, PixelDecoder)
            and not isinstance(decoder, TransformerEncoderPixelDecoder)
            and (channels[0] != channels[1] or enforce_decoder_input_project)
        ):
            self.decoder_input_proj = Conv2d(*channels, kernel_size=1)


@MODELS.register_module()
class DetMaskFormerHead(AnyPixelDecoder, MaskFormerHead):
    """MMDetection's MaskFormer head that takes any pixel decoder.

    Args:
        *args: As in :class:`AnyPixelDecoder` and
            :class:`mmdet.models.dense_heads.MaskFormerHead`.
        **kwargs: Likewise.
    """
