"""Our operators, and two of PyTorch's, in operators that all runtimes have."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.tiled import TILE, attend, mix

# As ATen numbers them.
BILINEAR, ZEROS, BORDER = 0, 0, 1


def decompositions() -> dict[Callable, Callable]:
    """What runtimes without our operators run instead.

    For ``ExportedProgram.run_decompositions``. Our operators become
    products of small matrices (:func:`mmsapa.ops.sapa_upsample_tiled`), in
    at most four dimensions. Two of PyTorch's, which runtimes lack, do
    wrongly or only at fixed sizes, are there too: ``grid_sample`` becomes
    gathers of rows, and adaptive pooling two products.

    Where height or width varies, the example's low-res maps must have more
    than four cells along it, or ``run_decompositions`` raises a ValueError.

    Returns:
        dict[OpOverload, callable]: By operator, the same in other
        operators.
    """
    ours, aten = torch.ops.mmsapa, torch.ops.aten
    return {
        ours.sapa_upsample.default: _attend,
        ours.reassemble.default: _mix,
        ours.norm_project.default: _norm_project,
        ours.channel_norm.default: _channel_norm,
        aten.grid_sampler.default: _grid_sample,
        aten.grid_sampler_2d.default: _grid_sample,
        aten.adaptive_avg_pool2d.default: _adaptive_avg_pool,
        aten._adaptive_avg_pool2d.default: _adaptive_avg_pool,
    }


def _attend(query: Tensor, key: Tensor, *rest):
    _check_example(key)
    return attend(query, key, *rest)


def _mix(weights: Tensor, value: Tensor, *rest):
    _check_example(value)
    return mix(weights, value, *rest)


def _check_example(low: Tensor):
    """Raise where a size varies and the example has a single tile.

    PyTorch takes a number that is 1 in the example for a constant, and the
    program would fail at other sizes.
    """
    for size in low.shape[2:]:
        if isinstance(size, torch.SymInt) and size <= TILE:
            raise ValueError(
                'decompositions: expected an example whose low-res maps have '
                f'more than {TILE} cells along each side that varies, got '
                f'{int(size)}; export with a larger example, or fix this '
                'size.'
            )


def _norm_project(x: Tensor, weight: Tensor, bias: Tensor, eps: float):
    """As :func:`mmsapa.ops.norm_project_reference`."""
    centered, mean, rstd = _statistics(x, weight.dtype, eps)
    # The projection first: it has fewer channels to be scaled.
    out = F.conv2d(centered, weight[:, :, None, None]) * rstd
    return (out + bias[:, None, None]).to(x.dtype), mean, rstd


def _channel_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float):
    """As :func:`mmsapa.ops.channel_norm_reference`."""
    centered, mean, rstd = _statistics(x, weight.dtype, eps)
    out = centered * rstd * weight[:, None, None] + bias[:, None, None]
    return out.to(x.dtype), mean, rstd


def _statistics(x: Tensor, dtype: torch.dtype, eps: float):
    """What is left of a map without its mean, the mean, and 1 / sigma."""
    exact = x.to(dtype)
    # Means as convolutions: ONNX Runtime is slow to reduce over channels.
    average = exact.new_full((1, x.shape[1], 1, 1), 1 / x.shape[1])
    mean = F.conv2d(exact, average)
    centered = exact - mean
    variance = F.conv2d(centered * centered, average)
    return centered, mean, (variance + eps).rsqrt()


def _grid_sample(
    x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool
):
    """As ``F.grid_sample``, bilinear, with zeros or the border outside."""
    if x.dim() != 4 or mode != BILINEAR or padding not in (ZEROS, BORDER):
        return NotImplemented
    n, c, h, w = x.shape
    # The two pixels beside each position along H and W, and their shares.
    axes = []
    for size, at in zip((h, w), reversed(grid.unbind(-1))):
        if align_corners:
            at = (at + 1) * ((size - 1) / 2)
        else:
            at = (at + 1) * (size / 2) - 0.5
        if padding == BORDER:
            at = at.clamp(0, size - 1)
        first = at.floor()
        pixels = []
        for pixel, share in ((first, first + 1 - at), (first + 1, at - first)):
            if padding == ZEROS:
                share = share * ((pixel >= 0) & (pixel < size)).to(share.dtype)
            pixels.append((pixel.clamp(0, size - 1).long(), share))
        axes.append(pixels)
    # The pixels of all images in a line.
    rows = x.permute(0, 2, 3, 1).reshape(n * h * w, c)
    image = torch.arange(n, device=x.device)[:, None, None] * (h * w)
    out = 0
    for y, of_y in axes[0]:
        for z, of_z in axes[1]:
            share = (of_y * of_z).reshape(-1, 1).to(x.dtype)
            out = out + rows[(image + y * w + z).flatten()] * share
    out = out.reshape(n, grid.shape[1], grid.shape[2], c)
    return out.permute(0, 3, 1, 2).contiguous()


def _adaptive_avg_pool(x: Tensor, output_size: list):
    """As ``F.adaptive_avg_pool2d``, of maps of any size."""
    if x.dim() != 4:
        return NotImplemented
    rows, columns = (
        _shares(length, count, x)
        for length, count in zip(x.shape[2:], output_size)
    )
    return rows @ (x @ columns.t())


def _shares(length: int, count: int, like: Tensor) -> Tensor:
    """What ``count`` means take of a line.

    Returns:
        Tensor[count, length]: Rows sum to 1.
    """
    part = torch.arange(count, device=like.device)[:, None]
    begin = part * length // count
    end = ((part + 1) * length + count - 1) // count
    place = torch.arange(length, device=like.device)
    inside = (place >= begin) & (place < end)
    return inside.to(like.dtype) / (end - begin).to(like.dtype)
