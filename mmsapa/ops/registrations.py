"""SAPA as PyTorch operators: schemas, and whatever is not a kernel.

The kernels come from the compiled library ``mmsapa/_C*.so``: CPU always, CUDA
where it was built. A device without one is served by plain PyTorch.
"""

import functools
import warnings
from pathlib import Path

import torch
from torch._functorch.autograd_function import (
    enable_single_level_autograd_function,
)
from torch.autograd import Function
from torch.utils import flop_counter

from .checks import (
    DTYPES,
    autocast_dtype,
    check_eps,
    check_projection,
    check_result,
    check_sapa,
)
from .reference import norm_project_reference, sapa_kernels_reference
from .tiled import sapa_upsample_tiled

# Operator: its tensors, its output channels from their shapes, and what
# serves where there is no kernel.
_OPERATORS = {
    'sapa_upsample': (
        ('query', 'key', 'value'),
        lambda kernel_size, query, key, value: value[1],
        sapa_upsample_tiled,
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
            f'mmsapa: no compiled operators for {device_type}, so plain '
            'PyTorch serves: the same result, many times slower. '
            'Build them with `pip install --no-build-isolation --no-deps .` '
            'in a clone.',
            stacklevel=2,
        )
    return found


def _define(name, tensors, sizes, results=()):
    """Define an operator and its backward.

    Args:
        name (str): The operator's.
        tensors (tuple[str]): Its differentiable inputs.
        sizes (str): The rest of its arguments.
        results (tuple[str]): Its results if there are several. Then backward
            takes them in place of ``sizes``.

    Returns:
        list: The operator and its backward.
    """

    def arguments(names):
        return ', '.join(f'Tensor {name}' for name in names)

    def types(names):
        return f'({", ".join(["Tensor"] * len(names))})'

    _library.define(
        f'{name}({arguments(tensors)}, {sizes}) -> '
        f'{types(results) if results else "Tensor"}'
    )
    _library.define(
        f'{name}_backward(Tensor grad, {arguments(tensors)}, '
        f'{arguments(results) if results else sizes}, '
        f'bool[{len(tensors)}] mask) -> {types(tensors)}'
    )
    return [
        getattr(torch.ops.mmsapa, op).default
        for op in (name, f'{name}_backward')
    ]


def _applied(function, op):
    """Make an autograd.Function something to call inside the dispatcher.

    There torch.func is at one of its levels already, where
    ``Function.apply`` would begin with all of them anew.

    Args:
        function (type): The autograd.Function; its ``keep(ctx, args,
            results)`` keeps what backward needs.
        op (OpOverload): The operator that its forward calls.

    Returns:
        callable: As ``function.apply``.
    """

    class Transformed(function):
        @staticmethod
        def forward(*args):
            # Off for this level, whose gradient this is, not for others.
            with (
                torch.enable_grad(),
                torch._C._AutoDispatchBelowAutograd(),
            ):
                return op(*args)

        # Apart from forward, as torch.func of torch 2.15 wants it; other
        # calls are quicker without.
        setup_context = staticmethod(function.keep)

    def apply(*args):
        if not torch._C._are_functorch_transforms_active():
            return function.apply(*args)
        if not torch.is_grad_enabled():
            with torch._C._AutoDispatchBelowAutograd():
                return op(*args)
        with enable_single_level_autograd_function():
            return super(Function, Transformed).apply(*args)

    return apply


def _differentiate(
    op, op_backward, count, plain, check_backward, saves_results=False
):
    """Give an operator its gradient, and plain PyTorch where no kernel is.

    Args:
        op (OpOverload): The operator.
        op_backward (OpOverload): What computes its gradients.
        count (int): Differentiable inputs, the first arguments.
        plain (callable): The same in plain PyTorch.
        check_backward (callable): Raises what is wrong with backward's
            arguments.
        saves_results (bool): Whether backward takes the results in place of
            the sizes. Only the first of them is differentiable.
    """
    name = op.overloadpacket.__name__

    class Backward(Function):
        @staticmethod
        def forward(ctx, *args):
            with torch._C._AutoDispatchBelowAutograd():
                return op_backward(*args)

        @staticmethod
        def keep(ctx, args, results):
            pass

        @staticmethod
        def backward(ctx, *grads):
            raise RuntimeError(
                f'{name} has no second derivative; differentiate it once, or '
                f'use mmsapa.ops.{name}_reference where two are needed.'
            )

        jvp = backward

    class Forward(Function):
        @staticmethod
        def forward(ctx, *args):
            with torch._C._AutoDispatchBelowAutograd():
                results = op(*args)
            Forward.keep(ctx, args, results)
            return results

        @staticmethod
        def keep(ctx, args, results):
            ctx.sizes = args[count:]
            if saves_results:
                ctx.save_for_backward(*args[:count], *results)
                ctx.mark_non_differentiable(*results[1:])
            else:
                ctx.save_for_backward(*args[:count])

        @staticmethod
        def backward(ctx, grad, *_):
            mask = ctx.needs_input_grad[:count]
            sizes = () if saves_results else ctx.sizes
            grads = op_backward(grad, *ctx.saved_tensors, *sizes, mask)
            grads = [
                g if wanted else None
                for g, wanted in zip(grads, mask, strict=True)
            ]
            return (*grads, *[None] * len(ctx.sizes))

        @staticmethod
        def jvp(ctx, *tangents):
            raise RuntimeError(
                f'{name} has no forward-mode derivative; use reverse mode, '
                f'or mmsapa.ops.{name}_reference.'
            )

    apply = _applied(Forward, op)

    def autograd(*args):
        if has_kernel(args[0].device.type):
            return apply(*args)
        return plain(*args)

    def fallback(*args):  # where autograd is not asked
        has_kernel(args[0].device.type)  # warns
        return plain(*args)

    _library.impl(name, autograd, 'Autograd')
    _library.impl(
        f'{name}_backward', _applied(Backward, op_backward), 'Autograd'
    )
    _library.impl(name, fallback, 'CompositeExplicitAutograd')

    def meta_backward(grad, *args):
        check_backward(grad, *args)
        return tuple(
            tensor.new_empty(tensor.shape if wanted else (0,))
            for tensor, wanted in zip(args[:count], args[-1], strict=True)
        )

    _library.impl(f'{name}_backward', meta_backward, 'Meta')


def _autocast(op, count):
    """Cast an operator's tensors; kernels accumulate in float32 anyway."""

    def autocast(device_type, *args):
        dtype = autocast_dtype(device_type)
        keys = torch._C.DispatchKeySet(
            getattr(torch._C.DispatchKey, f'Autocast{device_type.upper()}')
        )
        cast = [
            tensor.to(dtype)
            if tensor.dtype in DTYPES and tensor.dtype != torch.float64
            else tensor
            for tensor in args[:count]
        ]
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*cast, *args[count:])

    for device_type in ('cpu', 'cuda'):
        _library.impl(
            op.overloadpacket.__name__,
            functools.partial(autocast, device_type),
            f'Autocast{device_type.upper()}',
        )


