"""The slot: one call for every upsample layer, guided or not."""

import inspect
import itertools
from collections.abc import Callable

import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_upsample_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor
from torch.overrides import TorchFunctionMode


class UpsampleSlot(BaseModule):
    """Upsamples a map to the size of its guide by any registered layer.

    The registry's layers name their arguments each in its own way; a slot
    fills in channels and scale, so that ``dict(type='sapa')`` and
    ``dict(type='deconv')`` can stand for one another. What the config says
    goes before what the slot would fill in.

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
        self.layer = build_upsample_layer({**given, **upsample_cfg})
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


class _TakeInterpolation(TorchFunctionMode):
    """Within it, ``F.interpolate`` is whatever it was given."""

    def __init__(self, upsample: Callable[[Tensor], Tensor]):
        super().__init__()
        self.upsample = upsample

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.interpolate:
            return self.upsample(args[0] if args else kwargs['input'])
        return func(*args, **kwargs)


class SlotMixin:
    """Puts slots where a model of OpenMMLab interpolates.

    Those models interpolate a map to the size of another that it is about to
    be merged with. The mixin runs their own ``forward``, hands each
    interpolation in it to :meth:`upsample`, and with it the outputs of
    :attr:`laterals`, the modules that make the guides. So nothing of theirs
    is written again, and with their own interpolation in the slot they
    compute what they always did.
    """

    @property
    def laterals(self) -> list[nn.Module]:
        """Modules whose outputs are the guides."""
        raise NotImplementedError

    def upsample(self, call: int, x: Tensor, guides: list[Tensor]) -> Tensor:
        """Upsample ``x`` in place of one interpolation of the parent.

        Args:
            call (int): Which one it is, counted from 0 in each ``forward``.
            x (Tensor[N, C, H, W]): What the parent would interpolate.
            guides (list[Tensor]): Outputs of :attr:`laterals` so far.

        Returns:
            Tensor[N, C, Hq, Wq]: At the size of the guide.
        """
        raise NotImplementedError

    def forward(self, *args, **kwargs):
        """Run the parent's ``forward`` with the slots in place."""
        guides = []
        calls = itertools.count()
        hooks = [
            lateral.register_forward_hook(
                lambda module, inputs, output: guides.append(output)
            )
            for lateral in self.laterals
        ]
        try:
            with _TakeInterpolation(
                lambda x: self.upsample(next(calls), x, guides)
            ):
                return super().forward(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
