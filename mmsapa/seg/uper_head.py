"""UPerNet's head with upsampler slots."""

from mmseg.models.decode_heads import UPerHead as MMSegUPerHead

from ..registry import MODELS
from ..upsamplers.mixin import SlotMixin, through_slots


@MODELS.register_module()
class UPerHead(SlotMixin, MMSegUPerHead):
    """MMSegmentation's UPerNet head whose top-down steps take any layer.

    The guide of a step is the lateral map that its result is added to,
    before the addition. Pooled maps and the final fusion have no guide and
    are interpolated as in the parent.

    Args:
        upsample_cfg (dict, optional): The upsample layer, as in
            :class:`mmsapa.upsamplers.SlotMixin`. Default: None.
        **kwargs: As in :class:`mmseg.models.decode_heads.UPerHead`.
    """

    _forward_feature = through_slots(MMSegUPerHead._forward_feature)

    @property
    def interpolations(self) -> int:
        """The steps, and one interpolation a level for the fusion."""
        return 2 * len(self.upsamplers)