def _count_flops(op, macs):
    """Tell torch's FLOPs counter of an operator.

    Args:
        op (OpOverload): The operator.
        macs (callable): Its multiply-accumulates, from its arguments, where
            tensors are shapes; each is two FLOPs.
    """

    def formula(*args, out_shape=None):
        return 2 * macs(*args)

    packet = op.overloadpacket
    if not hasattr(flop_counter, 'flop_registry'):  # torch 2.1
        flop_counter.flop_mapping[packet] = formula
        return
    flop_counter.register_flop_formula(packet)(formula)
    # torch 2.4 notes the operator, and looks for its packet.
    registry = flop_counter.flop_registry
    registry.setdefault(packet, registry.get(op))


def _register_sapa(name, tensors, out_channels, plain):
    count = len(tensors)
    op, op_backward = _define(
        name, tensors, 'int kernel_size, int scale_factor'
    )

    def check(who, *args):
        value = args[2] if 'value' in tensors else None
        check_sapa(who, *args[:2], value, *args[count:], strict=True)
        n, _, hq, wq = args[0].shape
        shapes = [tensor.shape for tensor in args[:count]]
        return (n, out_channels(args[count], *shapes), hq, wq)

    def check_backward(grad, *args):
        who = f'{name}_backward'
        check_result(who, 'grad', grad, args[0], check(who, *args[:-1]))

    _differentiate(op, op_backward, count, plain, check_backward)
    _autocast(op, count)

    def meta(*args):
        return args[0].new_empty(check(name, *args))

    _library.impl(name, meta, 'Meta')

    def count_macs(*args):
        channels = args[2][1] if 'value' in tensors else 0
        return multiply_accumulates(args[0], channels, args[count])

    def count_macs_backward(grad, *args):
        # The logits once more, and two products for each made forward.
        logits = multiply_accumulates(args[0], 0, args[count])
        return logits + 2 * count_macs(*args)

    _count_flops(op, count_macs)
    _count_flops(op_backward, count_macs_backward)


def _register_norm_project():
    op, op_backward = _define(
        'norm_project',
        ('x', 'weight', 'bias'),
        'float eps',
        ('out', 'mean', 'rstd'),
    )

    def check(who, x, weight, bias):
        check_projection(who, x, weight, bias)
        n, _, h, w = x.shape
        return (n, weight.shape[0], h, w), (n, 1, h, w)

    def check_backward(grad, x, weight, bias, out, mean, rstd, mask):
        who = 'norm_project_backward'
        size, pixels = check(who, x, weight, bias)
        for role, tensor, like, shape in (
            ('grad', grad, x, size),
            ('out', out, x, size),
            ('mean', mean, weight, pixels),
            ('rstd', rstd, weight, pixels),
        ):
            check_result(who, role, tensor, like, shape)

    _differentiate(
        op,
        op_backward,
        3,
        norm_project_reference,
        check_backward,
        saves_results=True,
    )

    def meta(x, weight, bias, eps):
        size, pixels = check('norm_project', x, weight, bias)
        check_eps('norm_project', eps)
        statistics = [weight.new_empty(pixels) for _ in range(2)]
        return x.new_empty(size), *statistics

    _library.impl('norm_project', meta, 'Meta')

    def count_macs(x, weight, *rest):
        n, c, h, w = x
        return n * h * w * c * weight[0]

    _count_flops(op, count_macs)
    _count_flops(op_backward, lambda grad, *args: 2 * count_macs(*args))


for _name, _rest in _OPERATORS.items():
    _register_sapa(_name, *_rest)
_register_norm_project()
load_kernels()
