"""What an upsampled map meets, and the map that waits for it."""

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# What may be asked of a map without computing it.
_ATTRIBUTES = {'shape', 'ndim', 'dtype', 'device', 'layout'}
_ATTRIBUTES |= {'requires_grad', 'is_cuda'}
_METHODS = {'size', 'dim', '__len__'}
_IN_PLACE = {'add_', '__iadd__'}
_SUMS = {'add', '__add__', '__radd__'} | _IN_PLACE
_CATS = {'cat', 'concat', 'concatenate'}
# PyTorch before 2.3 has none.
_is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)


def name_of(func: Callable) -> str:
    """Give a torch function's name."""
    return getattr(func, '__name__', '') or str(func)


def asks_only(func: Callable) -> bool:
    """Whether a torch function asks for a size or a type, not for values."""
    if name_of(func) == '__get__':
        return name_of(func.__self__) in _ATTRIBUTES
    return name_of(func) in _METHODS


def flat(args: tuple, kwargs: dict) -> Iterator:
    """Go through the arguments of a torch function, and lists among them."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def guide_of(
    func: Callable,
    args: tuple,
    kwargs: dict,
    size: tuple,
    waits: Callable[[object], bool],
    position: int | None = None,
) -> tuple[int, Tensor] | None:
    """Find the guide of an upsampled map in the call that it goes into.

    Args:
        func (Callable): The torch function: an addition, or a concatenation
            of channels, is where maps meet.
        args (tuple): Its arguments.
        kwargs (dict): Its arguments by name.
        size (tuple): (N, Hq, Wq) of the upsampled map.
        waits (Callable): Whether an argument is an upsampled map itself.
        position (int, optional): The only place among maps to concatenate
            to look at.

    Returns:
        tuple[int, Tensor[N, Cg, Hq, Wq]]: The first other map of that size
        and its place among the arguments; None if maps do not meet there.
    """
    name = name_of(func)
    if name in _CATS:
        dims = *args[1:2], kwargs.get('dim'), kwargs.get('axis')
        if not {1, -3}.intersection(dims):
            return None
    elif name in _SUMS:
        position = None  # two addends, which torch.compile may swap
    else:
        return None
    for i, value in enumerate(flat(args, kwargs)):
        if (
            position in (None, i)
            and isinstance(value, Tensor)
            and not waits(value)
            and value.dim() == 4
            and (value.shape[0], *value.shape[2:]) == tuple(size)
        ):
            return i, value
    return None


def padding_of(func: Callable, args: tuple, kwargs: dict) -> dict | None:
    """Read a call that leaves its first argument waiting.

    Args:
        func (Callable): The torch function: ``F.pad``, an index that cuts
            off the last rows or columns, or the 0 that ``sum()`` begins
            with.
        args (tuple): Its arguments; the first one is the upsampled map.
        kwargs (dict): Its arguments by name.

    Returns:
        dict: Arguments of ``F.pad`` that do the same; None for any other
        call.
    """
    name = name_of(func)
    if name == 'pad':
        pad = [*args[1], 0, 0, 0, 0]
        return None if any(pad[4:]) else dict(kwargs, pad=pad[:4])
    if name == '__getitem__':
        pad = _crop_of(args[1], args[0].shape)
        return pad and dict(pad=pad)
    if name in _SUMS and isinstance(args[-1], int) and args[-1] == 0:
        return dict(pad=[0, 0, 0, 0])
    return None


def _crop_of(index, shape):
    """Read x[:, :, :h, :w] or x[..., :h, :w] as the amounts of ``F.pad``."""
    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis in [i for i in index if not isinstance(i, Tensor)]:
        at = index.index(Ellipsis)
        full = (slice(None),) * (5 - len(index))
        index = (*index[:at], *full, *index[at + 1 :])
    index = (*index, *(slice(None),) * (4 - len(index)))
    if len(index) != 4 or not all(isinstance(i, slice) for i in index):
        return None
    cuts = []
    for each, side in zip(index, shape):
        if each.start not in (None, 0) or each.step not in (None, 1):
            return None
        stop = side if each.stop is None else each.stop
        cuts.append(stop if stop < 0 else min(stop - side, 0))
    return None if cuts[0] or cuts[1] else [0, cuts[3], 0, cuts[2]]


class Waiting:
    """An upsampled map that is computed when it meets its guide.

    It stands where the model expects the result of ``F.interpolate``. Its
    sizes and types may be asked for, it may be padded or cropped, and pass
    through modules. The addition or concatenation in which it meets another
    map computes it, with that map as the guide, wherever that comes from and
    whenever it was computed.

    Args:
        name (str): The step's, for error messages.
        x (Tensor[N, C, H, W]): Low-res map.
        size (tuple[int, int]): (Hq, Wq).
        upsample (Callable): Called with ``x`` and the guide.
        position (int): The guide's place among the arguments of the call in
            which they meet.
    """

    def __init__(self, name, x, size, upsample, position):
        self._name = name
        self._x = x
        self._size = tuple(size)
        self._upsample = upsample
        self._position = position
        self._pads = []
        self._value = None
        self._state = _state_of(x)
        self.shape = torch.Size([*x.shape[:2], *size])
        self.ndim = 4
        self.dtype, self.device, self.layout = x.dtype, x.device, x.layout
        self.requires_grad, self.is_cuda = x.requires_grad, x.is_cuda

    def size(self, dim: int | None = None):
        """Give the size as a tensor does."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Give the number of dimensions."""
        return 4

    def __len__(self):
        return self.shape[0]

    def _padded(self, pad, **kwargs):
        if not any(pad):
            return self
        out = Waiting(
            self._name, self._x, self._size, self._upsample, self._position
        )
        out._state = self._state
        out._pads = [*self._pads, dict(kwargs, pad=pad)]
        left, right, top, bottom = pad
        n, c, h, w = self.shape
        out.shape = torch.Size([n, c, h + top + bottom, w + left + right])
        return out

    def computed(self, guide: Tensor | None, into: str) -> Tensor:
        """Compute it.

        Args:
            guide (Tensor[N, Cg, Hq, Wq], optional): As large as it is.
            into (str): Name of the function that it goes into.

        Raises:
            RuntimeError: If there is no guide, or ``x`` has changed since.
        """
        if self._value is not None:
            return self._value
        if guide is None:
            raise RuntimeError(
                f'use_upsampler: expected the map of step {self._name!r} to '
                'meet its guide in an addition or concatenation, as in the '
                f'traced run, got {into}; leave this step out, or trace the '
                'model as it is called.'
            )
        if _state_of(self._x) != self._state:
            raise RuntimeError(
                f'use_upsampler: expected the low-res map of step '
                f'{self._name!r} unchanged, and gradients on or off, until '
                'it meets its guide, got a change in between, by an in-place '
                'operation or by checkpointing a part; leave this step out.'
            )
        for padding in reversed(self._pads):
            guide = F.pad(guide, [-amount for amount in padding['pad']])
        out = self._upsample(self._x, guide)
        for padding in self._pads:
            out = F.pad(out, **padding)
        self._value = out
        return out

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = name_of(func)
        first = args[0] if args else None
        if isinstance(first, cls) and first._value is None:
            padding = padding_of(func, args, kwargs)
            if padding:
                return first._padded(**padding)

        def compute(value):
            if not isinstance(value, cls):
                return value
            n, _, *size = value.shape
            found = guide_of(
                func,
                args,
                kwargs,
                (n, *size),
                lambda other: isinstance(other, cls),
                value._position,
            )
            guide = found and found[1]
            # In place, the sum would overwrite what the layer has to keep.
            if name in _IN_PLACE and guide is not None and guide is first:
                guide = guide.clone()
            return value.computed(guide, name)

        return func(
            *(_each(compute, value) for value in args),
            **{key: _each(compute, value) for key, value in kwargs.items()},
        )

    def __getattr__(self, name):
        if name.startswith('__') or not hasattr(Tensor, name):
            raise AttributeError(name)
        if callable(getattr(Tensor, name)):
            return functools.partial(_method(name), self)
        return getattr(self.computed(None, f'.{name}'), name)

    __hash__ = object.__hash__


