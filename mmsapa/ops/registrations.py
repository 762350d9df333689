"""The PyTorch operators: schemas, and whatever is not a kernel.

The kernels come from the compiled library ``mmsapa/_C*.so``, whose bindings
are csrc/cpu/operators.cpp and csrc/cuda/operators.cpp: CPU always, CUDA where
it was built. A device without one is served by plain PyTorch.
"""

import ctypes
import functools
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

from . import torch_private
from .checks import (
    DTYPES,
    autocast_dtype,
    check_eps,
    check_projection,
    check_result,
    check_sapa,
)
from .reference import norm_project_reference
from .tiled import sapa_upsample_tiled

SCHEMAS = (
    'sapa_upsample(Tensor query, Tensor key, Tensor value, '
    'int kernel_size, int scale_factor, Tensor? prior=None) -> Tensor',
    'sapa_upsample_backward(Tensor grad, Tensor query, Tensor key, '
    'Tensor value, int kernel_size, int scale_factor, bool[3] mask, '
    'Tensor? prior=None) -> (Tensor, Tensor, Tensor)',
    'reassemble(Tensor weights, Tensor value, int kernel_size, '
    'int scale_factor) -> Tensor',
    'reassemble_backward(Tensor grad, Tensor weights, Tensor value, '
    'int kernel_size, int scale_factor, bool[2] mask) -> (Tensor, Tensor)',
    'norm_project(Tensor x, Tensor weight, Tensor bias, float eps) '
    '-> (Tensor, Tensor, Tensor)',
    'norm_project_backward(Tensor grad, Tensor x, Tensor weight, '
    'Tensor bias, Tensor out, Tensor mean, Tensor rstd, bool[3] mask) '
    '-> (Tensor, Tensor, Tensor)',
    'channel_norm(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps) '
    '-> (Tensor, Tensor, Tensor)',
    'channel_norm_backward(Tensor grad, Tensor x, Tensor norm_weight, '
    'Tensor norm_bias, Tensor mean, Tensor rstd, bool[3] mask) '
    '-> (Tensor, Tensor, Tensor)',
)
# Keeps the registrations alive.
_library = torch.library.Library('mmsapa', 'DEF')
for _schema in SCHEMAS:
    _library.define(_schema)


def load_kernels() -> bool:
    """Load the compiled kernels.

    Returns:
        bool: Whether there are any; a warning says why if they cannot load.
    """
    for path in _libraries():
        try:
            torch.ops.load_library(str(path))
        except OSError as error:
            warnings.warn(
                f'mmsapa: {path.name} was built for another torch than '
                f'{torch.__version__}; build mmsapa again. ({error})',
                stacklevel=2,
            )
            continue
        if _register(ctypes.CDLL(str(path))):
            return True
        warnings.warn(
            f'mmsapa: {path.name} was built from older or newer sources; '
            'build mmsapa again.',
            stacklevel=2,
        )
    return False


def _register(library):
    """Register the kernels of a library; False if it is of other sources."""
    names = 'mmsapa_register_cpu', 'mmsapa_register_cuda'
    found = [name for name in names if hasattr(library, name)]
    return bool(found) and all(library[name]() for name in found)


def _libraries():
    """What this Python has built; others may have built theirs beside it."""
    folder = Path(__file__).parents[1]
    paths = [folder / f'_C{suffix}' for suffix in EXTENSION_SUFFIXES]
    return [path for path in paths if path.exists()]


def how_to_build() -> str:
    """Advice where there are no kernels."""
    clone = Path(__file__).parents[2]
    if (clone / 'setup.py').exists() and not _libraries():
        return (
            f'This is the mmsapa of the clone {clone}, which hides one that '
            'is installed: run elsewhere, or build them here with `pip '
            'install --no-build-isolation --no-deps -e .`'
        )
    return (
        'Build them with `pip install --no-build-isolation --no-deps .` in a '
        'clone.'
    )


