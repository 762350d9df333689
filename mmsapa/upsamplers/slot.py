"""The slot: one call for every upsample layer, guided or not."""

import inspect

import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_upsample_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from .. import openmmlab  # noqa: F401  registers the layers
from ..ops.checks import extend_to
from .guided import check_sizes


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
        self.scale_factor = scale_factor
        if 'type' not in upsample_cfg:
            raise KeyError(
                "upsample_cfg: expected a 'type', such as dict(type='sapa') "
                f"or dict(type='nearest'), got {upsample_cfg}."
            )
        if upsample_cfg['type'] == 'carafe':
            upsample_cfg = {**upsample_cfg, 'type': 'mmsapa.carafe'}
        layer = _find(upsample_cfg['type'])
        parameters = inspect.signature(layer).parameters
        defaults = dict(
            in_channels=in_channels,
            out_channels=in_channels,
            channels=in_channels,
            guide_channels=guide_channels or in_channels,
            scale_factor=scale_factor,
            stride=scale_factor,
        )
        # A layer's own default for these is better than the slot's.
        for name, value in dict(
            kernel_size=scale_factor, upsample_kernel=3
        ).items():
            parameter = parameters.get(name)
            if parameter and parameter.default is inspect.Parameter.empty:
                defaults[name] = value
        defaults = {k: v for k, v in defaults.items() if k in parameters}
        # MMDetection's necks have a mode of interpolation, which a config
        # with another type inherits.
        overrides = {
            k: v
            for k, v in upsample_cfg.items()
            if k != 'mode' or k in parameters
        }
        _check_names(layer, overrides, parameters)
        self.layer = build_upsample_layer({**defaults, **overrides})
        self.guided = (
            'guide' in inspect.signature(self.layer.forward).parameters
        )

    @property
    def interpolates(self) -> bool:
        """Whether the layer reaches any size in a single step."""
        return isinstance(self.layer, nn.Upsample)

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
        if self.guided:
            out = self.layer(x, guide)
        else:
            check_sizes(type(self.layer).__name__, x, guide, self.scale_factor)
            out = self.layer(extend_to(x, size, self.scale_factor))
            # At odd sizes the output is less than a cell too large.
            if all(
                0 <= made - wanted <= self.scale_factor
                for made, wanted in zip(out.shape[2:], size)
            ):
                out = out[..., : size[0], : size[1]]
        if out.shape != (*x.shape[:2], *size):
            raise ValueError(
                f'{type(self.layer).__name__}: expected to make '
                f'{[*x.shape[:2], *size]} of {list(x.shape)}, the size of '
                f'the guide, got {list(out.shape)}; check its scale, padding '
                'and channels.'
            )
        return out


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


def _check_names(layer, overrides, parameters):
    kinds = {parameter.kind for parameter in parameters.values()}
    unknown = overrides.keys() - parameters.keys() - {'type'}
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(
            f'upsample_cfg: expected arguments of {layer.__name__} '
            f'({", ".join(parameters)}), got {", ".join(sorted(unknown))} '
            'too; if the config inherits it, write _delete_=True into '
            'upsample_cfg.'
        )
