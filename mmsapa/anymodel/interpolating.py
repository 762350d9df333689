"""The modules that interpolate, when they run: layers take over."""

import copyreg
import dataclasses
import functools
import threading

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ..upsamplers.fit import upsample_to
from .meeting import Waiting, resolved


@dataclasses.dataclass(eq=False)
class Plan:
    """What a module does in place of its interpolations.

    Attributes:
        name (str): Path of the module, for error messages.
        count (int): Interpolations in the traced run.
        repeated (bool): Whether the module runs more than once in a run of
            the model, so that it counts on over its calls.
        steps (dict): Step and name of its layer by the index of the
            interpolation.
        layers (nn.ModuleDict): The layers by name.
        guided (bool): Whether they are called with a guide.
        prefix (str): Attribute with the layers, of the model itself.
    """

    name: str = ''
    count: int = 0
    repeated: bool = False
    steps: dict = dataclasses.field(default_factory=dict)
    layers: nn.ModuleDict | None = None
    guided: bool = False
    prefix: str = ''

    def check(self, count: int):
        """Raise RuntimeError if the module interpolated more or less."""
        if count != self.count:
            raise RuntimeError(
                f'use_upsampler: expected {self.name!r} to interpolate '
                f'{self.count} times, as in the traced run, got {count}, so '
                'that no step can be told from another; leave its steps out, '
                'or trace the model as it is called.'
            )


def plan_of(module: nn.Module) -> Plan:
    """Give the plan of a module; it becomes one that has a plan."""
    if not isinstance(module, Interpolating):
        module.__class__ = _interpolating(type(module))
        module._upsampling = Plan()
    return module._upsampling


def without_plan(module: nn.Module):
    """Make a module what it was before :func:`plan_of`."""
    if Interpolating not in type(module).__bases__:
        raise TypeError(
            'remove_upsampler: expected the classes that use_upsampler made, '
            f'got {type(module).__name__}, derived since; first undo what '
            'changed it, such as a parametrization.'
        )
    if module._upsampling is not None:
        if module._upsampling.prefix:
            delattr(module, module._upsampling.prefix)
        del module._upsampling
    module.__class__ = type(module)._base


class Interpolating:
    """A module whose interpolations go to layers."""

    _upsampling = None  # of a new instance of its class, which has no layers

    def __reduce_ex__(self, protocol):
        # Classes made here have no name by which pickle finds them.
        new, (_, *args), *state = super().__reduce_ex__(max(protocol, 2))
        if new is not copyreg.__newobj__:
            raise TypeError(
                'use_upsampler: expected a module that is copied and pickled '
                f'as others are, got {self._base.__name__}, which has its '
                'own way; take the state dict.'
            )
        return _new, (self._base, *args), *state

    def _replicate_for_data_parallel(self):
        raise RuntimeError(
            'use_upsampler: expected one device for each process, got '
            'nn.DataParallel, whose copies would share the layers of the '
            'first device; take DistributedDataParallel.'
        )


@functools.cache
def _interpolating(base):
    """Derive the class of a module that interpolates."""

    # With the signature that trainers look at.
    @functools.wraps(base.forward)
    def forward(self, *args, **kwargs):
        plan = self._upsampling
        if plan is None:
            return base.forward(self, *args, **kwargs)
        outer = _running.owner, _running.counts
        _running.owner = self
        if plan.prefix:
            _running.counts = {}
        try:
            if not plan.steps:
                out = base.forward(self, *args, **kwargs)
            else:
                counts = _running.counts if plan.repeated else {}
                with _Interpolations(self, counts):
                    out = base.forward(self, *args, **kwargs)
                if not plan.repeated:
                    plan.check(counts.get(plan, 0))
            if plan.prefix:
                for repeated, count in _running.counts.items():
                    repeated.check(count)
                out = resolved(out)
            return out
        finally:
            _running.owner, _running.counts = outer

    names = dict(
        forward=forward,
        _base=base,
        __module__=base.__module__,
        __qualname__=base.__qualname__,
        __doc__=base.__doc__,
    )
    return type(base.__name__, (Interpolating, base), names)


def _new(base, *args):
    return copyreg.__newobj__(_interpolating(base), *args)


class _Running(threading.local):
    owner = None  # the innermost module that runs and has a plan
    counts = None  # of the run of the model: interpolations by plan


_running = _Running()


class _Interpolations(TorchFunctionMode):
    """Sends the interpolations of one call of a module to its layers."""

    def __init__(self, owner, counts):
        super().__init__()
        self.owner = owner
        self.counts = counts
        self.learns = torch.is_grad_enabled()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not F.interpolate or _running.owner is not self.owner:
            return func(*args, **kwargs)
        plan = self.owner._upsampling
        if self.counts is None:
            raise RuntimeError(
                f'use_upsampler: expected {plan.name!r} to run within the '
                'model, in which it runs several times, got a call from '
                'outside; call the model.'
            )
        index = self.counts.get(plan, 0)
        self.counts[plan] = index + 1
        step, key = plan.steps.get(index, (None, None))
        if step is None:
            return func(*args, **kwargs)
        x, size = _checked(step, *args, **kwargs)
        if self.learns and not torch.is_grad_enabled():
            raise RuntimeError(
                f'use_upsampler: expected step {step.name!r} to have '
                f'gradients as {plan.name!r} has, got none, by no_grad or a '
                'reentrant checkpoint of a part of it; checkpoint the whole '
                'module, or leave this step out.'
            )
        # The layer may have been wrapped or exchanged since.
        layer = plan.layers[key]

        def upsample(x, guide):
            # Layers interpolate, too.
            outer, _running.owner = _running.owner, None
            try:
                return upsample_to(layer, x, size, step.scale_factor, guide)
            finally:
                _running.owner = outer

        if not plan.guided:
            return upsample(x, None)
        return Waiting(step.name, x, size, upsample, step.position)


def _checked(
    step,
    input,
    size=None,
    scale_factor=None,
    mode='nearest',
    align_corners=None,
    *args,
    **kwargs,
):
    """Give the map and the size that it is to get, if they are the step's."""
    low, s = tuple(input.shape[2:]), step.scale_factor
    if size is None:
        each = scale_factor
        if not isinstance(each, (tuple, list)):
            each = [each] * len(low)
        # In whole numbers, where sizes are symbols.
        size = [
            side * s if scale == s else int(side * scale)
            for side, scale in zip(low, each)
        ]
    elif isinstance(size, int):
        size = [size] * len(low)
    fits = input.dim() == 4 and input.shape[1] == step.in_channels
    fits = fits and (mode, bool(align_corners)) == (
        step.mode,
        step.align_corners,
    )
    fits = fits and all(
        (a - 1) * s < b < (a + 1) * s for a, b in zip(low, size)
    )
    if not fits:
        raise RuntimeError(
            f'use_upsampler: expected step {step.name!r} to upsample '
            f'{step.in_channels} channels by {s}, {step.mode}, as in the '
            f'traced run, got {list(input.shape)} to {list(size)}, {mode}; '
            'leave this step out, or trace the model as it is called.'
        )
    return input, tuple(size)
