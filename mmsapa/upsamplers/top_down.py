"""The mixin that puts slots where a library's head or neck interpolates."""

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from types import FunctionType, NoneType

import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import ModuleList
from torch import Tensor
from torch.fx import Proxy

from .slot import UpsampleSlot


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
    What a call needs belongs to that call, so one module may serve several
    threads, and replicas, copies and pickles work by themselves.

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

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        parent = super()
        if hasattr(parent, 'forward'):
            cls._parent_forward = through_slots(parent.forward)

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
        if upsample_cfg:
            self.upsamplers = self.make_upsamplers(upsample_cfg)
            if not len(self.upsamplers):
                raise ValueError(
                    f'{type(self).__name__}: expected steps from one level '
                    'to the next for upsample_cfg, got none with these '
                    'arguments.'
                )
            self.watch_laterals()

    def watch_laterals(self) -> list[nn.Module]:
        """Have every lateral leave its output as a guide.

        By hooks that stay: those that came and went with each ``forward``
        would be lost to ``torch.compile``.

        Returns:
            list[nn.Module]: The watched modules.
        """
        # torch.compile puts a module of its own around another.
        found = [getattr(m, '_orig_mod', m) for m in self.laterals]
        for lateral in found:
            if _keep_guide not in lateral._forward_hooks.values():
                lateral.register_forward_hook(_keep_guide)
        return found

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

    @property
    def interpolations(self) -> int:
        """All interpolations that the parent makes in a ``forward``."""
        return self.first_step + len(self.upsamplers)

    def make_upsamplers(self, upsample_cfg: dict) -> ModuleList:
        """Make the slots: the i-th goes from level i + 1 to level i."""
        return ModuleList(
            UpsampleSlot(upsample_cfg, channels)
            for channels in self.guide_channels
        )

    def upsample_to_guide(
        self,
        index: int,
        x: Tensor,
        guides: list[Tensor],
        interpolate: Callable[[], Tensor],
    ) -> Tensor:
        """Upsample ``x`` in place of one interpolation of the parent.

        Args:
            index (int): Which one it is, counted from 0 in each ``forward``.
            x (Tensor[N, C, H, W]): What the parent would interpolate.
            guides (list[Tensor]): As :attr:`laterals`; None where the parent
                has not come to one.
            interpolate (Callable): Does what the parent would have done.

        Returns:
            Tensor[N, C, Hq, Wq]: At the size that the parent asked for.
        """
        level = len(self.upsamplers) - 1 - (index - self.first_step)
        if not 0 <= level < len(self.upsamplers):
            return interpolate()
        # Nobody else needs it: the memory shall be free again.
        guide, guides[level] = guides[level], None
        return self.upsamplers[level](x, guide)

    def forward(self, inputs: Sequence[Tensor], *args, **kwargs):
        """Run the parent's ``forward`` with the slots in place."""
        if not hasattr(self, 'upsamplers'):
            return super().forward(inputs, *args, **kwargs)
        if isinstance(inputs, Proxy):
            raise TypeError(
                f'{type(self).__name__}: expected tensors, got proxies of '
                'torch.fx.symbolic_trace, which cannot follow a slot; take '
                'torch.export or torch.compile, or make this module a leaf '
                'of the tracer.'
            )
        outer, call = _current_call(), _Call(self, inputs)
        _calls.current = call
        try:
            out = self._parent_forward(inputs, *args, **kwargs)
        finally:
            _calls.current = outer
        if call.count != self.interpolations:
            raise RuntimeError(
                f'{type(self).__name__}: expected its parent to interpolate '
                f'{self.interpolations} times, got {call.count}; where this '
                'parent is different, override first_step, interpolations or '
                'upsample_to_guide(), or give methods that forward() calls '
                'to through_slots().'
            )
        return out


class _Call:
    """What one call of a module with slots needs."""

    def __init__(self, module, inputs):
        self.module = module
        # One may have been replaced since the last call.
        self.laterals = module.watch_laterals()
        self.guides = [None] * len(self.laterals) or list(inputs)
        self.count = 0


# Of each thread, with its innermost call as `current`. torch.compile of older
# PyTorch sees what this type holds, but not what a subclass of it does.
_calls = threading.local()


def _current_call():
    return getattr(_calls, 'current', None)


def _keep_guide(module, inputs, output):
    """Keep the output of a lateral, as a forward hook."""
    call = _current_call()
    if call is not None:
        for level, lateral in enumerate(call.laterals):
            if lateral is module:
                call.guides[level] = output


def _interpolate(input, size=None, *args, **kwargs):
    """Take the place of ``F.interpolate`` in a parent's method."""
    call = _current_call()
    if call is None:
        raise RuntimeError(
            'A module with slots: expected its parent to interpolate within '
            'a call of forward, got an interpolation outside of it, as when '
            'torch.utils.checkpoint runs a part of forward again; checkpoint '
            'the whole module.'
        )
    index, call.count = call.count, call.count + 1
    out = call.module.upsample_to_guide(
        index,
        input,
        call.guides,
        lambda: F.interpolate(input, size, *args, **kwargs),
    )
    asked = (size, size) if isinstance(size, int) else size
    if asked is not None and tuple(out.shape[2:]) != tuple(asked):
        raise RuntimeError(
            f'{type(call.module).__name__}: expected interpolation {index} of '
            f'its parent to go to the size of its guide, got '
            f'{list(out.shape[2:])} for {list(asked)}; override first_step or '
            'upsample_to_guide() where this parent is different.'
        )
    return out


class _Functional:
    """``torch.nn.functional`` with another ``interpolate``."""

    interpolate = staticmethod(_interpolate)

    def __getattr__(self, name):
        return getattr(F, name)


_functional = _Functional()


def through_slots(method: Callable) -> Callable:
    """Copy a library's method so that its interpolations go to the slots.

    The body and all else that it knows stay the library's own; only the
    names by which it comes to ``F.interpolate`` lead elsewhere, its own and
    those of functions such as MMSegmentation's ``resize``. So every other
    call costs what it always did.

    The mixin does this to ``forward`` itself. A method that ``forward``
    leaves interpolations to is overridden by its copy.

    Args:
        method (Callable): Of a parent of the mixin's subclass; what is no
            function in Python stays as it is.

    Returns:
        Callable: Its copy, for modules with slots; others run ``method``.
    """
    if not isinstance(method, FunctionType):
        return method
    helpers = {
        name: _rebound(value, {})
        for name, value in method.__globals__.items()
        if isinstance(value, FunctionType)
        and 'interpolate' in value.__code__.co_names
    }
    slotted = _rebound(method, helpers)

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        own = slotted if hasattr(self, 'upsamplers') else method
        return own(self, *args, **kwargs)

    return run


def _rebound(function, names):
    """Copy a function; ``names`` and ``F.interpolate`` are others in it."""
    known = {**function.__globals__, **names}
    # torch.compile would look the names up in the module of this name.
    known.pop('__name__', None)
    for name, value in known.items():
        if value is F:
            known[name] = _functional
        elif value is F.interpolate:
            known[name] = _interpolate
    copy = FunctionType(
        function.__code__,
        known,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(copy, function)
