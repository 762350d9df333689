"""SAPA as PyTorch operators: schemas, and whatever is not a kernel.

The kernels come from the compiled library ``mmsapa/_C*.so``: CPU always, CUDA
where it was built. A device without one is served by the reference.
"""

import functools
import warnings
from pathlib import Path

import torch
from torch.autograd import Function
from torch.utils import flop_counter

from .reference import sapa_kernels_reference, sapa_upsample_reference

# Operator: its tensors, its output channels from their shapes, its reference.
_OPERATORS = {
    'sapa_upsample': (
        ('query', 'key', 'value'),
        lambda kernel_size, query, key, value: value[1],
        sapa_upsample_reference,
    ),
    'sapa_kernels': (
        ('query', 'key'),
        lambda kernel_size, query, key: kernel_size**2,
        sapa_kernels_reference,
    ),
}

# Keeps the registrations alive.
_library = torch.library.Library('mmsapa', 'DEF')


def multiply_accumulates(
    query_shape: tuple, channels: int, kernel_size: int
) -> int:
    """Multiply-accumulates of one call, as the papers count them.

    Args:
        query_shape (tuple): (N, E, Hq, Wq).
        channels (int): C of ``value``; 0 for the weights alone.
        kernel_size (int): K.

    Returns:
        int: N * Hq * Wq * K * K * (E + C); the softmax is not counted.
    """
    n, e, hq, wq = query_shape
    return n * hq * wq * kernel_size**2 * (e + channels)


def autocast_dtype(device_type: str):
    """Autocast's dtype for the device, or None where it is off."""
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4
        if torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
    elif device_type == 'cuda' and torch.is_autocast_enabled():
        return torch.get_autocast_gpu_dtype()
    elif device_type == 'cpu' and torch.is_autocast_cpu_enabled():
        return torch.get_autocast_cpu_dtype()
    return None


def load_kernels() -> bool:
    """Load the compiled kernels.

    Returns:
        bool: Whether there are any; a warning says why if they cannot load.
    """
    for path in Path(__file__).parents[1].glob('_C*.so'):
        try:
            torch.ops.load_library(str(path))
            return True
        except OSError as error:
            warnings.warn(
                f'mmsapa: {path.name} was built for another torch than '
                f'{torch.__version__}; build mmsapa again. ({error})',
                stacklevel=2,
            )
    return False


@functools.lru_cache(None)
def has_kernel(device_type: str) -> bool:
    """Whether the device has compiled kernels; warns once if it has none.

    Args:
        device_type (str): As in ``torch.device.type``.
    """
    # The backward pass, because the reference has none registered.
    key = 'Meta' if device_type == 'meta' else device_type.upper()
    found = torch._C._dispatch_has_kernel_for_dispatch_key(
        'mmsapa::sapa_upsample_backward', key
    )
    if not found:
        warnings.warn(
            f'mmsapa: no compiled operators for {device_type}, so the '
            'PyTorch reference serves: the same result, many times slower. '
            'Build them with `pip install --no-build-isolation --no-deps .` '
            'in a clone.',
            stacklevel=2,
        )
    return found


def _register(name, tensors, out_channels, reference):
    count = len(tensors)
    arguments = ', '.join(f'Tensor {tensor}' for tensor in tensors)
    sizes = 'int kernel_size, int scale_factor'
    grads = ', '.join(['Tensor'] * count)
    _library.define(f'{name}({arguments}, {sizes}) -> Tensor')
    _library.define(
        f'{name}_backward(Tensor grad, {arguments}, {sizes}, '
        f'bool[{count}] mask) -> ({grads})'
    )
    op = getattr(torch.ops.mmsapa, name)
    op_backward = getattr(torch.ops.mmsapa, f'{name}_backward')

    # ---- autograd

    class Backward(Function):
        @staticmethod
        def forward(ctx, *args):
            with torch._C._AutoDispatchBelowAutograd():
                return op_backward(*args)

        @staticmethod
        def backward(ctx, *grads):
            raise RuntimeError(
                f'{name} has no second derivative; differentiate it once, or '
                f'use mmsapa.ops.{name}_reference where two are needed.'
            )

    class Forward(Function):
        @staticmethod
        def forward(ctx, *args):
            ctx.save_for_backward(*args[:count])
            ctx.sizes = args[count:]
            with torch._C._AutoDispatchBelowAutograd():
                return op(*args)

        @staticmethod
        def backward(ctx, grad):
            mask = ctx.needs_input_grad[:count]
            grads = op_backward(grad, *ctx.saved_tensors, *ctx.sizes, mask)
            grads = [
                g if wanted else None
                for g, wanted in zip(grads, mask, strict=True)
            ]
            return (*grads, None, None)

    def autograd(*args):
        if has_kernel(args[0].device.type):
            return Forward.apply(*args)
        return reference(*args)

    _library.impl(name, autograd, 'Autograd')
    _library.impl(
        f'{name}_backward', lambda *args: Backward.apply(*args), 'Autograd'
    )

    # ---- a device without a kernel, where autograd is not asked

    def fallback(*args):
        has_kernel(args[0].device.type)  # warns
        return reference(*args)

    _library.impl(name, fallback, 'CompositeExplicitAutograd')

    # ---- shapes alone

    def meta(*args):
        query = args[0]
        n, _, hq, wq = query.shape
        shapes = [tensor.shape for tensor in args[:count]]
        c = out_channels(args[count], *shapes)
        return query.new_empty((n, c, hq, wq))

    def meta_backward(grad, *args):
        return tuple(
            tensor.new_empty(tensor.shape if wanted else (0,))
            for tensor, wanted in zip(args[:count], args[-1], strict=True)
        )

    _library.impl(name, meta, 'Meta')
    _library.impl(f'{name}_backward', meta_backward, 'Meta')

    # ---- autocast: the kernels accumulate in float32 whatever they read

    def autocast(device_type, *args):
        dtype = autocast_dtype(device_type)
        keys = torch._C.DispatchKeySet(
            getattr(torch._C.DispatchKey, f'Autocast{device_type.upper()}')
        )
        cast = [
            tensor if tensor.dtype == torch.float64 else tensor.to(dtype)
            for tensor in args[:count]
        ]
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*cast, *args[count:])

    for device_type in ('cpu', 'cuda'):
        _library.impl(
            name,
            functools.partial(autocast, device_type),
            f'Autocast{device_type.upper()}',
        )

    # ---- torch's FLOPs counter, for which a multiply-accumulate is two

    def count_macs(shapes, kernel_size):
        channels = shapes[2][1] if 'value' in tensors else 0
        logits = multiply_accumulates(shapes[0], 0, kernel_size)
        return logits, multiply_accumulates(shapes[0], channels, kernel_size)

    def flops(*args, out_shape=None):
        _, forward = count_macs(args[:count], args[count])
        return 2 * forward

    def flops_backward(grad, *args, out_shape=None):
        # The logits once more, and two products for each made forward.
        logits, forward = count_macs(args[:count], args[count])
        return 2 * (logits + 2 * forward)

    if hasattr(flop_counter, 'register_flop_formula'):  # torch 2.2
        flop_counter.register_flop_formula(op)(flops)
        flop_counter.register_flop_formula(op_backward)(flops_backward)


for _name, _rest in _OPERATORS.items():
    _register(_name, *_rest)
load_kernels()
