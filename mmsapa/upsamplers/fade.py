"""FADE, an upsample layer that fuses encoder and decoder features."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..ops import reassemble
from ..ops.checks import check_window
from .guided import GuidedUpsampler, is_plain


class FADE(GuidedUpsampler):
    """Fusing the assets of decoder and encoder, a guided upsample layer.

    Guide and ``x`` both predict the weights, by one convolution that shifts
    by a pixel on the guide for each output pixel, and on ``x`` for each
    pixel of ``x`` (semi-shift). A gate, predicted from ``x``, then mixes the
    guide into the result (Lu et al., ECCV 2022,
    https://arxiv.org/abs/2207.10392).

    Args:
        in_channels (int): Channels of ``x``.
        guide_channels (int, optional): Channels of the guide. Default:
            ``in_channels``.
        scale_factor (int): Size of the guide over size of ``x``. Default: 2.
        kernel_size (int): Side of the window in pixels of ``x``, odd.
            Default: 5.
        embed_dims (int): Channels that both maps are compressed to.
            Default: 64.
        gate (bool): Whether to mix the guide into the result, which needs
            as many channels in both. Default: True.

    Raises:
        ValueError: If ``kernel_size`` is even or above 512 over
            ``scale_factor``, or the gate is to mix maps of different channels.
    """

    def __init__(
        self,
        in_channels: int,
        guide_channels: int | None = None,
        scale_factor: int = 2,
        kernel_size: int = 5,
        embed_dims: int = 64,
        gate: bool = True,
    ):
        super().__init__(in_channels, guide_channels, scale_factor)
        check_window('FADE', kernel_size, scale_factor)
        self.kernel_size = kernel_size
        if gate and self.guide_channels != in_channels:
            raise ValueError(
                'FADE: the gate mixes the guide with the upsampled x and '
                'expects as many channels in both, got guide_channels='
                f'{guide_channels} and in_channels={in_channels}; take '
                'gate=False, which upsamples x alone.'
            )
        self.compress_guide = nn.Conv2d(self.guide_channels, embed_dims, 1)
        self.compress_x = nn.Conv2d(in_channels, embed_dims, 1, bias=False)
        self.kernels = nn.Conv2d(embed_dims, kernel_size**2, 3, padding=1)
        self.gate = nn.Conv2d(in_channels, 1, 1) if gate else None
        self.reset_parameters()

    def reset_parameters(self):
        """Initialize weights by Glorot and Bengio, biases to 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _upsample(self, x: Tensor, guide: Tensor) -> Tensor:
        # A convolution is linear: run it on each map at the map's own
        # resolution and add the bias once.
        logits = self.kernels(self.compress_guide(guide))
        from_x = self._without_bias(self.compress_x(x))
        logits = logits + self._nearest(from_x, guide)
        out = reassemble(
            logits.softmax(1), x, self.kernel_size, self.scale_factor
        )
        if self.gate is None:
            return out
        gate = self._nearest(self.gate(x).sigmoid(), guide)
        return torch.lerp(out, guide.to(out.dtype), gate.to(out.dtype))

    def _without_bias(self, x: Tensor) -> Tensor:
        """Run ``kernels`` on a compressed map, without its bias."""
        if is_plain(self.kernels, nn.Conv2d):
            return F.conv2d(x, self.kernels.weight, padding=1)
        return self.kernels(x) - self.kernels(torch.zeros_like(x[:1]))
