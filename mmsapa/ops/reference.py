"""SAPA in plain PyTorch: the definition, and the compiled kernels' oracle.

It unfolds the windows and holds every weight, so it costs K * K times the
memory of the maps; ``functional.py`` has the functions to use.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _windows(x: Tensor, kernel_size: int) -> Tensor:
    """Every cell's window, zeros outside the map.

    Args:
        x (Tensor[N, C, H, W]): A low-res map.
        kernel_size (int): K.

    Returns:
        Tensor[N, C, K*K, H, W]: Windows, row-major.
    """
    h, w = x.shape[2:]
    padded = F.pad(x, [kernel_size // 2] * 4)
    shifts = [
        padded[..., i : i + h, j : j + w]
        for i in range(kernel_size)
        for j in range(kernel_size)
    ]
    return torch.stack(shifts, 2)


def _to_queries(x: Tensor, scale_factor: int, size: tuple) -> Tensor:
    """Give each cell's numbers to its queries.

    Args:
        x (Tensor[..., H, W]): Numbers of the cells.
        scale_factor (int): s.
        size (tuple[int, int]): (Hq, Wq).

    Returns:
        Tensor[..., Hq, Wq]: Numbers of the queries.
    """
    x = x.repeat_interleave(scale_factor, -2)
    x = x.repeat_interleave(scale_factor, -1)
    return x[..., : size[0], : size[1]]


def sapa_kernels_reference(
    query: Tensor, key: Tensor, kernel_size: int = 5, scale_factor: int = 2
) -> Tensor:
    """What :func:`mmsapa.ops.sapa_kernels` computes, in plain PyTorch."""
    dtype = _accumulate_dtype(query.dtype)
    windows = _to_queries(
        _windows(key.to(dtype), kernel_size), scale_factor, query.shape[-2:]
    )
    logits = torch.einsum('nehw,nekhw->nkhw', query.to(dtype), windows)
    return logits.softmax(1).to(query.dtype)


def sapa_upsample_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int = 5,
    scale_factor: int = 2,
) -> Tensor:
    """What :func:`mmsapa.ops.sapa_upsample` computes, in plain PyTorch."""
    dtype = _accumulate_dtype(query.dtype)
    weights = sapa_kernels_reference(
        query.to(dtype), key.to(dtype), kernel_size, scale_factor
    )
    windows = _to_queries(
        _windows(value.to(dtype), kernel_size), scale_factor, query.shape[-2:]
    )
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
    exact = x.to(weight.dtype)
    variance, mean = torch.var_mean(exact, 1, correction=0, keepdim=True)
    rstd = (variance + eps).rsqrt()
    normed = (exact - mean) * rstd
    out = torch.einsum('ec,nchw->nehw', weight, normed)
    out = out + bias[:, None, None]
    return out.to(x.dtype), mean.detach(), rstd.detach()
