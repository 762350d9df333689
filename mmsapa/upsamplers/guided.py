"""Base class of the guided layers: checks and sizes."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..ops.checks import crop, extend_to


class GuidedUpsampler(nn.Module):
    """Base class of upsamplers guided by a high-resolution feature.

    A subclass implements ``reset_parameters`` and ``_upsample``.

    Args:
        in_channels (int): Channels of ``x``.
        guide_channels (int, optional): Channels of the guide. Default:
            ``in_channels``.
        scale_factor (int): Size of the guide over size of ``x``. Default: 2.

    Raises:
        ValueError: If ``scale_factor`` is not an int of at least 1.
    """

    def __init__(
        self,
        in_channels: int,
        guide_channels: int | None = None,
        scale_factor: int = 2,
    ):
        super().__init__()
        if not isinstance(scale_factor, int) or scale_factor < 1:
            raise ValueError(
                f'{type(self).__name__}: expected an int scale_factor of at '
                f'least 1, got {scale_factor!r}.'
            )
        self.in_channels = in_channels
        self.guide_channels = guide_channels or in_channels
        self.scale_factor = scale_factor

    def reset_parameters(self):
        """Initialize the parameters as the authors do."""
        raise NotImplementedError

    def init_weights(self):
        """Initialize again, under the name that mmengine calls.

        A parent's ``init_cfg`` reaches every convolution below it first;
        without this method the layer would keep the parent's values.
        """
        self.reset_parameters()

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        """Upsample ``x`` to the size of its guide.

        Args:
            x (Tensor[N, in_channels, H, W]): Decoder feature, low
                resolution.
            guide (Tensor[N, guide_channels, Hq, Wq]): The map that the
                result will be merged with, usually the encoder feature of
                that resolution; (H - 1) * s < Hq < (H + 1) * s, and Wq
                likewise. If Hq exceeds H * s, the last row of ``x`` is
                repeated once (:func:`mmsapa.ops.sapa_upsample`).

        Returns:
            Tensor[N, in_channels, Hq, Wq]: The upsampled ``x``.

        Raises:
            TypeError: If there is no guide.
            ValueError: If images, channels or sizes do not match.
        """
        return self._upsample(self._fit(x, guide), guide)

    def _upsample(self, x: Tensor, guide: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Show the arguments that the submodules do not show."""
        return (
            f'{self.in_channels}, guide_channels={self.guide_channels}, '
            f'scale_factor={self.scale_factor}'
        )

    def _fit(self, x: Tensor, guide: Tensor | None) -> Tensor:
        """Check both maps; pad ``x`` by one cell where the guide needs it."""
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
        if x.shape[0] != guide.shape[0]:
            raise ValueError(
                f'{name}: expected x and guide of the same images, got '
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
        check_sizes(name, x, guide.shape[2:], self.scale_factor, swapped)
        return extend_to(x, guide.shape[2:], self.scale_factor)

    def _nearest(self, x: Tensor, guide: Tensor) -> Tensor:
        """Upsample to the size of the guide by nearest neighbor."""
        x = F.interpolate(x, scale_factor=self.scale_factor, mode='nearest')
        return crop(x, guide.shape[2:])

    def _shuffle(self, x: Tensor, guide: Tensor) -> Tensor:
        """Shuffle channels of ``x`` into pixels at the size of the guide."""
        x = F.pixel_shuffle(x, self.scale_factor)
        return crop(x, guide.shape[2:])

    def _pad(self, guide: Tensor, x: Tensor, kernel_size: int) -> Tensor:
        """Pad the guide with zeros for a convolution with stride s.

        Without further padding its output has the size of ``x``, and each
        window is centered on the s x s pixels that a pixel of ``x`` covers.
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
    name: str, x: Tensor, size: tuple, scale_factor: int, hint: str = ''
):
    """Raise ValueError unless ``x``, or one cell more, covers the size."""
    s = scale_factor
    for low, high in zip(x.shape[2:], size):
        if not (low - 1) * s < high < (low + 1) * s:
            raise ValueError(
                f'{name}: expected a guide {s} times the size of x (up to '
                f'{s - 1} pixels more or less), got {list(size)} '
                f'for {list(x.shape[2:])}.{hint}'
            )


def is_plain(module: nn.Module, kind: type) -> bool:
    """Whether a module is exactly a ``kind``, unmodified.

    A module that is pruned, parametrized, wrapped or hooked, or has a
    ``forward`` of its own, must be called; the weights of a plain one may be
    read and folded into others.

    Args:
        module (nn.Module): Any module.
        kind (type): Its exact type; a subclass does not count.
    """
    if type(module) is not kind or 'forward' in module.__dict__:
        return False
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    # mmengine hooks every module to count FLOPs, and changes nothing.
    return not any(hooks) or all(
        hook.__module__ == 'mmengine.analysis.jit_analysis'
        for table in hooks
        for hook in table.values()
    )
