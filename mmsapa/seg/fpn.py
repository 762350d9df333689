"""MMSegmentation's FPN with upsampler slots."""

from collections.abc import Sequence

import torch.nn as nn
from mmseg.models.necks import FPN as MMSegFPN

from ..registry import MODELS
from ..upsamplers.mixin import SlotMixin


@MODELS.register_module()
class SegFPN(SlotMixin, MMSegFPN):
    """MMSegmentation's FPN neck whose top-down steps take any upsample layer.

    The guide of a step is the lateral map that its result is added to,
    before the addition.

    Args:
        upsample_cfg (dict, optional): The upsample layer, as in
            :class:`mmsapa.upsamplers.SlotMixin`. Default: None.
        *args: As in :class:`mmseg.models.necks.FPN`.
        **kwargs: As in :class:`mmseg.models.necks.FPN`.
    """

    @property
    def laterals(self) -> Sequence[nn.Module]:
        """The lateral convolutions without the top: nothing goes up to it."""
        return [*self.lateral_convs][:-1]
