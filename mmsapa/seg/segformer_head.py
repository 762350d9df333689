"""SegFormer's head with an upsampler slot."""

import torch.nn as nn
from mmengine.model import ModuleList
from mmseg.models.decode_heads import SegformerHead as MMSegSegformerHead
from torch import Tensor

from ..registry import MODELS
from ..upsamplers import SlotMixin, UpsampleSlot


@MODELS.register_module()
class SegformerHead(SlotMixin, MMSegSegformerHead):
    """MMSegmentation's SegFormer head with any upsample layer in it.

    Each embedded map c4, c3, c2 climbs to the resolution of c1 in steps of
    two, with a module of its own for every step; the guides are the embedded
    maps it passes. An interpolation needs no steps and goes there at once, as
    in the parent.

    Args:
        upsample_cfg (dict): The upsample layer, with a ``type`` from the
            registry, for example ``dict(type='sapa', variant='G')``.
            Default: ``dict(type='bilinear')``, as in the parent.
        embedding (str): ``'conv'`` embeds each level by convolution, norm
            and activation, as MMSegmentation does; ``'linear'`` by a plain
            linear layer, as SegFormer's authors do. Default: ``'conv'``.
        **kwargs: As in :class:`mmseg.models.decode_heads.SegformerHead`.

    Raises:
        ValueError: If the embedding is unknown.
    """

    def __init__(
        self, upsample_cfg: dict = None, embedding: str = 'conv', **kwargs
    ):
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
        upsample_cfg = upsample_cfg or dict(
            type='bilinear', align_corners=self.align_corners
        )
        # upsamplers[i][j] takes level i + 1 from level j + 1 to level j.
        self.upsamplers = ModuleList(
            ModuleList(
                UpsampleSlot(upsample_cfg, self.channels) for _ in range(level)
            )
            for level in range(1, len(self.convs))
        )

    @property
    def laterals(self) -> list[nn.Module]:
        """The embeddings, high resolution first."""
        return self.convs

    def upsample(self, call: int, x: Tensor, guides: list[Tensor]) -> Tensor:
        """Take one level, in the parent's order, up to the first."""
        if call == 0:
            return x
        slots = self.upsamplers[call - 1]
        if slots[0].interpolates:
            return slots[0](x, guides[0])
        for level in reversed(range(call)):
            x = slots[level](x, guides[level])
        return x
