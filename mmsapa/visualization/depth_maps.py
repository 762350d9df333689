"""Depth maps in colors that mean the same in all maps of a row."""

import numpy as np

from .comparison import Comparison, has_depth

# The first is perceptually uniform; near is light, as in BTS's pictures.
DEPTH_COLORS, ERROR_COLORS = 'plasma_r', 'Reds'
MOST_ERROR = 0.5  # relative errors from here on have one color


def depth_range(row: Comparison) -> tuple[float, float]:
    """Least and largest depth of the ground truth; if none, of predictions.

    Args:
        row (Comparison): Of depth maps.

    Returns:
        tuple[float, float]: In meters, the second one larger.
    """
    predictions = [*row.predictions.values()]
    for maps in [row.ground_truth], predictions:
        seen = [x[has_depth(x)] for x in maps if x is not None]
        values = np.concatenate(seen) if seen else np.empty(0)
        if len(values):
            low, high = float(values.min()), float(values.max())
            return low, max(high, 1.01 * low)
    return 1.0, 10.0


def depth_colors(low: float, high: float):
    """Make the colors of depths, by their logarithm.

    Args:
        low (float): Nearest depth, in meters; nearer ones look the same.
        high (float): Farthest depth.

    Returns:
        matplotlib.cm.ScalarMappable: For :func:`paint_values`.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    return ScalarMappable(LogNorm(low, high, clip=True), DEPTH_COLORS)


def error_colors():
    """Make the colors of relative errors, the same in every figure."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, MOST_ERROR, clip=True), ERROR_COLORS)


def relative_error(depth: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Relative error of each pixel, |p - t| / t.

    Args:
        depth (np.ndarray): Meters, [H, W].
        true (np.ndarray): Meters, [H, W].

    Returns:
        np.ndarray: float64, [H, W]; NaN where either has no depth.
    """
    both = has_depth(depth) & has_depth(true)
    error = np.full(true.shape, np.nan)
    error[both] = abs(depth[both].astype(float) - true[both]) / true[both]
    return error


def depth_ticks(low: float, high: float) -> dict[float, str]:
    """Labels of a bar of :func:`depth_colors`, by their place in meters."""
    ticks = [low]
    # So far from each other that labels do not overlap.
    room = (high / low) ** 0.1
    for x in (x * 10.0**e for e in range(-3, 4) for x in (1, 2, 5)):
        if ticks[-1] * room < x < high / room:
            ticks.append(x)
    return {
        x: f'{x:.2g} m' if x < 10 else f'{x:.0f} m' for x in (*ticks, high)
    }


def error_ticks() -> dict[float, str]:
    """Labels of a bar of :func:`error_colors`, by their place."""
    half, most = MOST_ERROR / 2, MOST_ERROR
    return {0: '0', half: f'{half:.0%}', most: f'{most:.0%} and more'}


def draw_bar(figure, place, colors, ticks, size):
    """Draw a bar of colors with labels below it.

    Args:
        figure (matplotlib.figure.Figure): To draw in.
        place (tuple[float, float, float, float]): x, y, w and h of the bar,
            as parts of the figure.
        colors (matplotlib.cm.ScalarMappable): What it shows.
        ticks (dict[float, str]): Labels by their place.
        size (float): Of the labels, in points.
    """
    axis = figure.add_axes(place)
    bar = figure.colorbar(
        colors, axis, orientation='horizontal', ticks=[*ticks]
    )
    bar.outline.set(linewidth=0.4, edgecolor='0.5')
    axis.minorticks_off()
    axis.tick_params(labelsize=size, length=2, pad=1)
    axis.set_xticklabels(ticks.values())
    # The outer labels stay within the columns.
    first, *_, last = axis.get_xticklabels()
    first.set_ha('left')
    last.set_ha('right')
