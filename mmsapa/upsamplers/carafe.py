"""CARAFE, an upsample layer with weights from the map itself."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..ops import reassemble
from ..ops.checks import check_window


class CARAFE(nn.Module):
    """Content-aware reassembly of features, without a guide.

    A convolution predicts, from a compressed ``x``, K * K logits for each
    output pixel; their softmax weighs the window of ``x`` around it (Wang et
    al., ICCV 2019, https://arxiv.org/abs/1905.02188, section 3.2).

    Arguments, their defaults and the parameters' names are those of MMCV's
    ``CARAFEPack``, so each loads the other's checkpoints. MMCV's needs a GPU
    and its compiled operators; this one runs by
    :func:`mmsapa.ops.reassemble`, on any device.

    Args:
        channels (int): Channels of ``x``.
        scale_factor (int): Size of the result over size of ``x``.
        up_kernel (int): K, side of the window in pixels of ``x``, odd.
            Default: 5.
        up_group (int): Groups of channels, each with its own weights.
            Default: 1.
        encoder_kernel (int): Side of the convolution's window, odd.
            Default: 3.
        encoder_dilation (int): Its dilation. Default: 1.
        compressed_channels (int): Channels that ``x`` is compressed to.
            Default: 64.

    Raises:
        ValueError: If a window is even, ``up_kernel`` above 512 over
            ``scale_factor``, or ``channels`` not divisible by ``up_group``.
    """

    def __init__(
        self,
        channels: int,
        scale_factor: int,
        up_kernel: int = 5,
        up_group: int = 1,
        encoder_kernel: int = 3,
        encoder_dilation: int = 1,
        compressed_channels: int = 64,
    ):
        super().__init__()
        if channels % up_group:
            raise ValueError(
                'CARAFE: expected channels divisible by up_group, got '
                f'channels={channels} and up_group={up_group}.'
            )
        check_window('CARAFE', up_kernel, scale_factor)
        check_window('CARAFE', encoder_kernel, 1)
        self.scale_factor = scale_factor
        self.up_kernel = up_kernel
        self.up_group = up_group
        self.channel_compressor = nn.Conv2d(channels, compressed_channels, 1)
        self.content_encoder = nn.Conv2d(
            compressed_channels,
            up_group * (up_kernel * scale_factor) ** 2,
            encoder_kernel,
            padding=encoder_kernel // 2 * encoder_dilation,
            dilation=encoder_dilation,
        )
        self.reset_parameters()

    def reset_parameters(self):
        """Initialize by Glorot and Bengio, and the logits near zero."""
        nn.init.xavier_uniform_(self.channel_compressor.weight)
        # Nearly the mean of the window.
        nn.init.normal_(self.content_encoder.weight, std=0.001)
        for conv in (self.channel_compressor, self.content_encoder):
            nn.init.zeros_(conv.bias)

    def init_weights(self):
        """Initialize again, under the name that mmengine calls.

        As :meth:`mmsapa.upsamplers.guided.GuidedUpsampler.init_weights`.
        """
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Upsample ``x``.

        Args:
            x (Tensor[N, channels, H, W]): Decoder feature, low resolution.

        Returns:
            Tensor[N, channels, H * s, W * s]: The upsampled ``x``.
        """
        logits = self.content_encoder(self.channel_compressor(x))
        logits = F.pixel_shuffle(logits, self.scale_factor)
        logits = logits.unflatten(1, (self.up_group, self.up_kernel**2))
        return reassemble(
            logits.softmax(2).flatten(1, 2),
            x,
            self.up_kernel,
            self.scale_factor,
            self.up_group,
        )

    def extra_repr(self) -> str:
        """Show the arguments that the submodules do not show."""
        return (
            f'scale_factor={self.scale_factor}, up_kernel={self.up_kernel}, '
            f'up_group={self.up_group}'
        )
