"""Reassembly: means of windows by weights that are given.

CARAFE (https://arxiv.org/abs/1905.02188) named it, and A2U and FADE end in it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import (
    accumulate_dtype,
    check_maps,
    check_result,
    check_window,
    extend_to,
    nearly_fits,
    sizes_vary,
)
from .registrations import cast_for_autocast, register


def reassemble(
    weights: Tensor,
    value: Tensor,
    kernel_size: int,
    scale_factor: int,
    groups: int = 1,
) -> Tensor:
    """Upsample ``value`` by weights that are given.

    A high-res pixel p belongs to the low-res cell c(p) = p // s. It takes
    the sum of the K x K cells around c(p), each by its weight (CARAFE, ICCV
    2019, section 3.2)::

        out[p] = sum_o weights[p, o] * value[c(p) + o]

    Values outside the map are zero. The weights are taken as they are: a
    mean needs weights that sum to 1. Where weights go on by less than a
    cell, value gets one cell more (:func:`sapa_upsample`). The backward pass
    is deterministic and has no second derivative, and there is no forward
    mode. Accumulation is in float32 or wider. Under autocast both inputs are
    cast to autocast's dtype.

    Args:
        weights (Tensor[N, groups * K * K, Hq, Wq]): High resolution, group
            after group, the window row-major; float32, float64, float16 or
            bfloat16.
        value (Tensor[N, C, H, W]): Map to upsample, low resolution, with
            (H - 1) * s < Hq < (H + 1) * s, and Wq likewise; dtype as
            ``weights``.
        kernel_size (int): K, the window's side in low-res cells; odd.
        scale_factor (int): s, high-res pixels to a cell along each axis;
            K * s <= 512.
        groups (int): Groups of C / groups neighboring channels, each with
            its own weights. Default: 1.

    Returns:
        Tensor[N, C, Hq, Wq]: The upsampled map, contiguous, dtype of
        ``value``.

    Raises:
        TypeError: If an input is not a dense tensor, or its dtype is not
            one of the above.
        ValueError: If sizes, dtypes or devices do not fit together.
    """
    return _in_groups(
        'reassemble',
        torch.ops.mmsapa.reassemble,
        *(weights, value, kernel_size, scale_factor, groups),
    )


def reassemble_reference(
    weights: Tensor,
    value: Tensor,
    kernel_size: int,
    scale_factor: int,
    groups: int = 1,
) -> Tensor:
    """What :func:`mmsapa.ops.reassemble` computes, in plain PyTorch."""
    return _in_groups(
        'reassemble_reference',
        _plain,
        *(weights, value, kernel_size, scale_factor, groups),
    )


def _in_groups(name, function, weights, value, kernel_size, s, groups):
    """Check, and give a function the groups as images of a batch."""
    _check(name, weights, value, kernel_size, s, groups)
    value = extend_to(value, weights.shape[2:], s)
    if groups == 1:
        return function(weights, value, kernel_size, s)
    weights, parts = (
        x.unflatten(1, (groups, -1)).flatten(0, 1) for x in (weights, value)
    )
    out = function(weights, parts, kernel_size, s)
    return out.unflatten(0, (value.shape[0], groups)).flatten(1, 2)


def _plain(weights, value, kernel_size, scale_factor):
    """As the operator, which knows no groups and extends no map."""
    _check(
        'reassemble', weights, value, kernel_size, scale_factor, strict=True
    )
    n, c, h, w = value.shape
    s = scale_factor
    size = weights.shape[2:]
    dtype = accumulate_dtype(value.dtype)
    # The high-res pixels of a cell become an axis before the rows, so that
    # the factors have the memory layout of value.
    weights = F.pad(weights, [0, w * s - size[1], 0, h * s - size[0]])
    weights = weights.to(dtype).unflatten(3, (w, s)).unflatten(2, (h, s))
    weights = weights.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)
    padded = F.pad(value.to(dtype), [kernel_size // 2] * 4)
    out = padded.new_zeros(n, c, s * s, h, w)
    for i in range(kernel_size**2):
        y, z = divmod(i, kernel_size)
        window = padded[:, :, None, y : y + h, z : z + w]
        out = torch.addcmul(out, window, weights[:, i, None])
    out = out.unflatten(2, (s, s)).permute(0, 1, 4, 2, 5, 3)
    out = out.flatten(4, 5).flatten(2, 3)[..., : size[0], : size[1]]
    return out.to(value.dtype).contiguous()


def _check(
    name, weights, value, kernel_size, scale_factor, groups=1, strict=False
):
    """Raise what is wrong with the arguments, in one sentence.

    ``strict`` is as in :func:`mmsapa.ops.checks.check_sapa`.
    """
    check_window(name, kernel_size, scale_factor)
    check_maps(name, dict(weights=weights, value=value), strict)
    number = (int, torch.SymInt)
    if isinstance(groups, bool) or not isinstance(groups, number):
        raise TypeError(
            f'{name}: expected groups as an int, got '
            f'{type(groups).__name__} {groups!r}.'
        )
    if groups < 1:
        raise ValueError(f'{name}: expected groups >= 1, got {groups}.')
    if value.shape[1] % groups:
        raise ValueError(
            f'{name}: expected value with channels divisible by {groups} '
            f'groups, got {list(value.shape)}.'
        )
    window = groups * kernel_size**2
    if weights.shape[:2] != (value.shape[0], window):
        raise ValueError(
            f'{name}: expected weights [N, {window}, Hq, Wq], of groups * '
            f'kernel_size ** 2 numbers, with the N of value, got '
            f'{list(weights.shape)} and {list(value.shape)}.'
        )
    high, low, s = weights.shape[2:], value.shape[2:], scale_factor
    if strict and sizes_vary(*high, *low):
        return
    short = any(a > b * s for a, b in zip(high, low))
    if not nearly_fits(high, low, s) or (short and strict):
        largest = f'H * {s}]' if strict else f'(H + 1) * {s})'
        raise ValueError(
            f'{name}: expected weights {s} times as large as value, each '
            f'side in ((H - 1) * {s}, {largest}, got {list(high)} for '
            f'{list(low)}.'
        )


# ---- registration ---------------------------------------------------------


def _shape(name, weights, value, kernel_size, scale_factor):
    _check(name, weights, value, kernel_size, scale_factor, strict=True)
    return (*value.shape[:2], *weights.shape[2:])


def _meta(weights, value, *numbers):
    return value.new_empty(_shape('reassemble', weights, value, *numbers))


def _check_backward(grad, weights, value, *rest):
    name = 'reassemble_backward'
    shape = _shape(name, weights, value, *rest[:-1])
    check_result(name, 'grad', grad, value, shape)


def _macs(weights, value, *rest):
    n, window, hq, wq = weights
    return n * value[1] * hq * wq * window


register(
    'reassemble',
    _plain,
    _meta,
    _check_backward,
    (_macs, lambda grad, *args: 2 * _macs(*args)),
)
cast_for_autocast('reassemble')
