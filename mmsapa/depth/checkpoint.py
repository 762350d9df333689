"""Checkpoints of BTS's release: their names of weights, and ours."""

import re

from torch import Tensor

# Patterns in names of the release, and what they are here.
_NAMES = (
    (r'encoder\.base_model\.((?:conv|bn|layer)\d.*)', r'backbone.\1'),
    (r'decoder\.upconv(\d)\.conv\.(.*)', r'decode_head.up_conv\1.0.\2'),
    (r'decoder\.bn4_2\.(.*)', r'decode_head.norm4_merged.\1'),
    (r'decoder\.bn(\d)\.(.*)', r'decode_head.norm\1.\2'),
    (r'decoder\.conv(\d)\.0\.(.*)', r'decode_head.conv\1.0.\2'),
    (r'decoder\.daspp_conv\.0\.(.*)', r'decode_head.conv_aspp.0.\1'),
    (r'decoder\.get_depth\.0\.(.*)', r'decode_head.conv_depth.\1'),
    (
        r'decoder\.daspp_(\d+)\.atrous_conv\.first_bn\.(.*)',
        r'decode_head.aspp.\1.0.\2',
    ),
)
_ASPP = r'decoder\.daspp_(\d+)\.atrous_conv\.aconv_sequence\.(\d)\.(.*)'
_REDUCTION = r'decoder\.reduc(\d)x\d\.reduc\.'


def from_bts(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a checkpoint of BTS's PyTorch release.

    Args:
        weights (dict[str, Tensor]): ``model`` of a checkpoint with a ResNet
            as encoder, with or without ``module.`` before each name.

    Returns:
        dict[str, Tensor]: By the names of a DepthEstimator of a
        :class:`StemResNet` and a :class:`BTSHead`. torchvision's classifier,
        which the release builds and never calls, is left out.

    Raises:
        ValueError: If a name is not one of BTS with a ResNet.
    """
    weights = {k.removeprefix('module.'): v for k, v in weights.items()}
    renamed = {}
    for name, value in weights.items():
        if not name.startswith('encoder.base_model.fc.'):
            renamed[_rename(name, weights)] = value
    return renamed


def _rename(name, weights):
    for pattern, ours in _NAMES:
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    if match := re.fullmatch(_ASPP, name):
        rate, index, rest = match.groups()
        # Ours counts the norm before it too.
        return f'decode_head.aspp.{rate}.{int(index) + 1}.{rest}'
    if match := re.match(_REDUCTION, name):
        # Its convolutions get smaller from one to the next.
        chain = sorted(
            (key for key in weights if key.startswith(match[0])),
            key=lambda key: -weights[key].numel(),
        )
        index = 2 * chain.index(name)  # an ELU lies between
        return f'decode_head.reduce{match[1]}.{index}.weight'
    raise ValueError(
        'expected weights of BTS with a ResNet, such as '
        f'encoder.base_model.conv1.weight, got {name}; take a checkpoint of '
        'bts_resnet50 or bts_resnet101.'
    )
