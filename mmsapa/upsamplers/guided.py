"""What layers with a guide share: checks, sizes, reassembly by kernels."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from ..ops.checks import accumulate_dtype, extend_to


class GuidedUpsampler(BaseModule):
    """A layer that upsamples a map by the map it is about to meet.

    Args:
        in_channels (int): Channels of ``x``.
        guide_channels (int, optional): Channels of the guide. Default:
            ``in_channels``.
        scale_factor (int): Size of the guide over size of ``x``. Default: 2.
        init_cfg (dict, optional): As in every mmengine BaseModule.

    Raises:
        ValueError: If ``scale_factor`` is no int, or less than 1.
    """

    def __init__(
        self,
        in_channels: int,
        guide_channels: int | None = None,
        scale_factor: int = 2,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if not isinstance(scale_factor, int) or scale_factor < 1:
            raise ValueError(
                f'{type(self).__name__}: expected scale_factor as an int from '
                f'1 on, got {scale_factor!r}.'
            )
        self.in_channels = in_channels
        self.guide_channels = guide_channels or in_channels
        self.scale_factor = scale_factor

    def init_weights(self):
        """Initialise as the authors do, and then by ``init_cfg`` if given.

        Parents' ``init_cfg`` reach every convolution below them; mmengine
        calls this one afterwards.
        """
        self._reset_parameters()
        if self.init_cfg:
            super().init_weights()

    def _reset_parameters(self):
        raise NotImplementedError

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """Upsample ``x`` to the size of its guide.

        Args:
            x (Tensor[N, in_channels, H, W]): Decoder feature, low
                resolution.
            guide (Tensor[N, guide_channels, Hq, Wq]): What the result is
                about to be merged with, usually the encoder feature of that
                resolution; (H - 1) * s < Hq < (H + 1) * s, and Wq likewise.
                Where it is beyond H * s, the last row of ``x`` counts twice
                (:func:`mmsapa.ops.sapa_upsample`).

        Returns:
            Tensor[N, in_channels, Hq, Wq]: The upsampled ``x``.

        Raises:
            TypeError: If there is no guide.
            ValueError: If channels or sizes do not fit together.
        """
        return self._upsample(self._fit(x, guide), guide)

    def _upsample(self, x: Tensor, guide: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """What its modules do not show."""
        return (
            f'{self.in_channels}, guide_channels={self.guide_channels}, '
            f'scale_factor={self.scale_factor}'
        )

    def _fit(self, x: Tensor, guide: Tensor | None) -> Tensor:
        """Check both maps, and give ``x`` one cell more where it is short."""
        name = type(self).__name__
        if guide is None:
            raise TypeError(
                f'{name}: expected two maps, layer(x, guide), got x alone; '
                'the guide is the high-resolution map that the result will '
                'be added to or concatenated with.'
            )
        if x.dim() != 4 or guide.dim() != 4:
            raise ValueError(
                f'{name}: expected x and guide of shape [N, C, H, W], got '
                f'{list(x.shape)} and {list(guide.shape)}.'
            )
        swapped = ''
        if x.shape[2] > guide.shape[2] or x.shape[3] > guide.shape[3]:
            swapped = ' Are x and guide swapped?'
        channels = (x.shape[1], guide.shape[1])
        if channels != (self.in_channels, self.guide_channels):
            raise ValueError(
                f'{name}: expected x with {self.in_channels} channels and a '
                f'guide with {self.guide_channels}, got {list(x.shape)} and '
                f'{list(guide.shape)}.{swapped}'
            )
        check_sizes(name, x, guide, self.scale_factor, swapped)
        return extend_to(x, guide.shape[2:], self.scale_factor)

    def _nearest(self, x: Tensor, guide: Tensor) -> Tensor:
        """Give each pixel of ``x`` to the guide's pixels in it."""
        x = F.interpolate(x, scale_factor=self.scale_factor, mode='nearest')
        return x[..., : guide.shape[2], : guide.shape[3]]

    def _shuffle(self, x: Tensor, guide: Tensor) -> Tensor:
        """Give the channels of ``x`` to the guide's pixels in its pixels."""
        x = F.pixel_shuffle(x, self.scale_factor)
        return x[..., : guide.shape[2], : guide.shape[3]]

    def _pad(self, guide: Tensor, x: Tensor, kernel_size: int) -> Tensor:
        """Put zeros around the guide for a convolution with stride s.

        Without padding of its own it then reaches the size of ``x``, each
        window around the pixels that one of ``x`` covers.
        """
        s = self.scale_factor
        before = (kernel_size - s) // 2
        after = (
            low * s - high + kernel_size - s - before
            for low, high in zip(x.shape[2:], guide.shape[2:])
        )
        below, right = after
        return F.pad(guide, [before, right, before, below])


