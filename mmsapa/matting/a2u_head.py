"""The decoder of A2U matting's baseline with upsampler slots."""

import torch
import torch.nn as nn
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from ..registry import MODELS
from ..upsamplers import UpsampleSlot
from .layers import XAVIER, ResidualBlock, conv_bn_act
from .resnet import MattingFeatures

RATES = (6, 12, 18)  # of the ASPP


@MODELS.register_module()
class A2UHead(BaseModule):
    """Decoder of A2U matting with any upsample layer in its four steps.

    `Learning Affinity-Aware Upsampling for Deep Image Matting
    <https://arxiv.org/abs/2011.14288>`_ without its learned operators: the
    baseline that SAPA's and FADE's papers compare upsamplers in. A step
    upsamples a map, guided by the encoder's map of that resolution before
    its max-pool; adds another map of the encoder after a convolution; and
    fuses the sum in two residual blocks. Guide and map have the same number
    of channels in every step.

    Args:
        channels (int): ``base_channels`` of the encoder, from which all
            widths follow; even. Default: 64.
        in_channels (int): Channels of the encoder's input. Default: 4.
        upsample_cfg (dict, optional): The layer of the four steps, as in
            :class:`mmsapa.upsamplers.UpsampleSlot`. Default: None, which is
            bilinear interpolation.
        dropout_ratio (float): Of single numbers after the ASPP. Default:
            0.5.
        init_cfg (dict, optional): Default: None, which is Xavier, normal,
            with the gain of leaky ReLU, for the convolutions, the last one
            with absolute values. Upsample layers keep their own
            initialization.
    """

    def __init__(
        self,
        channels: int = 64,
        in_channels: int = 4,
        upsample_cfg: dict | None = None,
        dropout_ratio: float = 0.5,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg or XAVIER)
        self.channels = c = channels
        self.aspp = ASPP(4 * c, dropout_ratio)
        upsample_cfg = upsample_cfg or dict(type='bilinear')
        # To strides 8, 4, 2 and 1.
        widths = (4 * c, 2 * c, c, c)
        skips = (2 * c, c, c, in_channels)
        self.upsamplers = ModuleList(
            UpsampleSlot(upsample_cfg, width) for width in widths
        )
        self.laterals = ModuleList(
            conv_bn_act(skip, width, 3) for skip, width in zip(skips, widths)
        )
        self.fuse = ModuleList(
            nn.Sequential(ResidualBlock(a, b), ResidualBlock(b, b))
            for a, b in zip(widths, (*widths[1:], c // 2))
        )
        self.conv_alpha = nn.Sequential(
            conv_bn_act(c // 2, 1, 3),
            nn.Conv2d(1, 1, 3, padding=1, bias=False),
        )

    def init_weights(self):
        """Initialize as ``init_cfg`` says, or by default."""
        super().init_weights()
        if self.init_cfg == XAVIER:
            # Ours: a kernel with a negative sum, every second one, has the
            # leaky ReLU before it learn negative numbers, a hundredth as
            # fast as positive ones, and mattes stay at 0.
            self.conv_alpha[1].weight.data.abs_()

    def forward(self, features: MattingFeatures) -> Tensor:
        """Predict mattes.

        Args:
            features (MattingFeatures): The encoder's maps.

        Returns:
            Tensor[N, 1, H, W]: Mattes as they are trained, not cut off at 0
            and 1.
        """
        return self.decode(self.aspp(features.top), features)

    def decode(self, x: Tensor, features: MattingFeatures) -> Tensor:
        """Predict mattes from the output of the ASPP.

        Args:
            x (Tensor[N, 4 * channels, H / 16, W / 16]): Of :attr:`aspp`.
            features (MattingFeatures): The encoder's maps, of which ``top``
                is not used.

        Returns:
            Tensor[N, 1, H, W]: As :meth:`forward`.
        """
        for upsample, lateral, fuse, guide, skip in zip(
            self.upsamplers,
            self.laterals,
            self.fuse,
            reversed(features.guides),
            reversed(features.skips),
        ):
            # The convolution first: it needs memory on the way.
            x = fuse(lateral(skip) + upsample(x, guide))
        return self.conv_alpha(x)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with depthwise convolutions.

    Args:
        channels (int): Of input, branches and output.
        dropout_ratio (float): Of single numbers of the output.
    """

    def __init__(self, channels: int, dropout_ratio: float):
        super().__init__()
        c = channels
        self.branches = nn.ModuleList(
            [
                conv_bn_act(c, c, 1),
                *(
                    nn.Sequential(
                        conv_bn_act(c, c, 3, dilation=rate, groups=c),
                        conv_bn_act(c, c, 1),
                    )
                    for rate in RATES
                ),
            ]
        )
        self.pooled = conv_bn_act(c, c, 1)
        self.merge = conv_bn_act((len(RATES) + 2) * c, c, 1)
        self.dropout = nn.Dropout(dropout_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a Tensor[N, channels, H, W] of one of that shape.

        Raises:
            ValueError: If a batch norm is to train on a single image.
        """
        if len(x) == 1 and any(
            type(norm) is nn.BatchNorm2d and norm.training
            for norm in self.pooled
        ):
            raise ValueError(
                'A2UHead: expected batches of two or more images to train '
                'with, since a batch norm takes the mean of one number of '
                'each, got one; set train_dataloader.batch_size=2.'
            )
        mean = self.pooled(x.mean((2, 3), keepdim=True))
        maps = [branch(x) for branch in self.branches]
        maps.append(mean.expand_as(x))
        return self.dropout(self.merge(torch.cat(maps, 1)))
