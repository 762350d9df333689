"""Finds, by one run of a model, where it interpolates a map and why."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .meeting import asks_only, flat, guide_of, name_of, padding_of

MODES = ('nearest', 'bilinear')


@dataclasses.dataclass
class Step:
    """One interpolation of a model.

    Attributes:
        name (str): Path of the module whose ``forward`` interpolates, with
            the interpolation's index behind a colon if it does so more than
            once; the model's own ``forward`` is called ``forward``.
        owner (str): That module's path.
        index (int): Which of the module's interpolations.
        mode (str): As ``F.interpolate`` got it.
        align_corners (bool): Likewise.
        in_channels (int): Channels of the map.
        low (tuple[int, ...]): Its size.
        size (tuple[int, ...]): The size that it gets.
        scale_factor (int): ``size`` over ``low``; 0 if that is no one whole
            number.
        meets (str): ``'add'``, ``'cat'``, or '' if it meets no map.
        guide (str): What it meets: the path of the module that made it, or
            what else is known; '' without.
        guide_channels (int): Its channels.
        position (int): Its place among the arguments of the call in which
            both meet.
        reason (str): Why no layer fits here; '' if one does.
        into (str): Where the map goes if it meets none.
        layer (str): The layer that has replaced it; '' if none has.
    """

    name: str
    owner: str
    index: int
    mode: str
    align_corners: bool
    in_channels: int
    low: tuple
    size: tuple
    scale_factor: int
    meets: str = ''
    guide: str = ''
    guide_channels: int = 0
    position: int = 0
    reason: str = ''
    into: str = 'leaves the model'
    layer: str = ''

    @property
    def replaceable(self) -> bool:
        """Whether a guided layer fits."""
        return not self.reason and bool(self.meets)

    def __post_init__(self):
        if len(self.low) != 2:
            self.reason = f'a map of {len(self.low)} dimensions'
        elif self.low == self.size:
            self.reason = 'size stays'
        elif self.mode not in MODES:
            self.reason = f'mode {self.mode!r}'
        elif self.low == (1, 1):
            self.reason = 'a single pixel'
        elif self.scale_factor < 2:
            self.reason = 'no whole scale'


class Steps(list):
    """The steps of a model, in the order of its run; prints as a table.

    Attributes:
        calls (dict[str, int]): How often each module ran, by its path.
    """

    def __init__(self, steps=(), calls=None):
        super().__init__(steps)
        self.calls = calls or {}

    def __str__(self):
        rows = [('step', 'interpolates', 'x', 'channels', 'meets', 'layer')]
        for step in self:
            meets = f'{step.meets} {step.guide} ({step.guide_channels})'
            why = step.reason or (not step.meets and step.into)
            corners = ', align_corners' if step.align_corners else ''
            rows.append(
                (
                    step.name,
                    f'{step.mode}{corners}',
                    f'{_sides(step.low)} to {_sides(step.size)}',
                    str(step.in_channels),
                    meets if step.meets else '-',
                    step.layer or (f'no: {why}' if why else '-'),
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows)]
        return '\n'.join(
            '  '.join(map(str.ljust, row, widths)).rstrip() for row in rows
        )


def _sides(size):
    return 'x'.join(map(str, size))


def find_steps(model: nn.Module, example_input) -> Steps:
    """Find where a model interpolates maps, and what they meet then.

    The model runs once, in eval mode and without gradients. What runs as
    TorchScript is not seen.

    Args:
        model (nn.Module): Any model.
        example_input (Tensor | tuple | Mapping): Its input; a tuple has its
            arguments, a mapping its arguments by name. Sides that are
            multiples of the model's stride make whole scales.

    Returns:
        Steps: One :class:`Step` for each interpolation; ``print`` shows a
        table.

    Raises:
        TypeError: If the model is no module, or compiled or scripted.
    """
    check_model(model)
    trace = _Trace()
    with contextlib.ExitStack() as watched:
        for path, module in model.named_modules():
            # TorchScript runs nothing that comes later.
            if not isinstance(module, torch.jit.ScriptModule):
                watched.enter_context(trace.watch(path, module))
        with trace:
            run(model, example_input)
    return trace.result()


def check_model(model: nn.Module):
    """Raise TypeError unless a model runs as Python."""
    if not isinstance(model, nn.Module) or any(
        hasattr(module, '_orig_mod')
        or getattr(module, '_compiled_call_impl', None)
        for module in model.modules()
    ):
        raise TypeError(
            'find_steps: expected an nn.Module, of which nothing is compiled '
            f'yet, got {type(model).__name__}; give it before torch.compile.'
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            'find_steps: expected a model in Python, got TorchScript, whose '
            'calls cannot be replaced; give the module that it was made of.'
        )


def run(model: nn.Module, example_input):
    """Run a model once, in eval mode and without gradients."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            # Such as what Hugging Face's processors make, which is no dict.
            if isinstance(example_input, Mapping):
                return model(**example_input)
            if not isinstance(example_input, tuple):
                example_input = (example_input,)
            return model(*example_input)
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Trace(TorchFunctionMode):
    """Sees every torch function of a run, and the modules it is in."""

    def __init__(self):
        super().__init__()
        self.running = []  # paths of the modules that run, outermost first
        self.calls = {}  # of each module
        self.steps = []
        self.waiting = {}  # steps by the id of the map that they made
        self.made_by = {}  # paths of modules by the id of their output
        self.kept = []  # so that no id is used again

    @contextlib.contextmanager
    def watch(self, path, module):
        """Note when a module runs, also by its forward alone, as in mmseg."""
        own, run = vars(module).get('forward'), module.forward

        @functools.wraps(run)
        def forward(*args, **kwargs):
            self.running.append(path)
            self.calls[path] = self.calls.get(path, 0) + 1
            try:
                output = run(*args, **kwargs)
            finally:
                self.running.pop()
            if isinstance(output, Tensor):
                self.kept.append(output)
                # The outermost module that gives it out comes last.
                self.made_by[id(output)] = path or 'the model'
            return output

        module.forward = forward
        try:
            yield
        finally:
            del module.forward
            if own is not None:
                module.forward = own

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        met = []
        if not asks_only(func):
            met = [v for v in flat(args, kwargs) if id(v) in self.waiting]
        if (
            met
            and args
            and met[0] is args[0]
            and padding_of(func, args, kwargs)
        ):
            out = func(*args, **kwargs)
            self._wait(self.waiting[id(met[0])], out)
            return out
        for value in met:
            self._meet(value, func, args, kwargs)
        for value in met:
            self.waiting.pop(id(value), None)
        out = func(*args, **kwargs)
        if func is F.interpolate:
            self._found(out, *args, **kwargs)
        return out

    def _wait(self, step, out):
        self.kept.append(out)
        self.waiting[id(out)] = step

    def _meet(self, value, func, args, kwargs):
        step = self.waiting.get(id(value))
        if step is None or step.meets:
            return
        n, _, *size = value.shape
        found = guide_of(
            func, args, kwargs, (n, *size), lambda v: id(v) in self.waiting
        )
        if found is None:
            step.into = f'goes into {name_of(func).strip("_")}'
            return
        step.position, guide = found
        step.meets = 'cat' if name_of(func).startswith('c') else 'add'
        step.guide = self.made_by.get(id(guide), 'a map')
        step.guide_channels = guide.shape[1]

    def _found(
        self,
        out,
        input,
        size=None,
        scale_factor=None,
        mode='nearest',
        align_corners=None,
        *args,
        **kwargs,
    ):
        owner = self.running[-1] if self.running else ''
        low, high = tuple(input.shape[2:]), tuple(out.shape[2:])
        step = Step(
            name=owner or 'forward',
            owner=owner,
            index=sum(s.owner == owner for s in self.steps),
            mode=mode,
            align_corners=bool(align_corners),
            in_channels=input.shape[1],
            low=low,
            size=high,
            scale_factor=whole_scale(low, high),
        )
        self.steps.append(step)
        if not step.reason:
            self._wait(step, out)
        else:
            # An interpolation to the same size may return its input.
            self.kept.append(out)

    def result(self):
        owners = [step.owner for step in self.steps]
        for step in self.steps:
            if owners.count(step.owner) > 1:
                step.name = f'{step.name}:{step.index}'
        return Steps(self.steps, self.calls)


def whole_scale(low: tuple, high: tuple) -> int:
    """Give the one whole number between two sizes, 0 if there is none.

    A level that was halved by rounding counts as half.
    """
    for s in (high[0] // low[0], 2):
        if all(
            s * a == b or (s == 2 and abs(2 * a - b) < 2)
            for a, b in zip(low, high)
        ):
            return s
    return 0
