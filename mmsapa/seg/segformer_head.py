"""SegFormer's head with upsampler slots."""

from collections.abc import Callable, Sequence

import torch.nn as nn
from mmengine.model import ModuleList
from mmseg.models.decode_heads import SegformerHead as MMSegSegformerHead
from torch import Tensor

from ..registry import MODELS
from ..upsamplers import SlotMixin, UpsampleSlot


@MODELS.register_module()
class SegformerHead(SlotMixin, MMSegSegformerHead):
    """MMSegmentation's SegFormer head with any upsample layer.

    Each embedded map c4, c3, c2 is upsampled to the resolution of c1 in
    steps of two, each step by its own layer; the guides are the embedded
    maps on the way. An interpolation takes a single step, as in the parent.

    Args:
        upsample_cfg (dict, optional): The upsample layer, as in
            :class:`mmsapa.upsamplers.SlotMixin`. Default: None.
        embedding (str): ``'conv'`` embeds each level by convolution, norm
            and activation, as MMSegmentation does; ``'linear'`` by a plain
            linear layer, as SegFormer's authors do. Default: ``'conv'``.
        **kwargs: As in :class:`mmseg.models.decode_heads.SegformerHead`.

    Raises:
        ValueError: If the embedding is unknown.
    """

    first_step = 1  # after c1, which needs no upsampling

    def __init__(self, embedding: str = 'conv', **kwargs):
        super().__init__(**kwargs)
        if embedding not in ('conv', 'linear'):
            raise ValueError(
                "SegformerHead: expected embedding 'conv' or 'linear', got "
                f'{embedding!r}.'
            )
        if embedding == 'linear':
            self.convs = ModuleList(
                nn.Conv2d(in_channels, self.channels, 1)
                for in_channels in self.in_channels
            )

    @property
    def laterals(self) -> Sequence[nn.Module]:
        """The embeddings, high resolution first."""
        return self.convs

    def make_upsamplers(self, upsample_cfg: dict) -> ModuleList:
        """Make upsamplers[i][j], from level j + 1 to j, for level i + 1."""
        return ModuleList(
            ModuleList(
                UpsampleSlot(upsample_cfg, self.channels) for _ in range(level)
            )
            for level in range(1, len(self.convs))
        )

    def upsample_to_guide(
        self,
        call: int,
        x: Tensor,
        guides: list[Tensor],
        interpolate: Callable[[], Tensor],
    ) -> Tensor:
        """Upsample one level, in the parent's order, to the first."""
        if call == 0:
            return x
        slots = self.upsamplers[call - 1]
        if slots[0].interpolates:
            return slots[0](x, guides[0])
        for level in reversed(range(call)):
            x = slots[level](x, guides[level])
        return x
