"""A2U, an upsample layer with weights from affinity."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..ops import reassemble
from ..ops.checks import check_window, sizes_vary
from .guided import GuidedUpsampler


class A2U(GuidedUpsampler):
    """Affinity-aware upsampling, a guided upsample layer.

    The weights come from the guide alone. Two filters u and v, shared by all
    channels, run over it; the affinity of a pixel of ``x`` is the inner
    product of their normalized responses over channels. A vector q turns the
    affinity into weights for the s * s output pixels. This is the low-rank
    bilinear form q (u'X) (v'X), of rank one, shared by channels and dynamic:
    u, v and q are predicted from the pooled guide (Dai, Lu and Shen, CVPR
    2021, https://arxiv.org/abs/2011.14288).

    Args:
        in_channels (int): Channels of ``x``.
        guide_channels (int, optional): Channels of the guide. Default:
            ``in_channels``.
        scale_factor (int): Size of the guide over size of ``x``. Default: 2.
        kernel_size (int): Side of the window in pixels of ``x``, odd.
            Default: 3.
        filter_size (int): Side of u and v in pixels of the guide.
            Default: 6.

    Raises:
        ValueError: If ``kernel_size`` is even or above 512 over
            ``scale_factor``.
    """

    def __init__(
        self,
        in_channels: int,
        guide_channels: int | None = None,
        scale_factor: int = 2,
        kernel_size: int = 3,
        filter_size: int = 6,
    ):
        super().__init__(in_channels, guide_channels, scale_factor)
        check_window('A2U', kernel_size, scale_factor)
        self.kernel_size = kernel_size
        self.filter_size = filter_size
        c = self.guide_channels
        # The authors' 32 groups, or fewer if 32 does not divide the channels.
        groups = math.gcd(32, c)
        self.u = nn.Conv2d(c, 1, 1)
        self.v = nn.Conv2d(c, 1, 1)
        self.q = nn.Conv2d(c, (kernel_size * scale_factor) ** 2, 1)
        self.norm_u = nn.GroupNorm(groups, c)
        self.norm_v = nn.GroupNorm(groups, c)
        self.reset_parameters()

    def reset_parameters(self):
        """Initialize as PyTorch does; so do the authors."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.GroupNorm)):
                module.reset_parameters()

    def _upsample(self, x: Tensor, guide: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(guide, self.filter_size)
        padded = self._pad(guide, x, self.filter_size)
        u = self._filter(padded, self.u(pooled), self.norm_u)
        v = self._filter(padded, self.v(pooled), self.norm_v)
        affinity = (u * v).sum(1, keepdim=True) / math.sqrt(u.shape[1])
        logits = self.q(F.adaptive_avg_pool2d(guide, 1)) * affinity
        logits = self._shuffle(logits, guide)
        # The sigmoid bounds the ratio of two weights by e.
        weights = logits.sigmoid().softmax(1)
        return reassemble(weights, x, self.kernel_size, self.scale_factor)

    def _filter(
        self, guide: Tensor, weight: Tensor, norm: nn.Module
    ) -> Tensor:
        """Filter every channel of a sample by the sample's own filter."""
        # Convolutions have filters per channel, not per sample.
        n, c = guide.shape[:2]
        if sizes_vary(n) or n == 0:
            return F.leaky_relu(norm(self._filter_by_taps(guide, weight)))
        out = F.conv2d(
            guide.flatten(0, 1)[None],
            weight.repeat_interleave(c, 0),
            stride=self.scale_factor,
            groups=n * c,
        )
        return F.leaky_relu(norm(out.unflatten(1, (n, c))[0]))

    def _filter_by_taps(self, guide: Tensor, weight: Tensor) -> Tensor:
        """As a convolution, whose groups a graph cannot leave open."""
        s, side = self.scale_factor, self.filter_size
        h, w = ((size - side) // s + 1 for size in guide.shape[2:])
        # All rows that a filter meets side by side as channels, then columns.
        for dim, cells in ((2, h), (3, w)):
            last = s * (cells - 1) + 1
            guide = torch.cat(
                [guide.narrow(dim, i, last) for i in range(side)], 1
            )
            step = [slice(None)] * dim + [slice(None, None, s)]
            guide = guide[tuple(step)]
        n, c = guide.shape[0], guide.shape[1] // side**2
        seen = guide.reshape(n, side * side, c * h * w)
        weight = weight.transpose(2, 3).reshape(n, 1, side * side)
        return (weight @ seen).reshape(n, c, h, w)
