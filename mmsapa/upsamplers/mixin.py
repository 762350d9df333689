"""The mixin that adapts heads and necks of OpenMMLab to slots.

Our own models have slots in plain sight and do not need it.
"""

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

from ..ops.checks import is_exporting
from .slot import UpsampleSlot


class SlotMixin:
    """Replaces the interpolations of an OpenMMLab head or neck by slots.

    Such a module goes down a pyramid: each step interpolates a map to the
    size of a finer one, its guide, and merges both. The mixin precedes the
    class in the bases, runs its ``forward``, and calls the slots of
    :attr:`upsamplers` in place of the interpolations. The parent's code is
    not copied and its checkpoints load unchanged; with the parent's own
    interpolation in the slots the results are the same bit for bit.

    The defaults suit parents whose guides are the outputs of
    ``lateral_convs``; a subclass overrides what differs. The state of a call
    lives outside the module, so threads may share one, and replicas, copies
    and pickles work.

    Args:
        *args: Passed to the parent.
        upsample_cfg (dict, optional): The upsample layer, with a ``type``
            from the registry, for example ``dict(type='sapa')``. If None, or
            if the parent itself takes this argument and there is no
            ``type``, the parent interpolates as usual. Default: None.
        **kwargs: Passed to the parent.

    Raises:
        TypeError: If ``upsample_cfg`` is not a dict.
        ValueError: If the parent has no step with these arguments.
    """

    first_step = 0
    """Number of interpolations before the first step down."""

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
        """Register a hook on each lateral that keeps its output as a guide.

        The hooks stay: ``torch.compile`` would miss hooks that are added and
        removed in each ``forward``.

        Returns:
            list[nn.Module]: The modules with the hook.
        """
        # torch.compile wraps a module into one of its own.
        found = [getattr(m, '_orig_mod', m) for m in self.laterals]
        for lateral in found:
            if _keep_guide not in lateral._forward_hooks.values():
                lateral.register_forward_hook(_keep_guide)
        return found

    @property
    def laterals(self) -> Sequence[nn.Module]:
        """Modules whose outputs are the guides, high resolution first.

        If there are none, the guides are the inputs themselves.
        """
        return self.lateral_convs

    @property
    def guide_channels(self) -> list[int]:
        """Channels of the guides and of the maps merged with them.

        High resolution first.
        """
        return [lateral.out_channels for lateral in self.laterals]

    @property
    def interpolations(self) -> int:
        """Number of interpolations in a ``forward`` of the parent."""
        return self.first_step + len(self.upsamplers)

    def make_upsamplers(self, upsample_cfg: dict) -> ModuleList:
        """Make the slots; the i-th upsamples level i + 1 to level i."""
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
            index (int): Index of the interpolation in this ``forward``.
            x (Tensor[N, C, H, W]): Map that the parent would interpolate.
            guides (list[Tensor]): In the order of :attr:`laterals`; None for
                a lateral that has not run yet.
            interpolate (Callable): The parent's own interpolation of ``x``.

        Returns:
            Tensor[N, C, Hq, Wq]: ``x`` at the size that the parent asked
            for.
        """
        level = len(self.upsamplers) - 1 - (index - self.first_step)
        if not 0 <= level < len(self.upsamplers):
            return interpolate()
        # Nothing else needs the guide: free its memory.
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
    """The state of one call of a module with slots."""

    def __init__(self, module, inputs):
        self.module = module
        # A lateral may have been replaced since the last call.
        self.laterals = module.watch_laterals()
        self.guides = [None] * len(self.laterals) or list(inputs)
        self.count = 0


# Per thread, with its innermost call as `current`. torch.compile of older
# PyTorch follows attributes of this type, but not of a subclass.
_calls = threading.local()


def _current_call():
    return getattr(_calls, 'current', None)


def _keep_guide(module, inputs, output):
    """Keep the output of a lateral as a guide; a forward hook."""
    call = _current_call()
    if call is not None:
        for level, lateral in enumerate(call.laterals):
            # torch.export may wrap a module: another object, the same dict.
            if lateral is module or (
                is_exporting() and vars(lateral) is vars(module)
            ):
                call.guides[level] = output


def _interpolate(input, size=None, *args, **kwargs):
    """Stand in for ``F.interpolate`` in a parent's method."""
    call = _current_call()
    if call is None:
        raise RuntimeError(
            'A module with slots: expected its parent to interpolate within '
            'a call of forward, got an interpolation outside of one, as when '
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
    """``torch.nn.functional`` with our ``interpolate``."""

    interpolate = staticmethod(_interpolate)

    def __getattr__(self, name):
        return getattr(F, name)


_functional = _Functional()


def through_slots(method: Callable) -> Callable:
    """Copy a library's method so that its interpolations go to the slots.

    The copy has the same code. Only the global names that lead to
    ``F.interpolate`` are bound to the slots instead, its own and those of
    functions that it calls, such as MMSegmentation's ``resize``. The library
    is not patched, and no other call changes.

    The mixin does this for ``forward``. For a method that ``forward`` calls
    to interpolate, a subclass does it in its body::

        _forward_feature = through_slots(Parent._forward_feature)

    Args:
        method (Callable): Method of a parent; returned as it is if it is not
            a Python function.

    Returns:
        Callable: Runs the copy for modules with slots, else ``method``.
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
    """Copy a function with ``names`` and ``F.interpolate`` bound anew."""
    known = {**function.__globals__, **names}
    # torch.compile would look up the names in the module of this name.
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