def _each(function, value):
    if isinstance(value, (list, tuple)):
        return type(value)(map(function, value))
    return function(value)


def _state_of(x):
    if _is_compiling():  # it cannot look; the eager run did
        return None
    version = None if x.is_inference() else x._version
    return version, torch.is_grad_enabled()


def _method(name):
    """Give a tensor's method, for a map that waits."""
    func = getattr(Tensor, name)

    def method(self, *args, **kwargs):
        return self.__torch_function__(func, (), (self, *args), kwargs)

    return method


for _name in (
    *('__getitem__', '__setitem__', '__neg__', '__pow__', '__matmul__'),
    *('__eq__', '__ne__', '__lt__', '__gt__', '__le__', '__ge__'),
    *('__add__', '__sub__', '__mul__', '__truediv__'),
    *('__radd__', '__rsub__', '__rmul__', '__rtruediv__'),
    *('__iadd__', '__isub__', '__imul__', '__itruediv__'),
):
    setattr(Waiting, _name, _method(_name))


def resolved(out: object) -> object:
    """Replace maps that waited, in a model's output, by their tensors."""
    if isinstance(out, Waiting):
        return out.computed(None, 'the output of the model')
    if isinstance(out, dict):
        for key, value in [*out.items()]:
            new = resolved(value)
            if new is not value:
                out[key] = new
    elif isinstance(out, list):
        out[:] = map(resolved, out)
    elif isinstance(out, tuple):
        values = [*map(resolved, out)]
        if any(a is not b for a, b in zip(values, out)):
            make = getattr(type(out), '_make', tuple)
            return make(values)
    return out