@functools.lru_cache(None)
def has_kernel(device_type: str) -> bool:
    """Whether the device has compiled kernels; warns once if it has none.

    Args:
        device_type (str): As in ``torch.device.type``.
    """
    # The backward pass, because plain PyTorch has none registered.
    key = 'Meta' if device_type == 'meta' else device_type.upper()
    found = torch_private.has_kernel('mmsapa::sapa_upsample_backward', key)
    if not found:
        warnings.warn(
            f'mmsapa: no compiled operators for {device_type}, so plain '
            'PyTorch serves: the same result, many times slower. '
            + how_to_build(),
            stacklevel=2,
        )
    return found


def multiply_accumulates(
    query_shape: tuple, channels: int, kernel_size: int
) -> int:
    """Multiply-accumulates of one upsampling, as the papers count them.

    Args:
        query_shape (tuple): (N, E, Hq, Wq).
        channels (int): C of ``value``; 0 for the weights alone.
        kernel_size (int): K.

    Returns:
        int: N * Hq * Wq * K * K * (E + C); the softmax is not counted.
    """
    n, e, hq, wq = query_shape
    return n * hq * wq * kernel_size**2 * (e + channels)


# ---- what both have -------------------------------------------------------


def _inputs(op):
    """How many tensors an operator takes, before all other arguments."""
    kinds = [str(argument.type) for argument in op._schema.arguments]
    return kinds.count('Tensor')


def _required(op):
    """How many arguments an operator takes, before those with a default."""
    return sum(not a.has_default_value() for a in op._schema.arguments)


def _differentiate(name, op, op_backward, saved):
    """Give an operator its kernel for autograd, and its backward one too.

    Args:
        name (str): The operator's.
        op (OpOverload): The operator.
        op_backward (OpOverload): What computes its gradients.
        saved (slice, optional): Results that backward takes in place of the
            numbers. Only the first of all is differentiable.

    Returns:
        callable: The operator's kernel, where there are kernels of devices.
    """
    inputs, required = _inputs(op), _required(op)

    class Backward:
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

    class Forward:
        @staticmethod
        def keep(ctx, args, results):
            ctx.numbers = args[inputs:required]
            ctx.others = len(args) - inputs
            if saved:
                ctx.save_for_backward(*args[:inputs], *results[saved])
                ctx.mark_non_differentiable(*results[1:])
            else:
                ctx.save_for_backward(*args[:inputs], *args[required:])

        @staticmethod
        def backward(ctx, grad, *_):
            mask = ctx.needs_input_grad[:inputs]
            maps = ctx.saved_tensors
            if saved:
                rest = *maps, mask
            else:
                rest = *maps[:inputs], *ctx.numbers, mask, *maps[inputs:]
            grads = op_backward(grad, *rest)
            grads = [
                g if wanted else None
                for g, wanted in zip(grads, mask, strict=True)
            ]
            return (*grads, *[None] * ctx.others)

        @staticmethod
        def jvp(ctx, *tangents):
            raise RuntimeError(
                f'{name} has no forward-mode derivative; use reverse mode, '
                f'or mmsapa.ops.{name}_reference.'
            )

    backward = torch_private.autograd_kernel(op_backward, Backward)
    _library.impl(f'{name}_backward', backward, 'Autograd')
    return torch_private.autograd_kernel(op, Forward)


def register(name, plain, meta, check_backward, macs, saved=None):
    """Register what an operator and its backward are beside kernels.

    Args:
        name (str): The operator's.
        plain (callable): The same in plain PyTorch, for devices without
            kernels.
        meta (callable): Raises what is wrong with the arguments, and gives
            results without numbers.
        check_backward (callable): Raises what is wrong with the arguments of
            backward.
        macs (tuple[callable]): Multiply-accumulates of the operator and of
            backward, see :func:`torch_private.count_flops`.
        saved (slice, optional): As in :func:`_differentiate`.

    """
    op, op_backward = (
        getattr(torch.ops.mmsapa, each).default
        for each in (name, f'{name}_backward')
    )
    differentiable = _differentiate(name, op, op_backward, saved)
    inputs, mask_at = _inputs(op), _required(op_backward) - 1

    def autograd(*args):
        if has_kernel(args[0].device.type):
            return differentiable(*args)
        return plain(*args)

    def fallback(*args):  # where autograd is not asked
        has_kernel(args[0].device.type)  # warns
        return plain(*args)

    def meta_backward(*args):
        check_backward(*args)
        return tuple(
            tensor.new_empty(tensor.shape if wanted else (0,))
            for tensor, wanted in zip(
                args[1 : 1 + inputs], args[mask_at], strict=True
            )
        )

    _library.impl(name, autograd, 'Autograd')
    _library.impl(name, fallback, 'CompositeExplicitAutograd')
    _library.impl(name, meta, 'Meta')
    _library.impl(f'{name}_backward', meta_backward, 'Meta')
    for each, formula in zip((op, op_backward), macs, strict=True):
        torch_private.count_flops(each, formula)


