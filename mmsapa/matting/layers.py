"""What encoder and decoder are made of."""

import math

import torch.nn as nn
from torch import Tensor

# Of convolutions that nothing pretrained is for.
XAVIER = dict(
    type='Xavier',
    layer='Conv2d',
    distribution='normal',
    gain=math.sqrt(2 / (1 + 0.01**2)),  # of the leaky ReLU
)


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, **kwargs
) -> nn.Sequential:
    """Make a convolution that keeps the size, and its batch norm.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        kernel_size (int): Odd.
        **kwargs: More for the convolution, such as ``dilation``.
    """
    padding = kernel_size // 2 * kwargs.get('dilation', 1)
    return nn.Sequential(
        nn.Conv2d(
            *(in_channels, out_channels, kernel_size),
            padding=padding,
            bias=False,
            **kwargs,
        ),
        nn.BatchNorm2d(out_channels),
    )


def leaky_relu() -> nn.LeakyReLU:
    """Make the activation of encoder and decoder."""
    return nn.LeakyReLU(0.01, inplace=True)


def conv_bn_act(*args, **kwargs) -> nn.Sequential:
    """Make what :func:`conv_bn` makes, and an activation."""
    return nn.Sequential(*conv_bn(*args, **kwargs), leaky_relu())


class ResidualBlock(nn.Module):
    """Two convolutions of 3x3 beside a shortcut.

    The block of ResNet-18 and -34 with leaky ReLU, by torchvision's names.
    The shortcut is a convolution of 1x1 where channels or ``stride`` ask for
    one.

    Args:
        in_channels (int): Channels of the input.
        channels (int): Channels of the output.
        stride (int): Of the shortcut; what is between the two convolutions
            must do the same. Default: 1.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, channels, 3)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3)
        self.downsample = None
        if in_channels != channels or stride != 1:
            self.downsample = conv_bn(in_channels, channels, 1, stride=stride)
        self.act = leaky_relu()

    def forward(self, x: Tensor) -> Tensor:
        """Compute a Tensor[N, channels, H, W] of one with in_channels."""
        return self.second(x, self.first(x))

    def first(self, x: Tensor) -> Tensor:
        """Compute what is between the two convolutions."""
        return self.act(self.bn1(self.conv1(x)))

    def second(self, x: Tensor, between: Tensor) -> Tensor:
        """Compute the output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.act(self.bn2(self.conv2(between)) + shortcut)
