"""The slot: one call for every upsample layer, guided or not."""

import inspect

import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_upsample_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from .. import openmmlab  # noqa: F401  registers the layers
from .fit import fill_in, is_guided, upsample_to


class UpsampleSlot(BaseModule):
    """Upsamples a map to the size of its guide by any registered layer.

    Every registered layer has its own names for channels and scale. A slot
    fills them in, so that ``dict(type='sapa')`` and ``dict(type='deconv')``
    are interchangeable. Config values override the slot's defaults, except
    the ``mode`` of an interpolation, which follows from the type.

        up = UpsampleSlot(dict(type='sapa'), in_channels=256)
        fine = up(coarse, guide)

    Args:
        upsample_cfg (dict): ``type`` is a name in the registry (nearest,
            bilinear, max_unpool, deconv, pixel_shuffle, carafe, indexnet,
            a2u, fade, dysample, sapa, …) or a class; the rest goes to the
            layer. ``carafe`` is ours, which any device runs, with the
            parameters of MMCV's.
        in_channels (int): Channels of the map, before and after.
        guide_channels (int, optional): Channels of the guide. Default:
            ``in_channels``.
        scale_factor (int): Size of the guide over that of the map.
            Default: 2.

    Raises:
        KeyError: If ``type`` is missing or no such layer is registered.
        TypeError: If the layer does not take an argument of the config.
    """

    def __init__(
        self,
        upsample_cfg: dict,
        in_channels: int,
        guide_channels: int | None = None,
        scale_factor: int = 2,
    ):
        super().__init__()
        if 'type' not in upsample_cfg:
            raise KeyError(
                "upsample_cfg: expected a 'type', such as dict(type='sapa') "
                f"or dict(type='nearest'), got {upsample_cfg}."
            )
        if upsample_cfg['type'] == 'carafe':
            upsample_cfg = {**upsample_cfg, 'type': 'mmsapa.carafe'}
        layer = _find(upsample_cfg['type'])
        arguments = fill_in(
            layer,
            upsample_cfg,
            in_channels,
            guide_channels or in_channels,
            scale_factor,
        )
        self.layer = build_upsample_layer(
            dict(type=upsample_cfg['type'], **arguments)
        )
        self.guided = is_guided(self.layer)
        # That of the config, if it has one.
        stride = arguments.get('stride', scale_factor)
        self.scale_factor = arguments.get('scale_factor', stride)

    @property
    def interpolates(self) -> bool:
        """Whether the layer reaches any size in a single step."""
        return type(self.layer) is nn.Upsample

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Upsample ``x``.

        Args:
            x (Tensor[N, in_channels, H, W]): Low-res map.
            guide (Tensor[N, guide_channels, Hq, Wq]): High-res map; an
                unguided layer uses only its size.

        Returns:
            Tensor[N, in_channels, Hq, Wq]: ``x`` at the guide's size.

        Raises:
            RuntimeError: If there is no guide.
            ValueError: If the sizes do not match, or the layer's output has
                another size than the guide.
        """
        if guide is None:
            raise RuntimeError(
                'UpsampleSlot: expected a guide, got none; its lateral has to '
                'run before the map is upsampled.'
            )
        size = guide.shape[2:]
        if self.interpolates:
            return F.interpolate(
                x,
                size=size,
                mode=self.layer.mode,
                align_corners=self.layer.align_corners,
            )
        return upsample_to(
            self.layer,
            x,
            size,
            self.scale_factor,
            guide if self.guided else None,
        )


def _find(layer_type):
    if inspect.isclass(layer_type):
        return layer_type
    try:
        with MODELS.switch_scope_and_registry(None) as registry:
            layer = registry.get(layer_type)
    except RuntimeError:  # mmengine raises it for an unknown name
        layer = None
    if layer is None:
        raise KeyError(
            f'upsample_cfg: expected the name of a registered upsample layer '
            f'(sapa, fade, a2u, indexnet, dysample, max_unpool, nearest, '
            f'bilinear, deconv, pixel_shuffle, carafe, …), got type='
            f'{layer_type!r}.'
        )
    return layer
