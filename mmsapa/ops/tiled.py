"""SAPA in plain PyTorch as a batch of small dense attentions.

The same result as ``reference.py``, which unfolds, in a fraction of its time
and memory.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import accumulate_dtype, check_sapa, extend_to

# Cells to a side. The queries of a tile share one halo; a larger one wastes
# more on pairs that no window holds, a smaller one copies more of the halo.
TILE = 4


def sapa_upsample_tiled(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int = 5,
    scale_factor: int = 2,
    prior: Tensor | None = None,
) -> Tensor:
    """What :func:`mmsapa.ops.sapa_upsample` computes, in plain PyTorch.

    The low-res map is cut into tiles of T x T cells. All queries of a tile
    attend to its halo of (T + K - 1) x (T + K - 1) cells, by matrix products,
    and what is outside a query's own window is masked. A value that is not
    finite reaches every query whose tile's halo holds it, and in backward
    whatever is not finite reaches all gradients of its tile.

    Args:
        query (Tensor[N, E, Hq, Wq]): As in :func:`mmsapa.ops.sapa_upsample`.
        key (Tensor[N, E, H, W]): Likewise.
        value (Tensor[N, C, H, W]): Likewise.
        kernel_size (int): K, odd.
        scale_factor (int): s.
        prior (Tensor[s * s, K * K], optional): Likewise.

    Returns:
        Tensor[N, C, Hq, Wq]: The upsampled map, dtype of ``value``.
    """
    if check_sapa(
        'sapa_upsample_tiled',
        query,
        key,
        value,
        kernel_size,
        scale_factor,
        prior,
    ):
        key, value = (
            extend_to(x, query.shape[2:], scale_factor) for x in (key, value)
        )
    return attend(query, key, value, kernel_size, scale_factor, prior)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int,
    scale_factor: int,
    prior: Tensor | None = None,
) -> Tensor:
    """As the operator: :func:`sapa_upsample_tiled` of maps that fit.

    No choice depends on a size, so that one graph of it serves all sizes.
    """
    dtype = accumulate_dtype(query.dtype)
    tiles = _count(key)
    queries = _tile(query.to(dtype), tiles, TILE * scale_factor, 0)
    keys = _tile(key.to(dtype), tiles, TILE, kernel_size // 2)
    values = _tile(value.to(dtype), tiles, TILE, kernel_size // 2)

    # Filled, not added: what is not finite stays in its windows.
    outside = _outside(kernel_size, scale_factor, queries.device)
    logits = queries.mT @ keys
    if prior is not None:
        prior = prior.to(dtype).flatten()
        logits = logits + prior[_of_tile(kernel_size, scale_factor, prior)]
        # Queries beyond the map are not masked: a softmax of nothing is NaN,
        # and so would be its gradient.
        present, cells = (
            _tile(x.new_ones(1, 1, *x.shape[2:]), tiles, side, halo)
            for x, side, halo in (
                (query, TILE * scale_factor, 0),
                (key, TILE, kernel_size // 2),
            )
        )
        outside = outside | (present.mT > cells)
    logits = logits.masked_fill(outside, float('-inf'))
    weights = logits.softmax(-1)
    return _join(values @ weights.mT, tiles, query, value.dtype)


def mix(
    weights: Tensor, value: Tensor, kernel_size: int, scale_factor: int
) -> Tensor:
    """As the operator: :func:`mmsapa.ops.reassemble` of maps that fit.

    Weights of a tile's queries, with zeros between them, are a matrix over
    its halo.
    """
    dtype = accumulate_dtype(value.dtype)
    tiles = _count(value)
    given = _tile(weights.to(dtype), tiles, TILE * scale_factor, 0)
    values = _tile(value.to(dtype), tiles, TILE, kernel_size // 2)
    outside = _outside(kernel_size, scale_factor, given.device)
    queries = torch.arange(len(outside), device=given.device)
    # Of a window's K * K weights by the tile's queries, all in one line.
    place = _of_tile(kernel_size, 1, given, scale_factor)
    place = place * len(outside) + queries[:, None]
    n, count, window, area = given.shape
    dense = given.reshape(n, count, window * area)[..., place]
    dense = dense.masked_fill(outside, 0)
    return _join(values @ dense.mT, tiles, weights, value.dtype)


def _count(low: Tensor) -> list:
    """How many tiles a low-res map has along H and W."""
    # Rounds up, and is never negative: ONNX divides toward zero.
    return [(size + TILE - 1) // TILE for size in low.shape[2:]]


def _tile(x: Tensor, tiles: list, side: int, halo: int) -> Tensor:
    """Cut a map into tiles, with zeros where there is no map.

    Args:
        x (Tensor[N, C, H, W]): A map.
        tiles (list[int]): Tiles along H and W.
        side (int): Of a tile, in pixels of ``x``.
        halo (int): Pixels beyond each edge of a tile.

    Returns:
        Tensor[N, th * tw, C, (side + 2 * halo) ** 2]: The tiles.
    """
    (n, c, h, w), (rows, columns) = x.shape, tiles
    size = side + 2 * halo
    more = -(-size // side) - 1  # tiles beyond one's own that a halo meets
    width = (columns + more) * side
    height = (rows + more) * side
    x = F.pad(x, [halo, width - w - halo, halo, height - h - halo])
    # Rows of tiles first, then tiles: other runtimes are slow, or do not go,
    # beyond four dimensions.
    x = _cut(x.reshape(n, c, rows + more, side * width), side, size, rows)
    x = x.reshape(n * rows, c * size, columns + more, side)
    x = _cut(x, side, size, columns)
    return x.reshape(n, rows * columns, c, size * size)


def _cut(x: Tensor, side: int, size: int, count: int) -> Tensor:
    """Put what a tile and its halo have of the tiles behind side by side.

    Args:
        x (Tensor[A, B, count + more, side * D]): Tiles without halo.
        side (int): Of a tile.
        size (int): Of a tile with its halo.
        count (int): Tiles to make.

    Returns:
        Tensor[A, count, B, size * D]: Tiles with halo.
    """
    # Slices, for overlapping Tensor.unfold has a wrong compiled backward in
    # torch 2.13.
    depth = x.shape[3] // side
    parts = [
        x.narrow(2, i, count).narrow(3, 0, min(side, size - i * side) * depth)
        for i in range(-(-size // side))
    ]
    # Transposed before: one copy for both.
    parts = [part.transpose(1, 2) for part in parts]
    return torch.cat(parts, 3) if len(parts) > 1 else parts[0]


def _join(x: Tensor, tiles: list, query: Tensor, dtype: torch.dtype) -> Tensor:
    """Make one map of tiles, contiguous, of the size of ``query``.

    Args:
        x (Tensor[N, th * tw, C, S * S]): Tiles of S x S pixels.
        tiles (list[int]): Tiles along H and W.
        query (Tensor[N, E, Hq, Wq]): A map of that size.
        dtype (torch.dtype): Of the result.

    Returns:
        Tensor[N, C, Hq, Wq]: The map.
    """
    (n, _, c, area), (rows, columns) = x.shape, tiles
    side = math.isqrt(area)
    x = x.reshape(n * rows, columns, c * side, side).transpose(1, 2)
    x = x.reshape(n, rows, c, side * columns * side).transpose(1, 2)
    x = x.reshape(n, c, rows * side, columns * side)
    x = x[..., : query.shape[2], : query.shape[3]]
    return x.to(dtype).contiguous()


def _outside(
    kernel_size: int, scale_factor: int, device: torch.device
) -> Tensor:
    """What of its tile's halo a query does not see.

    Args:
        kernel_size (int): K.
        scale_factor (int): s.
        device (torch.device): Where it is wanted.

    Returns:
        Tensor[(T * s) ** 2, (T + K - 1) ** 2]: False in a query's own
        window, True elsewhere.
    """
    offset = _offsets(kernel_size, scale_factor, device)
    inside = (offset >= 0) & (offset < kernel_size)
    inside = inside[:, None, :, None] & inside[None, :, None, :]
    return ~inside.flatten(2, 3).flatten(0, 1)


def _of_tile(
    kernel_size: int, phases: int, like: Tensor, scale_factor: int = 0
) -> Tensor:
    """Where a window's number stands, for all queries and cells of a tile.

    Args:
        kernel_size (int): K.
        phases (int): s where every phase has K * K numbers of its own, or 1.
        like (Tensor): On the device where it is wanted.
        scale_factor (int): s. Default: ``phases``.

    Returns:
        Tensor[(T * s) ** 2, (T + K - 1) ** 2]: Indices into ``phases ** 2 *
        K ** 2`` numbers; any index outside a query's own window.
    """
    k, s = kernel_size, scale_factor or phases
    phase = torch.arange(TILE * s, device=like.device)[:, None] % phases
    offset = _offsets(k, s, like.device).clamp(0, k - 1)
    rows = (phase * phases * k + offset) * k
    columns = phase * k * k + offset
    place = rows[:, None, :, None] + columns[None, :, None, :]
    return place.flatten(2, 3).flatten(0, 1)


def _offsets(
    kernel_size: int, scale_factor: int, device: torch.device
) -> Tensor:
    """Places of a halo's cells in the windows of queries, along one axis.

    Returns:
        Tensor[T * s, T + K - 1]: 0 to K - 1 in a query's own window.
    """
    cell = torch.arange(TILE * scale_factor, device=device)
    halo = torch.arange(TILE + kernel_size - 1, device=device)
    return halo - (cell // scale_factor)[:, None]
