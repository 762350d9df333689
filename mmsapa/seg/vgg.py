"""VGG with the maps before its max-pools."""

import re

import torch.nn as nn
from mmcv.cnn import VGG
from mmengine.model import BaseModule
from torch import Tensor

from ..errors import UserError
from ..registry import MODELS

# Stages after whose pooling SegNet's net for SUN RGB-D drops out.
DROPOUT_STAGES = (2, 3, 4)
HE = (
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', layer='BatchNorm2d', val=1),
)


@MODELS.register_module()
class SegNetVGG(VGG, BaseModule):
    """SegNet's encoder: VGG's convolutions in five stages.

    `SegNet <https://arxiv.org/abs/1511.00561>`_, section 3. Unlike in its
    parent, MMCV's VGG, the norms train, and the maps are those before the
    max-pools. Parameter names are torchvision's, so that its weights load by
    ``init_cfg``: ``vgg16_bn``, and ``vgg16`` with or without batch norms
    here; with them, they start as the identity.

    Args:
        depth (int): 11, 13, 16 or 19. Default: 16.
        with_bn (bool): Whether a batch norm follows each convolution.
            Default: True.
        ceil_mode (bool): Whether odd sizes are halved by rounding up, as
            SegNet does, or down. Default: True.
        dropout_ratio (float): Share of the values that are dropped in
            training after the third, fourth and fifth max-pool; SegNet's
            authors take 0.5 for SUN RGB-D. Default: 0.
        init_cfg (dict, optional): Default: None, which is He et al. for the
            convolutions.
    """

    def __init__(
        self,
        depth: int = 16,
        with_bn: bool = True,
        ceil_mode: bool = True,
        dropout_ratio: float = 0.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(
            depth, with_bn=with_bn, ceil_mode=ceil_mode, bn_eval=False
        )
        self.init_cfg = init_cfg or [*HE]
        self.dropout = nn.Dropout(dropout_ratio)

    def init_weights(self):
        """Initialize by ``init_cfg``, past MMCV's method of that name."""
        super(VGG, self).init_weights()

    def train(self, mode: bool = True) -> 'SegNetVGG':
        """Set the mode; unlike MMCV's VGG, return the module."""
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract the maps.

        Args:
            x (Tensor[N, 3, H, W]): Normalized images.

        Returns:
            tuple[Tensor, ...]: Five maps before the max-pools, of strides 1,
            2, 4, 8 and 16, with 64, 128, 256, 512 and 512 channels; and the
            last one after it, of stride 32, with 512.
        """
        maps = []
        for stage, (start, end) in enumerate(self.range_sub_modules):
            *layers, pool = self.features[start:end]
            for layer in layers:
                x = layer(x)
            maps.append(x)
            x = pool(x)
            if stage in DROPOUT_STAGES:
                x = self.dropout(x)
        return (*maps, x)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        self._rename(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _rename(self, weights, prefix):
        """Give weights of a net without batch norms their places here."""
        pattern = re.compile(re.escape(prefix) + r'features\.(\d+)\.(\w+)')
        found = {
            key: match for key in weights if (match := pattern.match(key))
        }
        theirs = sorted(
            {
                int(match[1])
                for key, match in found.items()
                if match[2] == 'weight' and weights[key].dim() == 4
            }
        )
        ours = [
            i
            for i, layer in enumerate(self.features)
            if isinstance(layer, nn.Conv2d)
        ]
        if not theirs or theirs == ours:
            return
        if len(theirs) != len(ours) or any(
            match[2] == 'running_mean' for match in found.values()
        ):
            raise UserError(
                f'SegNetVGG: expected the weights of {len(ours)} convolutions '
                f'with or without batch norms, got those of {len(theirs)} at '
                f'other places; set depth and with_bn={not self._with_bn()} '
                'as the weights have them, or take others.'
            )
        places = dict(zip(theirs, ours))
        # All are taken out first, since old and new names overlap.
        values = {key: weights.pop(key) for key in found}
        for key, value in values.items():
            index, name = places[int(found[key][1])], found[key][2]
            weights[f'{prefix}features.{index}.{name}'] = value

    def _with_bn(self):
        return isinstance(self.features[1], nn.BatchNorm2d)
