"""The slot: one call for every upsample layer, guided or not."""

import inspect

import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_upsample_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from ..ops.checks import extend_to
from .guided import check_sizes


class UpsampleSlot(BaseModule):
    """Upsamples a map to the size of its guide by any registered layer.

    The registry's layers name their arguments each in its own way; a slot
    fills in channels and scale, so that ``dict(type='sapa')`` and
    ``dict(type='deconv')`` can stand for one another. What the config says
    goes before what the slot would fill in, but for the ``mode`` of an
    interpolation, which the type decides.

    Args:
        upsample_cfg (dict): ``type`` is a name in the registry (nearest,
            bilinear, deconv, pixel_shuffle, carafe, indexnet, a2u, fade,
            dysample, sapa, …); the rest goes to the layer.
        in_channels (int): Channels of the map, before and after.
        guide_channels (int, optional): Channels of the guide. Default:
            ``in_channels``.
        scale_factor (int): Size of the guide over that of the map.
            Default: 2.

    Raises:
        KeyError: If ``type`` is missing or no such layer is registered.
        TypeError: If the layer does not know what the config says.
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
        layer = _find(upsample_cfg['type'])
        parameters = inspect.signature(layer.__init__).parameters
        given = dict(
            in_channels=in_channels,
            out_channels=in_channels,
            channels=in_channels,
            guide_channels=guide_channels or in_channels,
            scale_factor=scale_factor,
            stride=scale_factor,
        )
        # Sizes that a layer with a default for them knows best.
        required = dict(kernel_size=scale_factor, upsample_kernel=3)
        given.update(
            (name, value)
            for name, value in required.items()
            if name in parameters
            and parameters[name].default is inspect.Parameter.empty
        )
        given = {k: v for k, v in given.items() if k in parameters}
        # Necks of the library say how they interpolate, and a config that
        # names another type inherits it.
        said = {
            k: v
            for k, v in upsample_cfg.items()
            if k != 'mode' or k in parameters
        }
        _check_names(layer, said, parameters)
        self.layer = build_upsample_layer({**given, **said})
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
            x (Tensor[N, in_channels, H, W]): Low resolution.
            guide (Tensor[N, guide_channels, Hq, Wq]): High resolution; of an
                unguided layer only its size counts.

        Returns:
            Tensor[N, in_channels, Hq, Wq]: ``x`` at the guide's size.

        Raises:
            RuntimeError: If there is no guide.
            ValueError: If the sizes do not fit together, or the layer makes
                another size than the guide's.
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
            # Of a map of odd size less than a cell is not wanted.
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
    if layer_type == 'carafe':
        import mmcv.ops  # noqa: F401  registers it
    try:
        with MODELS.switch_scope_and_registry(None) as registry:
            layer = registry.get(layer_type)
    except RuntimeError:  # mmengine's answer to an unknown name
        layer = None
    if layer is None:
        raise KeyError(
            f'upsample_cfg: expected the name of a registered upsample layer '
            f'(sapa, fade, a2u, indexnet, dysample, nearest, bilinear, '
            f'deconv, pixel_shuffle, carafe, …), got type={layer_type!r}.'
        )
    return layer


def _check_names(layer, said, parameters):
    kinds = {parameter.kind for parameter in parameters.values()}
    unknown = said.keys() - parameters.keys() - {'type'}
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        known = ', '.join(name for name in parameters if name != 'self')
        raise TypeError(
            f'upsample_cfg: expected arguments of {layer.__name__} ({known}), '
            f'got {", ".join(sorted(unknown))} too; if the config inherits '
            'it, write _delete_=True into upsample_cfg.'
        )
