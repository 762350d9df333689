"""The slot: one call for every upsample layer, guided or not."""

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from types import NoneType

import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_upsample_layer
from mmengine.model import BaseModule, ModuleList
from mmengine.registry import MODELS
from torch import Tensor
from torch.overrides import TorchFunctionMode


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
        """
        if guide is None:
            raise RuntimeError(
                'UpsampleSlot: expected a guide, got none; where a lateral '
                'was replaced after its model was made, watch_laterals() has '
                'to be called again.'
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
            return self.layer(x, guide)
        out = self.layer(x)
        if out.shape[2] < size[0] or out.shape[3] < size[1]:
            raise ValueError(
                f'{type(self.layer).__name__}: expected to reach the '
                f"guide's size {list(size)}, got {list(out.shape[2:])} from "
                f'{list(x.shape[2:])}; check its scale and padding.'
            )
        # A map of odd size is a pixel short of twice its half.
        return out[..., : size[0], : size[1]]


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


class _TakeInterpolation(TorchFunctionMode):
    """Within it, every ``F.interpolate`` is handed over.

    ``take`` gets the map, and a function that interpolates it as asked.
    """

    def __init__(self, take: Callable[[Tensor, Callable], Tensor]):
        super().__init__()
        self.take = take

    def __torch_function__(self, func, types, args=(), kwargs=None):
        call = functools.partial(func, *args, **(kwargs or {}))
        if func is not F.interpolate:
            return call()
        return self.take(args[0] if args else kwargs['input'], call)


class SlotMixin:
    """Puts slots where a head or neck of OpenMMLab interpolates.

    These modules come down a pyramid: in each step a map is interpolated to
    the size of a finer one, its guide, and merged with it. The mixin stands
    before such a class, runs its ``forward``, and puts the upsample layers
    of :attr:`upsamplers` in place of those interpolations. So nothing of the
    parent is written again, what its checkpoints hold keeps its name, and
    with its own interpolation in the slots it computes what it always did.

    As it stands the mixin serves all whose guides are the outputs of
    ``lateral_convs``; a subclass overrides what is different in its parent.

    Args:
        *args: The parent's.
        upsample_cfg (dict, optional): The upsample layer, with a ``type``
            from the registry, for example ``dict(type='sapa')``. Without it,
            or with what the parent itself takes under this name, the parent
            interpolates as ever. Default: None.
        **kwargs: The parent's.

    Raises:
        TypeError: If ``upsample_cfg`` is not a dict.
        ValueError: If the parent takes no step with these arguments.
    """

    first_step = 0
    """Interpolations that the parent makes before its first step down."""

    def __init__(self, *args, upsample_cfg: dict | None = None, **kwargs):
        if not isinstance(upsample_cfg, (dict, NoneType)):
            raise TypeError(
                "upsample_cfg: expected a dict such as dict(type='sapa'), got "
                f'{upsample_cfg!r}.'
            )
        if upsample_cfg and 'type' not in upsample_cfg:
            parent = super().__init__
            if 'upsample_cfg' in inspect.signature(parent).parameters:
                kwargs['upsample_cfg'] = upsample_cfg
                upsample_cfg = None
        super().__init__(*args, **kwargs)
        self._guides = None
        if upsample_cfg:
            self.upsamplers = self.make_upsamplers(upsample_cfg)
            if not len(self.upsamplers):
                raise ValueError(
                    f'{type(self).__name__}: expected steps from one level '
                    'to the next for upsample_cfg, got none with these '
                    'arguments.'
                )
            self.watch_laterals()

    def watch_laterals(self):
        """Have every lateral leave its output as a guide.

        To be called again where laterals are replaced. Hooks that came and
        went with each ``forward`` would be lost to ``torch.compile``.
        """
        for level, lateral in enumerate(self.laterals):
            lateral.register_forward_hook(
                functools.partial(self._keep_guide, level)
            )

    def _keep_guide(self, level, module, inputs, output):
        if self._guides is not None:
            self._guides[level] = output

    @property
    def laterals(self) -> Sequence[nn.Module]:
        """Modules whose outputs are the guides, high resolution first.

        Where there are none, the guides are the inputs themselves.
        """
        return self.lateral_convs

    @property
    def guide_channels(self) -> list[int]:
        """Channels of the guides, and of the maps that are merged with them.

        High resolution first.
        """
        return [lateral.out_channels for lateral in self.laterals]

    def make_upsamplers(self, upsample_cfg: dict) -> ModuleList:
        """Make the slots: the i-th goes from level i + 1 to level i."""
        return ModuleList(
            UpsampleSlot(upsample_cfg, channels)
            for channels in self.guide_channels
        )

    def upsample_to_guide(
        self,
        call: int,
        x: Tensor,
        guides: list[Tensor],
        interpolate: Callable[[], Tensor],
    ) -> Tensor:
        """Upsample ``x`` in place of one interpolation of the parent.

        Args:
            call (int): Which one it is, counted from 0 in each ``forward``.
            x (Tensor[N, C, H, W]): What the parent would interpolate.
            guides (list[Tensor]): As :attr:`laterals`; None where the parent
                has not come to one.
            interpolate (Callable): Does what the parent would have done.

        Returns:
            Tensor[N, C, Hq, Wq]: At the size that the parent asked for.
        """
        level = len(self.upsamplers) - 1 - (call - self.first_step)
        if not 0 <= level < len(self.upsamplers):
            return interpolate()
        # Nobody else needs it: the memory shall be free again.
        guide, guides[level] = guides[level], None
        return self.upsamplers[level](x, guide)

    def forward(self, inputs: Sequence[Tensor], *args, **kwargs):
        """Run the parent's ``forward`` with the slots in place."""
        if not hasattr(self, 'upsamplers'):
            return super().forward(inputs, *args, **kwargs)

        count = len(self.laterals)
        self._guides = [None] * count if count else list(inputs)
        calls = itertools.count()
        try:
            with _TakeInterpolation(
                lambda x, interpolate: self.upsample_to_guide(
                    next(calls), x, self._guides, interpolate
                )
            ):
                out = super().forward(inputs, *args, **kwargs)
        finally:
            self._guides = None
        made, expected = next(calls), self.first_step + len(self.upsamplers)
        if made < expected:
            raise RuntimeError(
                f'{type(self).__name__}: expected its parent to interpolate '
                f'{expected} times, got {made}; not every slot was used.'
            )
        return out
