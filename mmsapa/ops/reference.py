"""SAPA in plain PyTorch: the definition, and the compiled kernels' oracle.

It goes through the windows offset by offset and holds every weight, K * K
numbers a query; ``functional.py`` has the functions to use.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import (
    accumulate_dtype,
    check_eps,
    check_projection,
    check_sapa,
    extend_to,
)


def sapa_kernels(
    query: Tensor,
    key: Tensor,
    kernel_size: int = 5,
    scale_factor: int = 2,
    prior: Tensor | None = None,
) -> Tensor:
    """The weights by which :func:`sapa_upsample` takes its means.

    Plain PyTorch, for pictures and tests: it takes many times as long as the
    upsampling itself, and can be differentiated any number of times. Sums
    are in float32 or wider, under autocast too.

    Args:
        query (Tensor[N, E, Hq, Wq]): As in :func:`sapa_upsample`.
        key (Tensor[N, E, H, W]): As in :func:`sapa_upsample`.
        kernel_size (int): K, odd.
        scale_factor (int): s.
        prior (Tensor[s * s, K * K], optional): As in :func:`sapa_upsample`.

    Returns:
        Tensor[N, K*K, Hq, Wq]: Softmax weights, dtype of ``query``; the
        window is row-major, and they sum to 1 over dimension 1, places
        outside the map included, which with a prior have 0.

    Raises:
        TypeError: As :func:`sapa_upsample`.
        ValueError: As :func:`sapa_upsample`.
    """
    check_sapa(
        'sapa_kernels', query, key, None, kernel_size, scale_factor, prior
    )
    weights = _weights(query, key, kernel_size, scale_factor, prior)
    return weights.to(query.dtype)


def sapa_upsample_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int = 5,
    scale_factor: int = 2,
    prior: Tensor | None = None,
) -> Tensor:
    """What :func:`mmsapa.ops.sapa_upsample` computes, in plain PyTorch."""
    check_sapa(
        'sapa_upsample_reference',
        query,
        key,
        value,
        kernel_size,
        scale_factor,
        prior,
    )
    weights = _weights(query, key, kernel_size, scale_factor, prior).unbind(1)
    values = _windows(value, kernel_size, scale_factor, query.shape[2:])
    out = 0
    for weight, cells in zip(weights, values):
        seen = _nearest(cells, scale_factor, query.shape[2:])
        out = out + weight[:, None] * seen
    return out.to(value.dtype)


def _weights(query, key, kernel_size, scale_factor, prior):
    """As :func:`sapa_kernels`, in the dtype that sums are taken in."""
    size = query.shape[2:]
    query = query.to(accumulate_dtype(query.dtype))
    keys = _windows(key, kernel_size, scale_factor, size)
    # Elementwise products, which autocast leaves alone.
    logits = [
        (query * _nearest(cells, scale_factor, size)).sum(1) for cells in keys
    ]
    logits = torch.stack(logits, 1)
    if prior is not None:
        # A copy of it for every cell, cut where queries end.
        cells = [-(-side // scale_factor) for side in size]
        prior = prior.to(logits.dtype).t().unflatten(1, [scale_factor] * 2)
        logits = logits + prior.tile(1, *cells)[:, : size[0], : size[1]]
        ones = key.new_ones(1, 1, *key.shape[2:])
        inside = [
            _nearest(cells, scale_factor, size)
            for cells in _windows(ones, kernel_size, scale_factor, size)
        ]
        outside = torch.cat(inside, 1) == 0
        logits = logits.masked_fill(outside, float('-inf'))
    return logits.softmax(1)


def _windows(
    x: Tensor, kernel_size: int, scale_factor: int, size: tuple
) -> list[Tensor]:
    """What every cell sees at each offset of its window.

    Args:
        x (Tensor[N, C, H, W]): A low-res map.
        kernel_size (int): K.
        scale_factor (int): s.
        size (tuple[int, int]): (Hq, Wq), which the map is extended to where
            it is short.

    Returns:
        list[Tensor[N, C, H, W]]: One for each of K * K offsets, row-major,
        zeros outside the map, in the dtype that sums are taken in. All are
        views of one map.
    """
    x = extend_to(x.to(accumulate_dtype(x.dtype)), size, scale_factor)
    h, w = x.shape[2:]
    x = F.pad(x, [kernel_size // 2] * 4)
    return [
        x[:, :, i : i + h, j : j + w]
        for i in range(kernel_size)
        for j in range(kernel_size)
    ]


def _nearest(x, scale_factor, size):
    """To every query of (Hq, Wq) from its cell (y // s, x // s)."""
    s = scale_factor
    x = x[:, :, :, None, :, None].expand(-1, -1, -1, s, -1, s)
    return x.flatten(4, 5).flatten(2, 3)[..., : size[0], : size[1]]


def norm_project_reference(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple:
    """Normalize over channels, then project, in plain PyTorch.

    Args:
        x (Tensor[N, C, H, W]): A map.
        weight (Tensor[E, C]): Rows sum to zero; float32, or float64 for a
            float64 ``x``.
        bias (Tensor[E]): Dtype of ``weight``.
        eps (float): Added to the variance.

    Returns:
        tuple[Tensor, Tensor, Tensor]: The projected map, [N, E, H, W] of
        ``x``'s dtype, and mean and reciprocal standard deviation over
        channels, both [N, 1, H, W] of ``weight``'s dtype.
    """
    check_projection('norm_project_reference', x, weight, bias)
    check_eps('norm_project_reference', eps)
    exact = x.to(weight.dtype)
    variance, mean = torch.var_mean(exact, 1, correction=0, keepdim=True)
    rstd = (variance + eps).rsqrt()
    normed = (exact - mean) * rstd
    out = torch.einsum('ec,nchw->nehw', weight, normed)
    out = out + bias[:, None, None]
    return out.to(x.dtype), mean.detach(), rstd.detach()
