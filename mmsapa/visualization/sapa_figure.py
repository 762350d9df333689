"""A figure of what SAPA does in a model (the paper's supplement, Fig. S4)."""

import math
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from mmengine.visualization.utils import img_from_canvas

from .features import (
    direction_colors,
    entropy,
    mean_offset,
    pca_colors,
    quantile,
    sharpest,
)
from .recorder import Recording, Stage
from .words import choose_fonts, drawable

COLUMNS, MAX_POINTS = 6, 3
_MARK = dict(color='white', fontsize=7, fontweight='bold')


def draw_sapa_figure(
    recording: Recording,
    points: Sequence[tuple[int, int]] = (),
    channel: int | None = None,
):
    """Draw two rows of panels for each recorded stage.

    The first row shows the image, the encoder feature (guide), the decoder
    feature (x), and x upsampled by SAPA, by bilinear and by nearest
    interpolation. The second shows the kernels of three points over the
    image and, of the kernels of all pixels, the top-left weight as in the
    supplement, the entropy, and the mean offset: hue is its direction,
    saturation its length, and arrows show both.

    Args:
        recording (Recording): Of :func:`record`.
        points (Sequence[tuple[int, int]]): Up to three pixels of the image,
            x and y. Default: those with the kernels of least entropy.
        channel (int, optional): Show this channel of all features. Default:
            their principal components as colors, with one basis if encoder
            and decoder feature have the same number of channels.

    Returns:
        matplotlib.figure.Figure: Save it by its ``savefig``.

    Raises:
        ValueError: If nothing was recorded, the channel is missing, or there
            are more than three points or one outside of the image.
    """
    from matplotlib.figure import Figure

    image, stages = recording.image, recording.stages
    if not stages:
        raise ValueError(
            'draw_sapa_figure: expected a recording of a model that has run, '
            'got an empty one.'
        )
    if image is None:
        height, width = max(stage.guide.shape[1:] for stage in stages)
        image = np.full((height, width, 3), 255, np.uint8)
    height, width = image.shape[:2]
    _check(stages, points, channel, width, height)

    panel = 1.75  # inches
    aspect = min(max(height / width, 0.4), 2.0)
    figure = Figure(
        figsize=(
            COLUMNS * panel,
            2 * len(stages) * (panel * aspect + 0.22) + 0.25 * len(stages),
        ),
        dpi=100,
        layout='constrained',
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    blocks = figure.subfigures(len(stages), squeeze=False)[:, 0]
    for block, stage in zip(blocks, stages, strict=True):
        cells = stage.x.shape[1:]
        block.suptitle(
            f'{drawable(stage.name)}: {cells[0]}×{cells[1]} to '
            f'{stage.guide.shape[1]}×{stage.guide.shape[2]}, '
            f'{len(stage.x)} channels',
            fontsize=9,
            x=0.01,
            ha='left',
        )
        axes = block.subplots(2, COLUMNS)
        for axis in axes.flat:
            axis.set_xticks([])
            axis.set_yticks([])
        _draw_features(axes[0], image, stage, channel)
        _draw_kernels(axes, image, stage, points)
    choose_fonts(figure)
    return figure


def to_array(figure) -> np.ndarray:
    """Render a matplotlib figure: RGB, uint8, [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return img_from_canvas(FigureCanvasAgg(figure))


def check_points(points):
    """Raise ValueError if there are more points than a figure shows."""
    if len(points) > MAX_POINTS:
        raise ValueError(
            f'points: expected at most {MAX_POINTS} in a figure, got '
            f'{len(points)}.'
        )


def check_channel(channel, fewest):
    """Raise ValueError if some feature does not have the channel."""
    if channel is not None and not 0 <= channel < fewest:
        raise ValueError(
            f'channel: expected 0 to {fewest - 1}, got {channel}.'
        )


def _check(stages, points, channel, width, height):
    check_points(points)
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f'points: expected x below {width} and y below {height}, got '
                f'{x},{y}.'
            )
    check_channel(
        channel,
        min(len(f) for stage in stages for f in (stage.guide, stage.x)),
    )


def _draw_features(axes, image, stage: Stage, channel):
    size = stage.guide.shape[1:]
    bilinear, nearest = (
        F.interpolate(stage.x[None], size, mode=mode)[0]
        for mode in ('bilinear', 'nearest')
    )
    decoder = [stage.x, stage.out, bilinear, nearest]
    _show(axes[0], image, 'image')
    if channel is None:
        if len(stage.guide) == len(stage.x):
            (guide,), pictures = pca_colors([stage.guide], decoder)
        else:
            ((guide,),) = pca_colors([stage.guide])
            (pictures,) = pca_colors(decoder)
        ranges = [{}] * 5
    else:
        guide, *pictures = (x[channel] for x in (stage.guide, *decoder))
        # The decoder's maps share a range, to be comparable.
        common = dict(
            vmin=min(float(x.min()) for x in pictures),
            vmax=max(float(x.max()) for x in pictures),
        )
        ranges = [{}] + [common] * 4
    titles = (
        'encoder feature',
        'decoder feature',
        'SAPA',
        'bilinear',
        'nearest',
    )
    for axis, picture, title, limits in zip(
        axes[1:], (guide, *pictures), titles, ranges, strict=True
    ):
        _show(axis, picture, title, cmap='viridis', **limits)


def _draw_kernels(axes, image, stage: Stage, points):
    kernels = stage.kernels
    height, width = kernels.shape[1:]
    # Image pixels per pixel of the map: each halving may have rounded up.
    step = tuple(
        2 ** round(math.log2(a / b))
        for a, b in zip(image.shape[1::-1], (width, height))
    )
    if points:
        points = [
            (min(x // step[0], width - 1), min(y // step[1], height - 1))
            for x, y in points
        ]
    else:
        points = sharpest(kernels, stage.scale_factor, MAX_POINTS)
    for number, (axis, (x, y)) in enumerate(zip(axes[1], points), 1):
        _draw_kernel(axis, image, stage, x, y, step, number)
        place = (x + 0.5) * step[0] - 0.5, (y + 0.5) * step[1] - 0.5
        axes[0][0].annotate(
            str(number),
            place,
            ha='center',
            va='center',
            bbox=dict(boxstyle='circle,pad=0.15', fc='black', lw=0),
            **_MARK,
        )
    for axis in axes[1][len(points) : MAX_POINTS]:
        axis.set_axis_off()
    top = float(quantile(kernels[0].flatten(), 0.99))
    _show(axes[1][3], kernels[0], 'top-left weight', 'magma', vmin=0, vmax=top)
    _show(
        axes[1][4], entropy(kernels), 'entropy, 0 to 1', 'viridis', vmin=0,
        vmax=1,
    )  # fmt: skip
    _draw_offsets(axes[1][5], kernels)


def _draw_kernel(axis, image, stage: Stage, x, y, step, number):
    """Draw a kernel over the part of the image that its window covers."""
    k = math.isqrt(len(stage.kernels))
    kernel = stage.kernels[:, y, x].reshape(k, k)
    scale = stage.scale_factor
    cell = step[0] * scale, step[1] * scale
    left = (x // scale - k // 2) * cell[0] - 0.5
    top = (y // scale - k // 2) * cell[1] - 0.5
    window = (left, left + k * cell[0], top + k * cell[1], top)
    peak = float(kernel.max())
    gray = image.mean(2, keepdims=True).repeat(3, 2).astype(np.uint8)
    axis.imshow(gray, interpolation='nearest')
    axis.imshow(
        kernel,
        cmap='inferno',
        # The image shows through where the weights are small.
        alpha=(0.85 * kernel / peak).numpy(),
        extent=window,
        interpolation='nearest',
        vmin=0,
    )
    for i in range(1, k):
        axis.axvline(left + i * cell[0], color='white', lw=0.4, alpha=0.6)
        axis.axhline(top + i * cell[1], color='white', lw=0.4, alpha=0.6)
    axis.plot(
        (x + 0.5) * step[0] - 0.5,
        (y + 0.5) * step[1] - 0.5,
        'o',
        color='white',
        markeredgecolor='black',
        markersize=4,
    )
    axis.set(xlim=window[:2], ylim=window[2:], facecolor='0.85')
    axis.set_title(f'kernel at {number}, up to {peak:.2f}', fontsize=8, pad=2)


def _draw_offsets(axis, kernels):
    offsets = mean_offset(kernels)
    k = math.isqrt(len(kernels))
    longest = k // 2 or 1
    _show(
        axis,
        direction_colors(offsets, longest),
        f'mean offset, up to {longest}',
    )
    every = max(1, max(kernels.shape[1:]) // 12)
    rows, columns = (
        np.arange(every // 2, side, every) for side in kernels.shape[1:]
    )
    sparse = offsets[:, rows][:, :, columns].numpy()
    axis.quiver(
        *np.meshgrid(columns, rows),
        *sparse,
        angles='xy',
        scale_units='xy',
        scale=longest / every,
        width=0.006,
    )


def _show(axis, picture, title, cmap=None, **limits):
    axis.imshow(picture, cmap=cmap, interpolation='nearest', **limits)
    axis.set_title(title, fontsize=8, pad=2)
