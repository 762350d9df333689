"""Maps of a comparison: predictions, differences, and their legends."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .comparison import (
    Comparison,
    disagreement,
    has_depth,
    image_iou,
    is_class,
    match_detections,
)
from .depth_maps import error_colors, relative_error
from .matte_maps import alpha_error, gray, sad

# Differences: the color-blind can tell them apart, and so can a black and
# white print; none is the color of a class of the demo's scenes.
SAME, WRONG, BETTER, WORSE = '#FFFFFF', '#D4D4D4', '#1A85FF', '#8B0A3D'
NOT_COUNTED = '#C8C8C8'
DASHES = (0, (2, 1.2))
# Zoom boxes have no color, for classes may have any: line, halo, dashes.
BOX_STYLES = (
    ('white', 'black', '-'),
    ('black', 'white', DASHES),
    ('black', 'white', '-'),
    ('white', 'black', (0, (0.8, 1.2))),
)
LEGEND = dict(
    loc='lower center',
    frameon=False,
    borderpad=0,
    borderaxespad=0,
    columnspacing=1.4,
    handlelength=1.4,
    handletextpad=0.5,
)
MAX_CLASSES = 16  # of a legend


class Mark(NamedTuple):
    """A rectangle on a map; x0, y0, x1, y1 in pixels."""

    box: tuple
    color: str | tuple
    line: str | tuple = '-'


class Map(NamedTuple):
    """An image, RGB, uint8, [H, W, 3], and rectangles on it."""

    pixels: np.ndarray
    marks: Sequence[Mark] = ()


def paint(row: Comparison, values, palette) -> Map:
    """Paint a label map, a depth map, a matte, or detections over an image.

    Args:
        row (Comparison): Image and kind of the values.
        values (np.ndarray | Detections): Labels, depths or alpha [H, W], or
            detections.
        palette (np.ndarray | ScalarMappable): RGB of each class, uint8; of
            depths, the colors.

    Returns:
        Map: What to draw; mattes are gray, and images below detections pale.
    """
    if row.kind == 'mattes':
        return Map(gray(values))
    if row.kind == 'depth':
        return Map(paint_values(values, has_depth(values), palette))
    if row.kind == 'labels':
        return Map(paint_labels(values, palette))
    pixels = (row.image * 0.5 + 127).astype(np.uint8)
    colors = palette[values.labels]
    if values.masks is not None:
        for mask, color in zip(np.asarray(values.masks, bool), colors):
            pixels[mask] = pixels[mask] * 0.4 + color * 0.6
    return Map(pixels, list(map(Mark, values.bboxes.tolist(), colors / 255)))


def score(row: Comparison, prediction, num_classes) -> tuple[float, str]:
    """How good a prediction of a row is, as a number and in words."""
    ground_truth = row.ground_truth
    if row.kind == 'mattes':
        error = sad(prediction, ground_truth, row.trimap)
        return -error, f'SAD {error:.3f}'
    if row.kind == 'depth':
        # As DepthMetric has it: what was predicted badly counts as near 0.
        clipped = np.nan_to_num(prediction).clip(1e-3)
        errors = relative_error(clipped, ground_truth)
        errors = errors[~np.isnan(errors)]
        if not errors.size:
            return float('nan'), 'nothing counted'
        return -errors.mean(), f'AbsRel {errors.mean():.3f}'
    if row.kind == 'labels':
        value = image_iou(prediction, ground_truth, num_classes)
        known = not np.isnan(value)
        return value, f'mIoU {value:.1f}' if known else 'nothing counted'
    partners, free = match_detections(prediction, ground_truth)
    found, false = (partners >= 0).sum(), (partners < 0).sum()
    count = len(partners) + len(free)
    value = 2 * found / count if count else 1.0
    return value, f'{found} of {len(free)} found, {false} false'


def paint_disagreement(row: Comparison, num_classes) -> Map:
    """Paint pixels darker the more pairs of predictions differ there."""
    pairs = len(row.predictions) * (len(row.predictions) - 1) / 2
    share = disagreement(row, num_classes) / pairs
    return Map(np.uint8(255 * (1 - share))[..., None].repeat(3, -1))


def paint_difference(row: Comparison, prediction, baseline, classes) -> Map:
    """Paint where a prediction is right and wrong compared with another.

    Without ground truth, where it differs from that. Of depths, the relative
    error, or without ground truth the relative difference; of mattes, the
    absolute one of alpha where it is unknown.

    Args:
        row (Comparison): Image and ground truth.
        prediction (np.ndarray | Detections): One of its predictions.
        baseline (np.ndarray | Detections): The one to compare with.
        classes (int): Number of classes.

    Returns:
        Map: What to draw.
    """
    target = baseline if row.ground_truth is None else row.ground_truth
    if row.kind == 'mattes':
        errors = alpha_error(prediction, target, row.trimap)
        return Map(paint_values(errors, errors >= 0, error_colors()))
    if row.kind == 'depth':
        errors = relative_error(prediction, target)
        return Map(paint_values(errors, ~np.isnan(errors), error_colors()))
    if row.kind == 'detections':
        partners, free = match_detections(prediction, target)
        marks = [
            Mark(box, WORSE if partner < 0 else BETTER)
            for box, partner in zip(prediction.bboxes.tolist(), partners)
        ]
        for box in target.bboxes[free].tolist():
            marks.append(Mark(box, 'black', DASHES))
        gray = row.image.mean(-1, keepdims=True).repeat(3, -1)
        return Map((gray * 0.35 + 165).astype(np.uint8), marks)
    right, was = prediction == target, baseline == target
    if row.ground_truth is None:
        codes = np.where(right, 0, 2)
    else:
        codes = np.select([right & was, right, was], [0, 2, 3], 1)
        codes[~is_class(target, classes)] = 4
    colors = [rgb(color) for color in (SAME, WRONG, BETTER, WORSE)]
    return Map(paint_labels(codes, colors))


def paint_labels(labels, palette) -> np.ndarray:
    """Give every label its color, and gray stripes to what has none.

    Args:
        labels (np.ndarray): Integers, [H, W].
        palette (Sequence[Sequence[int]]): RGB of each label, 0 to 255.

    Returns:
        np.ndarray: RGB, uint8, [H, W, 3].
    """
    palette = np.asarray(palette, np.uint8)
    counted = is_class(labels, len(palette))
    return _striped(palette[np.where(counted, labels, 0)], counted)


def paint_values(values, counted, colors) -> np.ndarray:
    """Give numbers their colors, and gray stripes to what does not count.

    Args:
        values (np.ndarray): [H, W].
        counted (np.ndarray): Bool, [H, W].
        colors (matplotlib.cm.ScalarMappable): Of the numbers.

    Returns:
        np.ndarray: RGB, uint8, [H, W, 3].
    """
    values = np.where(counted, values, colors.norm.vmax)
    return _striped(colors.to_rgba(values, bytes=True)[..., :3], counted)


def _striped(pixels, counted):
    y, x = np.indices(counted.shape)
    period = max(4, round(max(counted.shape) / 24))
    stripes = (x + y) % period < max(1, period // 4)
    gray = np.where(stripes[..., None], 255, rgb(NOT_COUNTED))
    return np.where(counted[..., None], pixels, gray).astype(np.uint8)


def class_handles(rows, palette, classes):
    """Legend of the classes that are seen; of many, the largest ones.

    Depth maps have no classes, but pixels without depth; mattes have neither.

    Args:
        rows (Sequence[Comparison]): What is shown.
        palette (np.ndarray): RGB of each class, uint8.
        classes (list[str] | None): Names.

    Returns:
        list[Patch]: In the order of the labels, and last what is not counted.
    """
    areas = np.zeros(len(palette))
    not_counted = no_depth = False
    for row in rows:
        for values in (*row.predictions.values(), row.ground_truth):
            if row.kind == 'mattes':
                continue
            if values is not None and row.kind == 'depth':
                no_depth |= not has_depth(values).all()
            elif values is not None:
                labels = getattr(values, 'labels', values)
                counted = is_class(labels, len(palette))
                not_counted |= not counted.all()
                areas += np.bincount(labels[counted], None, len(palette))
    seen = np.argsort(-areas, kind='stable')[: (areas > 0).sum()]
    handles = []
    if classes is not None:
        shown = sorted(seen[:MAX_CLASSES])
        handles = [_patch(palette[i] / 255, classes[i]) for i in shown]
        if len(seen) > MAX_CLASSES:
            more = f'and {len(seen) - MAX_CLASSES} more'
            handles.append(_patch('none', more, edgecolor='none'))
    if not_counted:
        handles.append(_striped_patch('not counted'))
    if no_depth:
        handles.append(_striped_patch('no depth'))
    return handles


def difference_handles(names, known, detects, where_any_differ):
    """Legend of the differences.

    Args:
        names (list[str]): Of the models.
        known (bool): There is ground truth.
        detects (bool): The models are detectors.
        where_any_differ (bool): :func:`paint_disagreement` is shown, too.

    Returns:
        list[Artist]: In the order of their importance.
    """
    from matplotlib.lines import Line2D

    first, *others = names
    if detects:
        words = f'in {first} too', f'not in {first}', f'in {first} alone'
        if known:
            words = 'found', 'false', 'missed'
        styles = (BETTER, '-'), (WORSE, '-'), ('black', DASHES)
        return [
            Line2D([], [], color=c, linestyle=s, linewidth=1.4, label=word)
            for (c, s), word in zip(styles, words)
        ]
    words = {SAME: f'as {first}', BETTER: f'differs from {first}'}
    if known:
        words = {SAME: 'right', WRONG: 'wrong'}
    if known and others:
        words[WRONG] += f' as {first}'
        words[BETTER] = f'right where {first} is wrong'
        words[WORSE] = f'wrong where {first} is right'
    if where_any_differ:
        words['black'] = 'models differ'
    return [_patch(color, word) for color, word in words.items()]


def _striped_patch(label):
    style = dict(edgecolor='white', hatch='//////', linewidth=0)
    return _patch(NOT_COUNTED, label, **style)


def _patch(color, label, **style):
    from matplotlib.patches import Patch

    style = dict(edgecolor='0.5', linewidth=0.4) | style
    return Patch(facecolor=color, label=label, **style)


def rgb(color) -> tuple[int, int, int]:
    """Red, green and blue of a matplotlib color, 0 to 255."""
    from matplotlib.colors import to_rgb

    return tuple(round(255 * part) for part in to_rgb(color))


def corners(values, part=0.2):
    """Of a coordinate along a closed outline, that near its corners."""
    steps = part * np.diff(values)
    gap = np.full(4, np.nan)
    pieces = values[:-1], values[:-1] + steps, gap, values[1:] - steps
    return np.append(np.stack(pieces, 1).ravel(), values[-1])


def outlined(linewidth, halo, wider):
    """Style of a line over a wider one, solid even if the line is dashed."""
    from matplotlib.patheffects import withStroke

    solid = dict(dash_offset=0, dash_list=None)
    outline = withStroke(
        linewidth=linewidth + wider, foreground=halo, dashes=solid
    )
    return dict(linewidth=linewidth, path_effects=[outline])


def contrast(color):
    """Black for light colors, white for dark ones."""
    light = np.dot(rgb(color), (0.3, 0.6, 0.1)) > 0.35 * 255
    return 'black' if light else 'white'
