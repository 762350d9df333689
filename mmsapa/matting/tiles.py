"""Mattes of images that are too large to be predicted in one piece."""

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UserError
from ..memory import free_bytes

STRIDE = 16  # of the encoder
# Maps of the image's size and head.channels that are alive at the peak: five
# with interpolation, up to seven with another layer.
MAPS = 7
_ADVICE = 'predict in tiles: --cfg-options model.test_cfg.tile_size=1024'


class ImageTooLarge(UserError):
    """A whole image needs more memory than there is; says what to do."""


def predict_whole(backbone: nn.Module, head: nn.Module, x: Tensor) -> Tensor:
    """Predict the mattes of whole images.

    A GPU, or a system with a limit, refuses what it does not have. On a CPU
    most systems promise any memory and end the process that uses too much;
    there the need is estimated beforehand, from the size of the image, the
    width of the decoder and the number of its maps alive at once. Such a
    guess may be wrong by a third, and other processes may take what was
    free.

    Args:
        backbone (nn.Module): Makes :class:`MattingFeatures`.
        head (nn.Module): An :class:`A2UHead`.
        x (Tensor[N, C, H, W]): Padded inputs.

    Returns:
        Tensor[N, 1, H, W]: What the head predicts.

    Raises:
        ImageTooLarge: If there is too little memory.
    """
    size = f'{x.shape[3]} x {x.shape[2]} pixels'
    if x.device.type == 'cpu':
        pixels = len(x) * x.shape[2] * x.shape[3]
        need, free = MAPS * head.channels * 4 * pixels, free_bytes()
        if need > free:
            raise ImageTooLarge(
                f'A whole image of {size} may need {need / 2**30:.1f} GiB of '
                f'memory, and {free / 2**30:.1f} are free; {_ADVICE}'
            )
    try:
        return head(backbone(x))
    except RuntimeError as error:
        is_memory = isinstance(error, torch.cuda.OutOfMemoryError)
        if not is_memory and "can't allocate memory" not in str(error):
            raise
    raise ImageTooLarge(
        f'A whole image of {size} needs more memory than there is; {_ADVICE}'
    )


def predict_in_tiles(
    backbone: nn.Module,
    head: nn.Module,
    x: Tensor,
    tile_size: int,
    overlap: int,
) -> Tensor:
    """Predict the mattes of images, tile by tile.

    The encoder runs over every tile twice: first for its last map, of which
    the ASPP needs the whole, then for the maps that the decoder needs of the
    tile. With an overlap of 208, the encoder's reach, the result is that of
    the whole image but for rounding; with less, what is wrong at the seams
    reaches all pixels, by the ASPP's mean. A2U, which pools its guide, is
    wrong by its tiles' means in any case.

    Args:
        backbone (nn.Module): Makes :class:`MattingFeatures`.
        head (nn.Module): An :class:`A2UHead`.
        x (Tensor[N, C, H, W]): Padded inputs.
        tile_size (int): Side of a tile in pixels, a multiple of 16.
        overlap (int): Pixels around a tile that are computed and cut off,
            a multiple of 16.

    Returns:
        Tensor[N, 1, H, W]: What the head predicts.
    """
    height, width = x.shape[2:]
    tiles = [*_tiles(height, width, tile_size, overlap)]
    top = None
    for core, window, inner in tiles:
        part = _cut(backbone(_cut(x, window)).top, inner, STRIDE)
        if top is None:
            sides = height // STRIDE, width // STRIDE
            top = part.new_empty(*part.shape[:2], *sides)
        _cut(top, core, STRIDE).copy_(part)
    top = head.aspp(top)
    out = x.new_empty(len(x), 1, height, width)
    for core, window, inner in tiles:
        low = _cut(top, window, STRIDE)
        part = head.decode(low, backbone(_cut(x, window)))
        _cut(out, core).copy_(_cut(part, inner))
    return out


def _tiles(height: int, width: int, size: int, overlap: int) -> Iterator:
    """Yield rows and columns of each tile, of its window, and within that."""

    def spans(length):
        for start in range(0, length, size):
            stop = min(start + size, length)
            low, high = max(start - overlap, 0), min(stop + overlap, length)
            yield (start, stop), (low, high), (start - low, stop - low)

    for rows, columns in product(spans(height), spans(width)):
        yield tuple(zip(rows, columns))


def _cut(x, sides, stride=1):
    """A view of rows and columns given in pixels."""
    rows, columns = (slice(a // stride, b // stride) for a, b in sides)
    return x[..., rows, columns]
