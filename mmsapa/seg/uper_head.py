"""UPerNet's head with an upsampler slot."""

from mmseg.models.decode_heads import UPerHead as MMSegUPerHead

from ..registry import MODELS
from ..upsamplers import SlotMixin
from ..upsamplers.top_down import through_slots


@MODELS.register_module()
class UPerHead(SlotMixin, MMSegUPerHead):
    """MMSegmentation's UPerNet head whose top-down steps take any layer.

    The guide of a step is the lateral map that its result is added to,
    before the addition. Pooled maps and the final fusion are interpolated as
    in the parent: nothing guides them.

    Args:
        upsample_cfg (dict, optional): The upsample layer, as in
            :class:`mmsapa.upsamplers.SlotMixin`. Default: None.
        **kwargs: As in :class:`mmseg.models.decode_heads.UPerHead`.
    """

    _forward_feature = through_slots(MMSegUPerHead._forward_feature)

    @property
    def interpolations(self) -> int:
        """Each level is interpolated once more, to be fused."""
        return 2 * len(self.upsamplers)
