"""DySample, an upsample layer without a guide."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..ops.checks import accumulate_dtype


class DySample(nn.Module):
    """Upsampling by learning where to sample.

    Each output pixel samples ``x`` bilinearly at its own position plus a
    learned offset (Liu et al., ICCV 2023, https://arxiv.org/abs/2308.15085,
    section 3). With offsets of zero it is bilinear interpolation.

    Args:
        in_channels (int): Channels of ``x``.
        scale_factor (int): Size of the result over size of ``x``.
            Default: 2.
        groups (int): Groups of channels, each with its own offsets.
            Default: 4.
        style (str): ``'lp'`` projects ``x``, then shuffles pixels; ``'pl'``
            shuffles pixels, then projects, with fewer parameters.
            Default: ``'lp'``.
        dyscope (bool): Whether to predict the scale of the offsets too,
            between 0 and 0.5 pixels of ``x`` per unit; otherwise it is 0.25.
            Default: False.

    Raises:
        ValueError: If the style is unknown, or ``in_channels`` is not
            divisible as groups and style need.
    """

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        groups: int = 4,
        style: str = 'lp',
        dyscope: bool = False,
    ):
        super().__init__()
        if style not in ('lp', 'pl'):
            raise ValueError(
                f"DySample: expected style 'lp' or 'pl', got {style!r}."
            )
        phases = scale_factor**2
        for divisor, name in (
            (groups, 'groups'),
            (phases if style == 'pl' else 1, 'scale_factor ** 2'),
        ):
            if in_channels % divisor:
                raise ValueError(
                    f'DySample: expected in_channels divisible by {name}, '
                    f'got in_channels={in_channels} and {name}={divisor}.'
                )
        self.in_channels = in_channels
        self.scale_factor = scale_factor
        self.groups = groups
        self.style = style

        if style == 'lp':
            channels = in_channels, 2 * groups * phases
        else:
            channels = in_channels // phases, 2 * groups
        self.offset = nn.Conv2d(*channels, 1)
        self.scope = nn.Conv2d(*channels, 1, bias=False) if dyscope else None
        self.reset_parameters()

    def reset_parameters(self):
        """Initialize the offsets near zero: close to bilinear."""
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)
        if self.scope is not None:
            nn.init.zeros_(self.scope.weight)

    def init_weights(self):
        """Initialize again, under the name that mmengine calls.

        As :meth:`mmsapa.upsamplers.guided.GuidedUpsampler.init_weights`.
        """
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Upsample ``x``.

        Args:
            x (Tensor[N, in_channels, H, W]): Decoder feature, low
                resolution.

        Returns:
            Tensor[N, in_channels, H * s, W * s]: The upsampled ``x``.
        """
        if self.scope is None:
            scope = 0.25
        else:
            scope = 0.5 * self._project(self.scope, x).sigmoid()
        offsets = scope * self._project(self.offset, x)

        n, c, h, w = x.shape
        s = self.scale_factor
        # Positions in half precision would be off by tenths of a pixel.
        dtype = accumulate_dtype(x.dtype)
        offsets = offsets.to(dtype).view(n, 2, self.groups, s * h, s * w)
        # In the range of grid_sample, -1 to 1, and from pixels of x to it.
        positions = []
        for i, size in enumerate((w, h)):
            centers = torch.arange(s * size, dtype=dtype, device=x.device)
            centers = (2 * centers + 1) / (s * size) - 1
            centers = centers if i == 0 else centers[:, None]
            positions.append(centers + offsets[:, i] * (2 / size))
        out = F.grid_sample(
            x.to(dtype).reshape(n * self.groups, c // self.groups, h, w),
            torch.stack(positions, -1).flatten(0, 1),
            mode='bilinear',
            padding_mode='border',
            align_corners=False,
        )
        return out.view(n, c, s * h, s * w).to(x.dtype)

    def _project(self, projection: nn.Module, x: Tensor) -> Tensor:
        """Project ``x`` to a Tensor[N, 2 * groups, H * s, W * s]."""
        if self.style == 'lp':
            return F.pixel_shuffle(projection(x), self.scale_factor)
        return projection(F.pixel_shuffle(x, self.scale_factor))

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f'{self.in_channels}, scale_factor={self.scale_factor}, '
            f'groups={self.groups}, style={self.style!r}, '
            f'dyscope={self.scope is not None}'
        )
