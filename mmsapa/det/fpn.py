"""MMDetection's FPN and related necks with upsampler slots."""

from collections.abc import Sequence

import torch.nn as nn
from mmdet.models import necks

from ..registry import MODELS
from ..upsamplers.mixin import SlotMixin, through_slots


@MODELS.register_module()
class FPN(SlotMixin, necks.FPN):
    """MMDetection's FPN whose top-down steps take any upsample layer.

    The guide of a step is the lateral map that its result is added to,
    before the addition.

    Args:
        upsample_cfg (dict, optional): The upsample layer, as in
            :class:`mmsapa.upsamplers.SlotMixin`. Default: None.
        *args: As in :class:`mmdet.models.necks.FPN`.
        **kwargs: As in :class:`mmdet.models.necks.FPN`.
    """

    @property
    def laterals(self) -> Sequence[nn.Module]:
        """The lateral convolutions without the top: nothing goes up to it."""
        return [*self.lateral_convs][:-1]


@MODELS.register_module()
class PAFPN(FPN, necks.PAFPN):
    """MMDetection's PAFPN whose top-down steps take any upsample layer.

    Guides and arguments as in :class:`FPN`.
    """


_upsample = through_slots(nn.Upsample.forward)


class _Upsample(nn.Upsample):
    """Replaces the ``nn.Upsample`` by which the necks below interpolate."""

    upsamplers = ()  # tells through_slots that it belongs to a slotted module

    def forward(self, input):
        """Upsample by the slot of the surrounding module."""
        # Assigned as forward, torch 2.1 would take it for PyTorch's own.
        return _upsample(self, input)


class _WithoutLaterals(SlotMixin):
    laterals = ()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if hasattr(self, 'upsamplers'):
            layer = self.upsample
            self.upsample = _Upsample(
                layer.size, layer.scale_factor, layer.mode, layer.align_corners
            )

    @property
    def guide_channels(self) -> list[int]:
        """Channels of the inputs without the top: nothing goes up to it."""
        return self.in_channels[:-1]


@MODELS.register_module()
class YOLOXPAFPN(_WithoutLaterals, necks.YOLOXPAFPN):
    """YOLOX's PAFPN whose top-down steps take any upsample layer.

    The guide of a step is the backbone's map that its result is concatenated
    with. Arguments as in :class:`FPN` and
    :class:`mmdet.models.necks.YOLOXPAFPN`.
    """


@MODELS.register_module()
class CSPNeXtPAFPN(_WithoutLaterals, necks.CSPNeXtPAFPN):
    """RTMDet's PAFPN whose top-down steps take any upsample layer.

    Guides and arguments as in :class:`YOLOXPAFPN`.
    """
