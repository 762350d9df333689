"""ResNet at stride 16 that pools, and returns what it pools."""

from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from ..registry import MODELS
from .layers import XAVIER, ResidualBlock, conv_bn, leaky_relu

BLOCKS = {18: (2, 2, 2), 34: (3, 4, 4)}  # of the three stages


class MattingFeatures(NamedTuple):
    """Maps of an encoder.

    Attributes:
        guides (tuple[Tensor, ...]): Of strides 1, 2, 4 and 8: each is what
            goes into a max-pool, or comes out of the first one.
        skips (tuple[Tensor, ...]): Of the same strides, what a decoder adds:
            the input, and the outputs of the first pool, of the first and of
            the second stage.
        top (Tensor): Output of the third stage, of stride 16.
    """

    guides: tuple[Tensor, ...]
    skips: tuple[Tensor, ...]
    top: Tensor


@MODELS.register_module()
class MattingResNet(BaseModule):
    """Encoder of A2U matting's baseline, a ResNet without its last stage.

    The first convolution has stride 1 and a channel for the trimap. Where
    ResNet's second and third stage have a stride of 2, their first
    convolution has stride 1 here and a max-pool follows, so that there are
    maps of every resolution to guide an upsampling. Activations are leaky
    ReLU of slope 0.01.

    Parameters have torchvision's names, so its weights load by
    ``init_cfg=dict(type='Pretrained', …)``; the trimap's weights start at
    zero then. The third stage has four of ResNet-34's six blocks.

    Args:
        depth (int): 18 or 34. Default: 34.
        base_channels (int): Width of stem and first stage; 2 and 4 times as
            many in the others. Default: 64.
        in_channels (int): Channels of the input. Default: 4, for RGB and
            trimap.
        init_cfg (dict, optional): Default: None, which is Xavier, normal,
            with the gain of leaky ReLU.

    Raises:
        ValueError: If there is no such depth.
    """

    def __init__(
        self,
        depth: int = 34,
        base_channels: int = 64,
        in_channels: int = 4,
        init_cfg: dict | None = None,
    ):
        if depth not in BLOCKS:
            raise ValueError(
                'MattingResNet: expected a depth of '
                f'{" or ".join(map(str, BLOCKS))}, got {depth}.'
            )
        super().__init__(init_cfg or XAVIER)
        c = base_channels
        self.conv1, self.bn1 = conv_bn(in_channels, c, 7)
        self.act = leaky_relu()
        first, second, third = BLOCKS[depth]
        self.layer1 = _stage(c, c, first)
        self.layer2 = _stage(c, 2 * c, second, stride=2)
        self.layer3 = _stage(2 * c, 4 * c, third, stride=2)

    def forward(self, x: Tensor) -> MattingFeatures:
        """Extract the maps.

        Args:
            x (Tensor[N, in_channels, H, W]): Normalized images and trimaps.

        Returns:
            MattingFeatures: With c = base_channels, guides of c, c, 2c and
            4c channels, skips of in_channels, c, c and 2c, top of 4c.

        Raises:
            ValueError: If H or W is not a multiple of 16.
        """
        if x.shape[2] % 16 or x.shape[3] % 16:
            raise ValueError(
                'MattingResNet: expected sides that are multiples of 16, got '
                f'{list(x.shape)}; a MattingDataPreprocessor pads them.'
            )
        e0 = self.act(self.bn1(self.conv1(x)))
        e1 = _pool(e0)
        l1 = self.layer1(_pool(e1))
        e2, l2 = _through(self.layer2, l1)
        e3, l3 = _through(self.layer3, l2)
        return MattingFeatures((e0, e1, e2, e3), (x, e1, l1, l2), l3)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """Accept a first convolution for RGB alone: what is new is zero."""
        name = f'{prefix}conv1.weight'
        weight = state_dict.get(name)
        if weight is not None and weight.shape[1] == 3:
            new = self.conv1.in_channels - 3
            zeros = weight.new_zeros(len(weight), new, *weight.shape[2:])
            state_dict[name] = torch.cat([weight, zeros], 1)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _stage(in_channels, channels, blocks, stride=1):
    return nn.Sequential(
        ResidualBlock(in_channels, channels, stride),
        *(ResidualBlock(channels, channels) for _ in range(blocks - 1)),
    )


def _pool(x):
    return F.max_pool2d(x, 2)


def _through(stage, x):
    """Run a stage that pools in its first block, after the map returned."""
    block, *others = stage
    guide = block.first(x)
    x = block.second(x, _pool(guide))
    for other in others:
        x = other(x)
    return guide, x
