"""Layer normalization over the channels of a map, pixel by pixel."""

import torch
from torch import Tensor

from .checks import (
    accumulate_dtype,
    check_eps,
    check_map,
    check_parameter,
    check_result,
)
from .registrations import register


def channel_norm(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """Normalize the channels of every pixel, as a layer norm does.

    The map stays in PyTorch's own layout, where ``torch.nn.LayerNorm`` wants
    channels last::

        out = (x - mean) / sqrt(variance + eps) * norm_weight + norm_bias

    The variance is taken of differences, never of the raw squares; sums are
    in float32 or wider. The backward pass is deterministic and has no second
    derivative, and there is no forward mode. Autocast changes nothing.

    Args:
        x (Tensor[N, C, H, W]): A map; float32, float64, float16 or bfloat16.
        norm_weight (Tensor[C]): Any floating dtype.
        norm_bias (Tensor[C]): Likewise.
        eps (float): Added to the variance; 0 or more.

    Returns:
        Tensor[N, C, H, W]: The normalized map, contiguous, dtype of ``x``.

    Raises:
        TypeError: If an input is not a dense tensor of a dtype as above.
        ValueError: If sizes do not fit together.
    """
    return _normed(
        'channel_norm',
        torch.ops.mmsapa.channel_norm,
        *(x, norm_weight, norm_bias, eps),
    )


def channel_norm_reference(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """What :func:`mmsapa.ops.channel_norm` computes, in plain PyTorch."""
    return _normed(
        'channel_norm_reference', _plain, *(x, norm_weight, norm_bias, eps)
    )


def _normed(name, function, x, norm_weight, norm_bias, eps):
    _check(name, x, norm_weight, norm_bias, eps)
    exact = accumulate_dtype(x.dtype)
    return function(x, norm_weight.to(exact), norm_bias.to(exact), eps)[0]


def _plain(x, norm_weight, norm_bias, eps):
    """As the operator, which casts nothing."""
    _check('channel_norm', x, norm_weight, norm_bias, eps, strict=True)
    exact = x.to(norm_weight.dtype)
    variance, mean = torch.var_mean(exact, 1, correction=0, keepdim=True)
    rstd = (variance + eps).rsqrt()
    out = (exact - mean) * rstd * norm_weight[:, None, None]
    out = out + norm_bias[:, None, None]
    return out.to(x.dtype).contiguous(), mean.detach(), rstd.detach()


def _check(name, x, norm_weight, norm_bias, eps=0.0, strict=False):
    """Raise what is wrong with the arguments, in one sentence.

    ``strict`` is as in :func:`mmsapa.ops.checks.check_sapa`.
    """
    check_map(name, 'x', x)
    parameters = dict(norm_weight=norm_weight, norm_bias=norm_bias)
    for role, tensor in parameters.items():
        check_parameter(name, role, tensor, x, strict)
    sizes = [list(tensor.shape) for tensor in parameters.values()]
    if not x.shape[1] or sizes != [[x.shape[1]]] * 2:
        raise ValueError(
            f'{name}: expected x [N, C, H, W], norm_weight [C] and norm_bias '
            f'[C] with C > 0, got {list(x.shape)}, {sizes[0]} and {sizes[1]}.'
        )
    check_eps(name, eps)


# ---- registration ---------------------------------------------------------


def _statistics_shape(x):
    return (x.shape[0], 1, *x.shape[2:])


def _meta(x, norm_weight, norm_bias, eps):
    _check('channel_norm', x, norm_weight, norm_bias, eps, strict=True)
    size = _statistics_shape(x)
    return x.new_empty(x.shape), *(norm_weight.new_empty(size) for _ in '12')


def _check_backward(grad, x, norm_weight, norm_bias, mean, rstd, mask):
    name = 'channel_norm_backward'
    _check(name, x, norm_weight, norm_bias, strict=True)
    check_result(name, 'grad', grad, x, x.shape)
    for role, tensor in (('mean', mean), ('rstd', rstd)):
        check_result(name, role, tensor, norm_weight, _statistics_shape(x))


# Norms are not counted, in the papers as in torch.
register(
    'channel_norm',
    _plain,
    _meta,
    _check_backward,
    (lambda *args: 0, lambda *args: 0),
    saved=slice(1, 3),
)
