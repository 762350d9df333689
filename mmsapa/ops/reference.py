"""SAPA in plain PyTorch: the definition, and the compiled kernels' oracle.

It unfolds the windows and holds every weight, so it costs K * K times the
memory of the maps; ``functional.py`` has the functions to use.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import (
    accumulate_dtype,
    check_eps,
    check_projection,
    check_sapa,
)


def _windows(
    x: Tensor, kernel_size: int, scale_factor: int, size: tuple
) -> Tensor:
    """Every query's window, zeros outside the map.

    Args:
        x (Tensor[N, C, H, W]): A low-res map.
        kernel_size (int): K.
        scale_factor (int): s.
        size (tuple[int, int]): (Hq, Wq).

    Returns:
        Tensor[N, C, K*K, Hq, Wq]: Windows, row-major, in the dtype that sums
        are taken in.
    """
    x = x.to(accumulate_dtype(x.dtype))
    # Every query has a cell: the last ones once more where the map is short.
    for dim, queries in ((2, size[0]), (3, size[1])):
        cells = torch.arange(-(-queries // scale_factor), device=x.device)
        x = x.index_select(dim, cells.clamp(max=x.shape[dim] - 1))
    h, w = x.shape[2:]
    x = F.pad(x, [kernel_size // 2] * 4)
    shifts = [
        x[..., i : i + h, j : j + w]
        for i in range(kernel_size)
        for j in range(kernel_size)
    ]
    x = torch.stack(shifts, 2)
    x = x.repeat_interleave(scale_factor, -2)
    x = x.repeat_interleave(scale_factor, -1)
    return x[..., : size[0], : size[1]]


def sapa_kernels_reference(
    query: Tensor, key: Tensor, kernel_size: int = 5, scale_factor: int = 2
) -> Tensor:
    """What :func:`mmsapa.ops.sapa_kernels` computes, in plain PyTorch."""
    check_sapa(
        'sapa_kernels_reference', query, key, None, kernel_size, scale_factor
    )
    windows = _windows(key, kernel_size, scale_factor, query.shape[2:])
    logits = torch.einsum('nehw,nekhw->nkhw', query.to(windows.dtype), windows)
    return logits.softmax(1).to(query.dtype)


def sapa_upsample_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int = 5,
    scale_factor: int = 2,
) -> Tensor:
    """What :func:`mmsapa.ops.sapa_upsample` computes, in plain PyTorch."""
    check_sapa(
        'sapa_upsample_reference',
        query,
        key,
        value,
        kernel_size,
        scale_factor,
    )
    dtype = accumulate_dtype(query.dtype)
    weights = sapa_kernels_reference(
        query.to(dtype), key.to(dtype), kernel_size, scale_factor
    )
    windows = _windows(value, kernel_size, scale_factor, query.shape[2:])
    return torch.einsum('nkhw,nckhw->nchw', weights, windows).to(value.dtype)


def norm_project_reference(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple:
    """Normalise over channels, then project, in plain PyTorch.

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
