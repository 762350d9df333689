"""IndexNet, an upsample layer guided by learned indices, to compare with."""

import torch.nn as nn
from torch import Tensor

from ..registry import register_upsample_layer
from .guided import GuidedUpsampler


@register_upsample_layer('indexnet')
class IndexNet(GuidedUpsampler):
    """Upsampling by indices that are learned from the guide.

    Max unpooling puts a value where an index says; here the index is soft.
    A small network looks at the guide's pixels under each pixel of ``x`` and
    gives each a number between 0 and 1, by which the nearest pixel of ``x``
    is multiplied (Lu et al., ICCV 2019, https://arxiv.org/abs/1908.00672).

    This is the decoder's half. In the encoder the paper also pools by the
    indices, normalised by a softmax, which is no matter of an upsample layer.

    Of its forms, the default is the one whose size the tables of FADE's and
    SAPA's papers state; the training log that FADE's authors published has
    ``holistic``, ``nonlinear`` and ``context`` all False.

    Args:
        in_channels (int): Channels of ``x``.
        guide_channels (int, optional): Channels of the guide. Default:
            ``in_channels``.
        scale_factor (int): Size of the guide over size of ``x``. Default: 2.
        holistic (bool): Whether all channels share one index (the paper's
            HIN); otherwise each has its own, made from all channels of the
            guide (many-to-one DIN). Default: True.
        nonlinear (bool): Whether the network has a hidden layer, with norm
            and ReLU6; as wide as the guide, or twice that where all share
            it. Default: True.
        context (bool): Whether it looks at twice as many pixels a side as
            one of ``x`` covers. Default: True.
        init_cfg (dict, optional): As in every mmengine BaseModule.
    """

    def __init__(
        self,
        in_channels: int,
        guide_channels: int | None = None,
        scale_factor: int = 2,
        holistic: bool = True,
        nonlinear: bool = True,
        context: bool = True,
        init_cfg: dict | None = None,
    ):
        super().__init__(in_channels, guide_channels, scale_factor, init_cfg)
        self.holistic = holistic
        # The guide's pixels that it looks at, to a side.
        self.window = scale_factor * (2 if context else 1)
        places = scale_factor**2
        # A DIN has a network for every place, each with an index a channel.
        networks, indices = (1, 1) if holistic else (places, in_channels)
        hidden = networks * self.guide_channels * (2 if holistic else 1)
        first = nn.Conv2d(
            self.guide_channels,
            hidden if nonlinear else places * indices,
            self.window,
            stride=scale_factor,
            bias=False,
        )
        self.index = nn.Sequential(first)
        if nonlinear:
            self.index.extend(
                [
                    nn.BatchNorm2d(hidden),
                    nn.ReLU6(),
                    nn.Conv2d(
                        hidden,
                        places * indices,
                        1,
                        groups=networks,
                        bias=False,
                    ),
                ]
            )
        self._reset_parameters()

    def _reset_parameters(self):
        for module in self.index:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out')
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def _upsample(self, x: Tensor, guide: Tensor) -> Tensor:
        index = self.index(self._pad(guide, x, self.window))
        if not self.holistic:
            # By place, then channel; shuffled by channel, then place.
            index = index.unflatten(1, (-1, self.in_channels))
            index = index.transpose(1, 2).flatten(1, 2)
        index = self._shuffle(index.sigmoid(), guide)
        return self._nearest(x, guide) * index.to(x.dtype)
