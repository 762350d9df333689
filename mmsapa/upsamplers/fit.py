"""What fits a layer into a step: its arguments, and the size of its result.

Slots and ``mmsapa.anymodel`` share it; it needs torch alone.
"""

import inspect
from collections.abc import Mapping

import torch.nn as nn
from torch import Tensor

from ..ops.checks import extend_to
from .guided import check_sizes


def fill_in(
    layer: type,
    upsample_cfg: Mapping,
    in_channels: int,
    guide_channels: int,
    scale_factor: int,
) -> dict:
    """Give a layer's arguments: of the config, else of the step.

    Every layer has its own names for channels and scale.

    Args:
        layer (type): The class.
        upsample_cfg (Mapping): Its arguments, which override the step's.
            ``type`` is left out, and so is a ``mode`` that the layer lacks:
            MMDetection's necks have one, which a config with another type
            inherits.
        in_channels (int): Channels of the map, before and after.
        guide_channels (int): Channels of the guide.
        scale_factor (int): Size of the guide over that of the map.

    Returns:
        dict: Arguments of ``layer``.

    Raises:
        TypeError: If the layer does not take an argument of the config.
    """
    parameters = inspect.signature(layer).parameters
    defaults = dict(
        in_channels=in_channels,
        out_channels=in_channels,
        channels=in_channels,
        guide_channels=guide_channels,
        scale_factor=scale_factor,
        stride=scale_factor,
    )
    # A layer's own default for these is better than the step's.
    for name, value in dict(
        kernel_size=scale_factor, upsample_kernel=3
    ).items():
        parameter = parameters.get(name)
        if parameter and parameter.default is inspect.Parameter.empty:
            defaults[name] = value
    overrides = {
        k: v
        for k, v in upsample_cfg.items()
        if k != 'type' and (k != 'mode' or k in parameters)
    }
    kinds = {parameter.kind for parameter in parameters.values()}
    unknown = overrides.keys() - parameters.keys()
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(
            f'upsample_cfg: expected arguments of {layer.__name__} '
            f'({", ".join(parameters)}), got {", ".join(sorted(unknown))} '
            'too; if the config inherits it, write _delete_=True into '
            'upsample_cfg.'
        )
    defaults = {k: v for k, v in defaults.items() if k in parameters}
    return {**defaults, **overrides}


def is_guided(layer: nn.Module | type) -> bool:
    """Whether a layer, or a class of layers, is called with a guide."""
    return 'guide' in inspect.signature(layer.forward).parameters


def upsample_to(
    layer: nn.Module,
    x: Tensor,
    size: tuple[int, int],
    scale_factor: int,
    guide: Tensor | None = None,
) -> Tensor:
    """Upsample a map to exactly ``size``, by any layer.

    Args:
        layer (nn.Module): The layer; without a guide it is called with ``x``
            alone.
        x (Tensor[N, C, H, W]): Low-res map.
        size (tuple[int, int]): (Hq, Wq), that of the guide if there is one;
            (H - 1) * s < Hq < (H + 1) * s, and Wq likewise.
        scale_factor (int): s, the layer's.
        guide (Tensor[N, Cg, Hq, Wq], optional): For a guided layer.

    Returns:
        Tensor[N, C, Hq, Wq]: The upsampled ``x``.

    Raises:
        ValueError: If the sizes do not match, or the layer's output has
            another size.
    """
    name = type(layer).__name__
    if guide is not None:
        out = layer(x, guide)
    else:
        check_sizes(name, x, size, scale_factor)
        out = layer(extend_to(x, size, scale_factor))
        # At odd sizes the output is less than a cell too large.
        if all(
            0 <= made - wanted <= scale_factor
            for made, wanted in zip(out.shape[2:], size)
        ):
            out = out[..., : size[0], : size[1]]
    if out.shape != (*x.shape[:2], *size):
        raise ValueError(
            f'{name}: expected to make {[*x.shape[:2], *size]} of '
            f'{list(x.shape)}, the size of the guide, got {list(out.shape)}; '
            'check its scale, padding and channels.'
        )
    return out
