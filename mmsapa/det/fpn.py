"""FPN with an upsampler slot."""

import torch.nn as nn
from mmdet.models.necks import FPN as MMDetFPN
from mmengine.model import ModuleList
from torch import Tensor

from ..registry import MODELS
from ..upsamplers import SlotMixin, UpsampleSlot


@MODELS.register_module()
class FPN(SlotMixin, MMDetFPN):
    """MMDetection's FPN whose top-down steps take any upsample layer.

    The guide of a step is the lateral map that its result is added to,
    before the addition.

    Args:
        *args: As in :class:`mmdet.models.necks.FPN`.
        upsample_cfg (dict): The upsample layer, with a ``type`` from the
            registry, for example ``dict(type='sapa', variant='G')``.
            Default: ``dict(type='nearest')``, as in the parent.
        **kwargs: As in :class:`mmdet.models.necks.FPN`.
    """

    def __init__(self, *args, upsample_cfg: dict = None, **kwargs):
        super().__init__(*args, **kwargs)
        upsample_cfg = upsample_cfg or dict(type='nearest')
        # upsamplers[i] goes from level i + 1 to level i.
        self.upsamplers = ModuleList(
            UpsampleSlot(upsample_cfg, self.out_channels)
            for _ in range(len(self.lateral_convs) - 1)
        )

    @property
    def laterals(self) -> list[nn.Module]:
        """The lateral convolutions, high resolution first."""
        return self.lateral_convs

    def upsample(self, call: int, x: Tensor, guides: list[Tensor]) -> Tensor:
        """Take the steps from the top, one a call."""
        level = len(self.upsamplers) - 1 - call
        return self.upsamplers[level](x, guides[level])
