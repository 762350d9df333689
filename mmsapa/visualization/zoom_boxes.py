"""Regions of an image that are worth enlarging."""

import numpy as np


def find_boxes(
    weights: np.ndarray, count: int, side: int | None = None
) -> list[tuple[int, int, int, int]]:
    """Find the square boxes that hold most weight.

    One after the other, each where most is left, an eighth of a side away
    from those before; the middle of a box counts more than its rim, so that
    what it shows is not cut off.

    Args:
        weights (np.ndarray): Not negative, [H, W].
        count (int): How many at most.
        side (int, optional): In pixels, at most H and W. Default: a quarter
            of the root of the area, at least 8.

    Returns:
        list[tuple[int, int, int, int]]: x, y, w, h, from left to right;
        fewer than ``count`` where no weight or no room is left.
    """
    height, width = weights.shape
    side = side or max(8, round((height * width) ** 0.5 / 4))
    side = min(side, height, width)
    # A box filter within a box filter weighs by a pyramid.
    inner = (side + 1) // 2
    sums = _box_sums(_box_sums(weights, inner), side - inner + 1)
    # Sums of floats leave dust where there is nothing.
    least = 1e-9 * max(1.0, float(weights.sum()))
    boxes = []
    while len(boxes) < count and sums.max() > least:
        y, x = np.unravel_index(sums.argmax(), sums.shape)
        boxes.append((int(x), int(y), side, side))
        apart = side + side // 8
        top, left = (max(0, v - apart + 1) for v in (y, x))
        sums[top : y + apart, left : x + apart] = 0
    return sorted(boxes)


def _box_sums(values, side):
    """Sums over all boxes of a side that lie within the map."""
    table = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return (
        table[side:, side:]
        - table[:-side, side:]
        - table[side:, :-side]
        + table[:-side, :-side]
    )
