"""SAPA in plain PyTorch as a batch of small dense attentions.

The same result as ``reference.py``, which unfolds, in a fraction of its time
and memory.
"""

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
    dtype = accumulate_dtype(query.dtype)
    tiles = [-(-size // TILE) for size in key.shape[2:]]
    queries = _tile(query.to(dtype), tiles, TILE * scale_factor, 0)
    keys = _tile(key.to(dtype), tiles, TILE, kernel_size // 2)
    values = _tile(value.to(dtype), tiles, TILE, kernel_size // 2)

    # Filled, not added: what is not finite stays in its windows.
    outside = _outside(kernel_size, scale_factor, queries.device)
    logits = queries.mT @ keys
    if prior is not None:
        logits = logits + _of_tile(prior, kernel_size, scale_factor).to(dtype)
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
    out = values @ weights.mT

    side = TILE * scale_factor
    out = out.unflatten(-1, (side, side)).permute(0, 3, 1, 4, 2, 5)
    out = out.flatten(4, 5).flatten(2, 3)
    out = out[..., : query.shape[2], : query.shape[3]]
    return out.to(value.dtype).contiguous()


def _tile(x: Tensor, tiles: list, side: int, halo: int) -> Tensor:
    """Cut a map into tiles, with zeros where there is no map.

    Args:
        x (Tensor[N, C, H, W]): A map.
        tiles (list[int]): Tiles along H and W.
        side (int): Of a tile, in pixels of ``x``.
        halo (int): Pixels beyond each edge of a tile.

    Returns:
        Tensor[N, th, tw, C, (side + 2 * halo) ** 2]: The tiles.
    """
    # Whole tiles and slices of them side by side make the halo: overlapping
    # Tensor.unfold has a wrong compiled backward in torch 2.13.
    size = side + 2 * halo
    steps = -(-size // side)
    padding = []
    for count, length in ((tiles[1], x.shape[3]), (tiles[0], x.shape[2])):
        padding += [halo, (count + steps - 1) * side - length - halo]
    x = F.pad(x, padding)
    x = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    for dim, count in ((2, tiles[0]), (4, tiles[1])):
        parts = [
            x.narrow(dim, i, count).narrow(
                dim + 1, 0, min(side, size - i * side)
            )
            for i in range(steps)
        ]
        x = torch.cat(parts, dim + 1)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(4, 5)


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


def _of_tile(prior: Tensor, kernel_size: int, scale_factor: int) -> Tensor:
    """The prior between all queries of a tile and all of its halo.

    Args:
        prior (Tensor[s * s, K * K]): As in :func:`sapa_upsample_tiled`.
        kernel_size (int): K.
        scale_factor (int): s.

    Returns:
        Tensor[(T * s) ** 2, (T + K - 1) ** 2]: Any number outside a query's
        own window.
    """
    k, s = kernel_size, scale_factor
    phase = torch.arange(TILE * s, device=prior.device) % s
    offset = _offsets(k, s, prior.device).clamp(0, k - 1)
    prior = prior.reshape(s, s, k, k)[
        phase[:, None, None, None],
        phase[:, None, None],
        offset[:, None, :, None],
        offset[:, None, :],
    ]
    return prior.flatten(2, 3).flatten(0, 1)


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
