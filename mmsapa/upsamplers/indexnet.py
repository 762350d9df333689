"""IndexNet, an upsample layer with learned indices."""

import torch.nn as nn
from torch import Tensor

from .guided import GuidedUpsampler


class IndexNet(GuidedUpsampler):
    """Upsampling by indices learned from the guide.

    Max unpooling places a value at an index; here the index is soft. A small
    network predicts from the guide a factor between 0 and 1 for each output
    pixel, which multiplies the nearest pixel of ``x`` (Lu et al., ICCV 2019,
    https://arxiv.org/abs/1908.00672).

    This is the decoder's half. In the encoder the paper also pools by the
    indices, normalized by a softmax; an upsample layer has no part in that.

    The default form is the one whose size the tables of FADE's and SAPA's
    papers state; the training log that FADE's authors published has
    ``holistic``, ``nonlinear`` and ``context`` all False.

    Args:
        in_channels (int): Channels of ``x``.
        guide_channels (int, optional): Channels of the guide. Default:
            ``in_channels``.
        scale_factor (int): Size of the guide over size of ``x``. Default: 2.
        holistic (bool): Whether all channels share one index (the paper's
            HIN); otherwise each has its own, predicted from all channels of
            the guide (many-to-one DIN). Default: True.
        nonlinear (bool): Whether the network has a hidden layer, with norm
            and ReLU6; as wide as the guide, or twice that if ``holistic``.
            Default: True.
        context (bool): Whether its window has twice the side that a pixel
            of ``x`` covers. Default: True.
    """

    def __init__(
        self,
        in_channels: int,
        guide_channels: int | None = None,
        scale_factor: int = 2,
        holistic: bool = True,
        nonlinear: bool = True,
        context: bool = True,
    ):
        super().__init__(in_channels, guide_channels, scale_factor)
        self.holistic = holistic
        # Side of the network's window, in pixels of the guide.
        self.window = scale_factor * (2 if context else 1)
        phases = scale_factor**2
        # A DIN has a network per phase, each with an index per channel.
        networks, indices = (1, 1) if holistic else (phases, in_channels)
        hidden = networks * self.guide_channels * (2 if holistic else 1)
        first = nn.Conv2d(
            self.guide_channels,
            hidden if nonlinear else phases * indices,
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
                        phases * indices,
                        1,
                        groups=networks,
                        bias=False,
                    ),
                ]
            )
        self.reset_parameters()

    def reset_parameters(self):
        """Initialize convolutions by He et al., over their outputs."""
        for module in self.index:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out')
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def _upsample(self, x: Tensor, guide: Tensor) -> Tensor:
        index = self.index(self._pad(guide, x, self.window))
        if not self.holistic:
            # From phase-major to channel-major, as pixel_shuffle expects.
            index = index.unflatten(1, (-1, self.in_channels))
            index = index.transpose(1, 2).flatten(1, 2)
        index = self._shuffle(index.sigmoid(), guide)
        return self._nearest(x, guide) * index.to(x.dtype)