def _autocast(op, inputs, device_type, *args):
    """Cast the maps; kernels accumulate in float32 anyway."""
    dtype = autocast_dtype(device_type)
    maps = [
        arg.to(dtype)
        if isinstance(arg, torch.Tensor)
        and arg.dtype in DTYPES
        and arg.dtype != torch.float64
        else arg
        for arg in args[:inputs]
    ]
    with torch.autocast(device_type, enabled=False):
        return op(*maps, *args[inputs:])


def cast_for_autocast(name):
    """Register casts of an operator's maps to autocast's dtype."""
    op = getattr(torch.ops.mmsapa, name).default
    for device_type in ('cpu', 'cuda'):
        _library.impl(
            name,
            functools.partial(_autocast, op, _inputs(op), device_type),
            f'Autocast{device_type.upper()}',
        )


# ---- sapa_upsample --------------------------------------------------------


def _upsample_shape(name, query, key, value, *rest):
    check_sapa(name, query, key, value, *rest, strict=True)
    n, _, hq, wq = query.shape
    return (n, value.shape[1], hq, wq)


def _upsample_meta(query, *args):
    return query.new_empty(_upsample_shape('sapa_upsample', query, *args))


def _check_upsample_backward(
    grad, query, key, value, kernel_size, scale_factor, mask, prior=None
):
    name = 'sapa_upsample_backward'
    shape = _upsample_shape(
        name, query, key, value, kernel_size, scale_factor, prior
    )
    check_result(name, 'grad', grad, query, shape)


def _upsample_macs(query, key, value, kernel_size, *rest):
    return multiply_accumulates(query, value[1], kernel_size)


def _upsample_backward_macs(grad, query, key, value, kernel_size, *rest):
    # The logits once more, and two products for each made forward.
    return multiply_accumulates(
        query, 0, kernel_size
    ) + 2 * multiply_accumulates(query, value[1], kernel_size)


register(
    'sapa_upsample',
    sapa_upsample_tiled,
    _upsample_meta,
    _check_upsample_backward,
    (_upsample_macs, _upsample_backward_macs),
)
cast_for_autocast('sapa_upsample')


# ---- norm_project ---------------------------------------------------------


def _projection_shapes(name, x, weight, bias):
    check_projection(name, x, weight, bias)
    n, _, h, w = x.shape
    return (n, weight.shape[0], h, w), (n, 1, h, w)


def _projection_meta(x, weight, bias, eps):
    size, pixels = _projection_shapes('norm_project', x, weight, bias)
    check_eps('norm_project', eps)
    statistics = [weight.new_empty(pixels) for _ in range(2)]
    return x.new_empty(size), *statistics


def _check_projection_backward(grad, x, weight, bias, out, mean, rstd, mask):
    name = 'norm_project_backward'
    size, pixels = _projection_shapes(name, x, weight, bias)
    for role, tensor, like, shape in (
        ('grad', grad, x, size),
        ('out', out, x, size),
        ('mean', mean, weight, pixels),
        ('rstd', rstd, weight, pixels),
    ):
        check_result(name, role, tensor, like, shape)


def _projection_macs(x, weight, *rest):
    n, c, h, w = x
    return n * h * w * c * weight[0]


register(
    'norm_project',
    norm_project_reference,
    _projection_meta,
    _check_projection_backward,
    (
        _projection_macs,
        lambda grad, *args: 2 * _projection_macs(*args),
    ),
    saved=slice(0, 3),
)
load_kernels()
