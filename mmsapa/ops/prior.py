"""Interpolations as a prior of SAPA: ours, not the paper's.

A prior is a constant added to the logits. It depends on a query's phase in
its cell and on the offset in its window, and on nothing else. See
docs/how-it-works.md, "A prior".
"""

import torch
from torch import Tensor

from .checks import check_window

MODES = ('bilinear', 'nearest')
# Of the logarithm of a weight of 0, which as it is could never grow. Such a
# place has a weight of e^-10 = 4.5e-5, those of a 5 x 5 window 0.1 % together.
# Higher, and a model is not what it was with the interpolation: FPN's maps
# differ by 6e-3 of their largest number with -8, by 8e-4 with -10. Lower, and
# such places hardly have a gradient, which is in proportion to their weight.
# Float16, in which CUDA keeps weights for backward, has steps of 6e-8 there,
# so that they are still rounded to 0.1 %.
FLOOR = -10.0


def interpolation_prior(
    mode: str,
    kernel_size: int = 5,
    scale_factor: int = 2,
    floor: float = FLOOR,
) -> Tensor:
    """The logarithm of an interpolation's weights, as ``prior`` of SAPA.

    Where all products of query and key are 0, the softmax has these weights
    again, and :func:`sapa_upsample` is ``F.interpolate(value,
    scale_factor=s, mode=mode)``, with ``align_corners=False``. At the border
    that repeats the map's last row and column, while SAPA with a prior masks
    what is outside. This is the same: along either axis the interpolation
    weighs two cells, and where one is outside the other has all.

    Args:
        mode (str): ``'bilinear'`` or ``'nearest'``.
        kernel_size (int): K, the window's side in low-res cells; odd, and at
            least 3.
        scale_factor (int): s, queries to a cell along each axis;
            K * s <= 512.
        floor (float): The least logarithm, for weights of 0 too; below 0.
            What such a place has at first is about e^floor. Above the
            logarithm of the least weight (-2.8 for s = 2, -5.5 for s = 8) it
            changes the interpolation itself.

    Returns:
        Tensor[s * s, K * K]: Float32; phases and offsets are row-major.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If an argument is not one of the above.
    """
    name = 'interpolation_prior'
    check_window(name, kernel_size, scale_factor)
    if mode not in MODES:
        raise ValueError(
            f"{name}: expected 'bilinear' or 'nearest', got {mode!r}."
        )
    if kernel_size < 3:
        raise ValueError(
            f'{name}: expected kernel_size >= 3, a window with neighbors, '
            f'got {kernel_size}.'
        )
    if not isinstance(floor, (float, int)) or not -1e3 <= floor < 0:
        raise ValueError(
            f'{name}: expected a floor from -1000 to below 0, got {floor!r}.'
        )
    exact = dict(dtype=torch.float64)
    offset = torch.arange(kernel_size, **exact) - kernel_size // 2
    # Of a query's center from its cell's, in cells.
    shift = (torch.arange(scale_factor, **exact) + 0.5) / scale_factor - 0.5
    if mode == 'nearest':
        shift = torch.zeros_like(shift)
    along = (1 - (offset - shift[:, None]).abs()).clamp(min=0)  # [s, K]
    weights = torch.einsum('ai,bj->abij', along, along)
    logits = weights.log().clamp(min=floor)
    return logits.reshape(scale_factor**2, kernel_size**2).float()
