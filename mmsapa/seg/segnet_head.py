"""SegNet's decoder with upsampler slots."""

from collections.abc import Sequence

import torch.nn as nn
from mmcv.cnn import (
    VGG,
    build_activation_layer,
    build_conv_layer,
    build_norm_layer,
)
from mmengine.model import ModuleList
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from ..registry import MODELS
from ..upsamplers import UpsampleSlot
from .vgg import HE

# Steps, from the deepest, after which SegNet's net for SUN RGB-D drops out.
DROPOUT_STEPS = 3


@MODELS.register_module()
class SegNetHead(BaseDecodeHead):
    """SegNet's decoder with any upsample layer in its five steps.

    `SegNet <https://arxiv.org/abs/1511.00561>`_, section 3. Each step
    upsamples to the size of the encoder's map before the max-pool, its
    guide, and convolves as often as the encoder's stage did, the last time
    to the width of the next step. Nothing else comes from the encoder. The
    last convolution of all gives the classes.

    Args:
        num_classes (int): Number of classes.
        in_channels (Sequence[int]): Channels of the encoder's five maps
            before the max-pools and of the last one after it, as
            :class:`SegNetVGG` returns them. Default: those of VGG.
        depth (int): Of the VGG that is mirrored: 11, 13, 16 or 19.
            Default: 16.
        upsample_cfg (dict, optional): The layer of the steps, as in
            :class:`mmsapa.upsamplers.UpsampleSlot`. Default: None, which is
            SegNet's max unpooling.
        dropout_ratio (float): Share of the values that are dropped in
            training after each of the first three steps; SegNet's authors
            take 0.5 for SUN RGB-D. Default: 0.
        loss_decode (dict, optional): Config of the loss. Default: None, which
            is :class:`BalancedCrossEntropyLoss` without weights.
        init_cfg (dict, optional): Default: None, which is He et al. for the
            convolutions. Upsample layers keep their own initialization.
        **kwargs: As in MMSegmentation's BaseDecodeHead.

    Raises:
        ValueError: If there are not six maps, or the upsample layer does not
            fit.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int] = (64, 128, 256, 512, 512, 512),
        depth: int = 16,
        upsample_cfg: dict | None = None,
        dropout_ratio: float = 0.0,
        loss_decode: dict | None = None,
        init_cfg: dict | None = None,
        **kwargs,
    ):
        if len(in_channels) != 6:
            raise ValueError(
                'SegNetHead: expected the channels of five maps before the '
                'max-pools and of the last one after it, got in_channels='
                f'{list(in_channels)}; SegNetVGG has such maps.'
            )
        kwargs.setdefault('norm_cfg', dict(type='BN'))
        kwargs.setdefault('act_cfg', dict(type='ReLU', inplace=True))
        super().__init__(
            in_channels=in_channels,
            channels=in_channels[0],
            num_classes=num_classes,
            dropout_ratio=0,  # that before the classes, of the parent
            in_index=[0, 1, 2, 3, 4, 5],
            input_transform='multiple_select',
            loss_decode=loss_decode
            or dict(type='mmsapa.BalancedCrossEntropyLoss'),
            init_cfg=init_cfg or [*HE],
            **kwargs,
        )
        upsample_cfg = upsample_cfg or dict(type='max_unpool')
        *guides, x = in_channels
        self.upsamplers, self.stages = ModuleList(), ModuleList()
        for i in reversed(range(5)):
            self.upsamplers.append(UpsampleSlot(upsample_cfg, x, guides[i]))
            # The classes take the place of the last convolution.
            widths = [x] + [guides[i]] * (VGG.arch_settings[depth][i] - 1)
            if i:
                widths.append(guides[i - 1])
            dropout = dropout_ratio if i >= 5 - DROPOUT_STEPS else 0
            self.stages.append(self._stage(widths, dropout))
            x = widths[-1]
        self.conv_seg = nn.Conv2d(x, self.out_channels, 3, padding=1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Predict the classes.

        Args:
            inputs (Sequence[Tensor]): The encoder's six maps of an image of
                size H, W, any sizes.

        Returns:
            Tensor[N, num_classes, H, W]: Logits.
        """
        *guides, x = self._transform_inputs(inputs)
        for upsample, convs, guide in zip(
            self.upsamplers, self.stages, reversed(guides), strict=True
        ):
            x = convs(upsample(x, guide))
        return self.conv_seg(x)

    def _stage(self, widths, dropout_ratio):
        layers = []
        for before, after in zip(widths, widths[1:]):
            layers += [
                build_conv_layer(self.conv_cfg, before, after, 3, padding=1),
                build_norm_layer(self.norm_cfg, after)[1],
                build_activation_layer(self.act_cfg),
            ]
        if dropout_ratio:
            layers.append(nn.Dropout(dropout_ratio))
        return nn.Sequential(*layers)