def check_sizes(
    name: str, x: Tensor, guide: Tensor, scale_factor: int, hint: str = ''
):
    """Raise a ValueError if one cell more, or none, will not do for ``x``."""
    s = scale_factor
    for low, high in zip(x.shape[2:], guide.shape[2:]):
        if not (low - 1) * s < high < (low + 1) * s:
            raise ValueError(
                f'{name}: expected a guide {s} times the size of x (up to '
                f'{s - 1} pixels more or less), got {list(guide.shape[2:])} '
                f'for {list(x.shape[2:])}.{hint}'
            )


def is_plain(module: nn.Module, kind: type) -> bool:
    """Whether a module does what its type does with its weights, and no more.

    What is pruned, parametrized, wrapped or hooked, or has a ``forward`` of
    its own, has to be called; weights of a plain one may be read and folded
    into others.

    Args:
        module (nn.Module): Any.
        kind (type): Its very type, not one derived from it.
    """
    if type(module) is not kind or 'forward' in module.__dict__:
        return False
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    # mmengine hooks all modules to count FLOPs, and changes nothing.
    return not any(hooks) or all(
        hook.__module__ == 'mmengine.analysis.jit_analysis'
        for table in hooks
        for hook in table.values()
    )


def odd_kernel_size(name: str, kernel_size: int) -> int:
    """Return ``kernel_size`` if it is odd, or raise a ValueError."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f'{name}: expected an odd kernel_size, so that a window has a '
            f'pixel in its middle, got {kernel_size}.'
        )
    return kernel_size


def reassemble(x: Tensor, kernels: Tensor, scale_factor: int) -> Tensor:
    """Sum the window of ``x`` around every high-res pixel by its kernel.

    What CARAFE (https://arxiv.org/abs/1905.02188) calls reassembly, in plain
    PyTorch; outside of the map ``x`` is zero.

    Args:
        x (Tensor[N, C, H, W]): A low-res map.
        kernels (Tensor[N, K * K, Hq, Wq]): A weight for every pixel of the
            window, row by row; K odd, (H - 1) * s < Hq <= H * s.
        scale_factor (int): s.

    Returns:
        Tensor[N, C, Hq, Wq]: The sums, of ``x``'s dtype; half precision is
        added up in float32.
    """
    n, c, h, w = x.shape
    s = scale_factor
    size = kernels.shape[2:]
    k = math.isqrt(kernels.shape[1])
    dtype = accumulate_dtype(x.dtype)
    # The high-res pixels in a pixel of x become an axis before the rows, so
    # that what is multiplied lies in memory as x does.
    kernels = F.pad(kernels, [0, w * s - size[1], 0, h * s - size[0]])
    kernels = F.pixel_unshuffle(kernels.to(dtype), s)
    kernels = kernels.unflatten(1, (1, k * k, s * s))
    padded = F.pad(x.to(dtype), [k // 2] * 4)
    out = padded.new_zeros(n, c, s * s, h, w)
    for i in range(k * k):
        y, z = divmod(i, k)
        window = padded[:, :, None, y : y + h, z : z + w]
        out = torch.addcmul(out, window, kernels[:, :, i])
    out = F.pixel_shuffle(out.flatten(1, 2), s)
    return out[..., : size[0], : size[1]].to(x.dtype)
