"""The public functions: friendly checks in front of the operators."""

import torch
from torch import Tensor

from . import registrations  # noqa: F401  defines torch.ops.mmsapa
from .checks import (
    accumulate_dtype,
    check_norm_project,
    check_sapa,
    extend_to,
)


def sapa_upsample(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int = 5,
    scale_factor: int = 2,
    prior: Tensor | None = None,
) -> Tensor:
    """Upsample ``value`` by the similarity of ``query`` and ``key``.

    A query pixel p belongs to the low-res cell c(p) = p // s. It compares
    itself with the K x K cells around c(p) and takes their mean, weighted by
    similarity (SAPA, NeurIPS 2022, section 3)::

        out[p] = sum_o softmax_o(<query[p], key[c(p) + o]>) * value[c(p) + o]

    Keys and values outside the map are zero and take part in the softmax.
    A prior, which is ours and not the paper's, is added to the logits, and
    with one, places outside the map are masked: they take no part.
    Where queries go on by less than a cell, key and value get one cell more,
    their last row or column once more (:func:`extend_to`).
    All K x K weights of a pixel live in registers: memory beyond inputs and
    output is small, forward and backward. The backward pass is deterministic
    and has no second derivative, and there is no forward mode; grad, vjp,
    jacrev and vmap of torch.func work. NaN and infinities come out as in
    :func:`sapa_upsample_reference`. Accumulation is in float32 or wider.
    Under autocast all three inputs are cast to autocast's dtype.

    Args:
        query (Tensor[N, E, Hq, Wq]): Embedded guide, high resolution;
            float32, float64, float16 or bfloat16.
        key (Tensor[N, E, H, W]): Embedded ``value``, low resolution, with
            (H - 1) * s < Hq < (H + 1) * s, and Wq likewise; dtype as
            ``query``.
        value (Tensor[N, C, H, W]): Map to upsample; dtype as ``query``.
        kernel_size (int): K, the window's side in low-res cells; odd.
        scale_factor (int): s, queries to a cell along each axis;
            K * s <= 512.
        prior (Tensor[s * s, K * K], optional): Added to the logits, by the
            query's phase in its cell and the offset in its window, both
            row-major; see :func:`interpolation_prior`. A constant without
            a gradient, of any floating dtype.

    Returns:
        Tensor[N, C, Hq, Wq]: The upsampled map, contiguous, dtype of
        ``value``.

    Raises:
        TypeError: If an input is not a dense tensor, or its dtype is not
            one of the above.
        ValueError: If sizes, dtypes or devices do not fit together, or the
            prior requires a gradient.
    """
    if check_sapa(
        'sapa_upsample', query, key, value, kernel_size, scale_factor, prior
    ):
        key = extend_to(key, query.shape[2:], scale_factor)
        value = extend_to(value, query.shape[2:], scale_factor)
    if prior is not None:
        prior = prior.to(accumulate_dtype(query.dtype))
    return torch.ops.mmsapa.sapa_upsample(
        query, key, value, kernel_size, scale_factor, prior
    )


def norm_project(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalization over channels and a projection, fused.

    A projection of a normalized pixel is a projection of the pixel as it is,
    divided by its standard deviation, if the norm's affine parameters are
    folded into the projection and each row of that loses its mean::

        W (gamma * (x - mean) / std + beta) + b = V x / std + (W beta + b)
        V = W diag(gamma), each row less its mean

    So the normalized map is neither written nor kept for backward. The
    variance is taken of differences, never of the raw squares, so that a
    large mean does no harm; sums are in float32 or wider. The backward pass
    is deterministic and has no second derivative.

    Args:
        x (Tensor[N, C, H, W]): A map; float32, float64, float16 or bfloat16.
        norm_weight (Tensor[C]): Of the norm, any floating dtype.
        norm_bias (Tensor[C]): Likewise.
        weight (Tensor[E, C]): Of the projection, likewise.
        bias (Tensor[E]): Likewise.
        eps (float): Added to the variance; 0 or more.

    Returns:
        Tensor[N, E, H, W]: The projected map, dtype of ``x``.

    Raises:
        TypeError: If an input is not a dense tensor of a dtype as above.
        ValueError: If sizes or devices do not fit together.
    """
    check_norm_project(x, norm_weight, norm_bias, weight, bias, eps)
    # Elementwise and in full precision, whatever autocast makes of products.
    exact = accumulate_dtype(x.dtype)
    weight = weight.to(exact)
    folded = weight * norm_weight.to(exact)
    folded = folded - folded.mean(1, keepdim=True)
    offset = (weight * norm_bias.to(exact)).sum(1) + bias.to(exact)
    return torch.ops.mmsapa.norm_project(x, folded, offset, eps)[0]
