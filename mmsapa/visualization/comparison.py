"""Predictions of several models for one image, and where they differ.

Label maps, depth maps, mattes and detections are plain arrays: they may come
from any model of any library, or from files.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmsapa.matting.data_sample import is_unknown

from .zoom_boxes import find_boxes

MATCH_IOU = 0.5


class Detections(NamedTuple):
    """Objects of an image, predicted or annotated.

    Attributes:
        bboxes (np.ndarray): [N, 4], x0, y0, x1, y1 in pixels of the image.
        labels (np.ndarray): [N], indices of classes.
        masks (np.ndarray, optional): bool, [N, H, W].
    """

    bboxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


class Comparison(NamedTuple):
    """One image and the predictions of each model.

    Attributes:
        image (np.ndarray): RGB, uint8, [H, W, 3].
        predictions (Mapping[str, np.ndarray | Detections]): By the name of
            the model: label maps, integers, [H, W]; depth maps, floats, in
            meters, [H, W]; mattes, floats from 0 to 1, [H, W]; or
            detections.
        ground_truth (np.ndarray | Detections, optional): Of the same kind.
            Labels without a color in the palette, such as 255, are not
            counted, nor are depths that are not above 0 and finite.
        boxes (Sequence[tuple], optional): x, y, w, h of the regions to
            enlarge, in pixels. Default: where predictions differ most.
        name (str): Stands above the image.
        trimap (np.ndarray, optional): Of mattes, which need one: uint8,
            [H, W]; 0 is background, 255 is foreground, all between is
            unknown, and counts alone.
    """

    image: np.ndarray
    predictions: Mapping
    ground_truth: np.ndarray | Detections | None = None
    boxes: Sequence[tuple[int, int, int, int]] | None = None
    name: str = ''
    trimap: np.ndarray | None = None

    @property
    def kind(self) -> str:
        """Of the predictions: 'detections', 'labels', 'depth' or 'mattes'."""
        prediction = next(iter(self.predictions.values()), None)
        if isinstance(prediction, Detections):
            return 'detections'
        if self.trimap is not None:
            return 'mattes'
        floats = prediction is not None and prediction.dtype.kind == 'f'
        return 'depth' if floats else 'labels'


def check_rows(
    rows: Sequence[Comparison], num_classes: int, zooms: int
) -> list[Comparison]:
    """Check what a figure shall show, and choose boxes where there are none.

    Args:
        rows (Sequence[Comparison]): Of the same models.
        num_classes (int): Length of the palette.
        zooms (int): How many boxes to choose, at most.

    Returns:
        list[Comparison]: The rows, all with boxes.

    Raises:
        ValueError: If there are no rows, or models, a shape, a type or a box
            of a row does not fit.
    """
    if not rows:
        raise ValueError('draw_comparison: expected one row or more, got 0.')
    for row in rows:
        for fits, message in _expectations(row, rows[0], num_classes):
            if not fits:
                where = f'draw_comparison: {row.name or "a row"}'
                raise ValueError(f'{where}: expected {message}.')
    return [
        row._replace(boxes=_choose_boxes(row, zooms, num_classes))
        if row.boxes is None
        else row
        for row in rows
    ]


def _expectations(row, first, num_classes):
    """Yield what must be true of a row, and the end of a sentence if not."""
    names, expected = ', '.join(row.predictions), ', '.join(first.predictions)
    yield (
        names and names == expected,
        f'predictions of {expected or "a model"}, got {names or "none"}',
    )
    shape = row.image.shape
    yield (
        len(shape) == 3 and shape[2] == 3,
        f'an image [H, W, 3], got {list(shape)}',
    )
    yield (
        row.kind not in ('labels', 'detections') or num_classes,
        'a palette with a color of each class, got none',
    )
    height, width, _ = shape
    maps = {**row.predictions}
    yield (
        (row.trimap is None) == (first.trimap is None),
        'trimaps in all rows or in none, got some',
    )
    if row.trimap is not None:
        size, dtype = list(row.trimap.shape), row.trimap.dtype
        yield (
            size == [height, width] and dtype == np.uint8,
            f'a trimap of uint8 at the size of the image {[height, width]}, '
            f'got {dtype}, {size}',
        )
    if row.ground_truth is not None:
        maps['the ground truth'] = row.ground_truth
    for name, values in maps.items():
        yield (
            isinstance(values, Detections) == (first.kind == 'detections'),
            'label maps or detections, got both; draw them apart',
        )
        if isinstance(values, Detections):
            highest = max(values.labels, default=0)
            yield (
                highest < num_classes,
                f'labels below {num_classes}, the length of the palette, got '
                f'{highest} of {name}',
            )
        else:
            what, numbers, dtypes = {
                'labels': ('label map', 'integers', 'iub'),
                'depth': ('depth map', 'floats', 'f'),
                'mattes': ('matte', 'floats', 'f'),
            }[first.kind]
            yield (
                values.shape == (height, width),
                f'the {what} of {name} at the size of the image '
                f'{[height, width]}, got {list(values.shape)}',
            )
            yield (
                values.dtype.kind in dtypes,
                f'{numbers} in the {what} of {name}, got {values.dtype}',
            )
            if first.kind == 'mattes':
                # NaN is not, either.
                yield (
                    ((values >= 0) & (values <= 1)).all(),
                    f'numbers from 0 to 1 in the matte of {name}, got '
                    f'{values.min()} to {values.max()}',
                )
    for x, y, w, h in row.boxes or ():
        yield (
            0 <= x <= width - w < width and 0 <= y <= height - h < height,
            f'boxes x,y,w,h within {width} x {height} pixels, got '
            f'{x},{y},{w},{h}',
        )


def disagreement(row: Comparison, num_classes: int) -> np.ndarray:
    """Weigh every pixel by how many pairs of predictions differ there.

    A single prediction is compared with the ground truth. Two depths weigh
    the difference of their logarithms, two mattes that of alpha. Each
    detection without a partner in the other prediction adds a weight of one,
    spread over its box, so that large boxes count no more than small ones.

    Args:
        row (Comparison): Image and predictions.
        num_classes (int): Number of classes; pixels whose ground truth is
            none of them, or no depth, weigh nothing, and of mattes those that
            the trimap knows.

    Returns:
        np.ndarray: float64, [H, W].
    """
    height, width = row.image.shape[:2]
    weights = np.zeros((height, width))
    maps = [*row.predictions.values()]
    if len(maps) == 1 and row.ground_truth is not None:
        maps.append(row.ground_truth)
    for a, b in itertools.combinations(maps, 2):
        if row.kind == 'depth':
            both = has_depth(a) & has_depth(b)
            weights[both] += np.abs(np.log(a[both] / b[both]))
            continue
        if row.kind == 'mattes':
            weights += np.abs(a - b)
            continue
        if row.kind == 'labels':
            weights += a != b
            continue
        partners, free = match_detections(a, b)
        for x0, y0, x1, y1 in [
            *a.bboxes[partners < 0].tolist(),
            *b.bboxes[free].tolist(),
        ]:
            left, top = (max(0, int(v)) for v in (x0, y0))
            part = weights[top : int(y1) + 1, left : int(x1) + 1]
            part += 1 / max(1, part.size)
    if row.kind == 'mattes':
        weights[~is_unknown(row.trimap)] = 0
    elif isinstance(row.ground_truth, np.ndarray):
        if row.kind == 'depth':
            counted = has_depth(row.ground_truth)
        else:
            counted = is_class(row.ground_truth, num_classes)
        weights[~counted] = 0
    return weights


def _choose_boxes(row, count, num_classes):
    """Find boxes to enlarge: for detections larger ones."""
    height, width = row.image.shape[:2]
    side = None
    if row.kind == 'detections':
        # An object is seen whole, the edge of a region need not be.
        side = max(8, round((height * width) ** 0.5 / 2.5))
    return find_boxes(disagreement(row, num_classes), count, side)


def is_class(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Whether labels are those of classes, and not such as 255.

    Args:
        labels (np.ndarray): Integers, of any shape.
        num_classes (int): Number of classes.

    Returns:
        np.ndarray: Bool, of the same shape.
    """
    return (labels >= 0) & (labels < num_classes)


def has_depth(depth: np.ndarray) -> np.ndarray:
    """Whether pixels of a depth map have a value: above 0 and finite.

    Args:
        depth (np.ndarray): Meters, of any shape.

    Returns:
        np.ndarray: Bool, of the same shape.
    """
    return (depth > 0) & (depth < np.inf)


def image_iou(
    prediction: np.ndarray, ground_truth: np.ndarray, num_classes: int
) -> float:
    """Mean IoU of one image, as MMSegmentation's IoUMetric has it.

    Args:
        prediction (np.ndarray): Labels, [H, W].
        ground_truth (np.ndarray): Labels, [H, W]; those that are no class
            are not counted.
        num_classes (int): Number of classes.

    Returns:
        float: In percent, the mean over the classes in either map; NaN
        where no pixel counts.
    """
    counted = is_class(ground_truth, num_classes)
    a, b = prediction[counted], ground_truth[counted]
    both, there = (
        np.bincount(labels, minlength=num_classes) for labels in (a[a == b], b)
    )
    # A prediction may be no class too, and is wrong then.
    found = np.bincount(a[is_class(a, num_classes)], minlength=num_classes)
    either = found + there - both
    ious = both[either > 0] / either[either > 0]
    return float(100 * ious.mean()) if len(ious) else float('nan')


def match_detections(
    a: Detections, b: Detections, iou: float = MATCH_IOU
) -> tuple[np.ndarray, np.ndarray]:
    """Pair detections of the same class, those with the highest IoU first.

    Args:
        a (Detections): N of them.
        b (Detections): M of them.
        iou (float): Least IoU of the boxes of a pair. Default: 0.5.

    Returns:
        tuple[np.ndarray, np.ndarray]: int, [N], indices into ``b`` or -1;
        bool, [M], which of ``b`` have no partner.
    """
    partners = np.full(len(a.bboxes), -1)
    free = np.ones(len(b.bboxes), bool)
    low = np.maximum(a.bboxes[:, None, :2], b.bboxes[None, :, :2])
    high = np.minimum(a.bboxes[:, None, 2:], b.bboxes[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    areas = [(d.bboxes[:, 2:] - d.bboxes[:, :2]).prod(-1) for d in (a, b)]
    union = areas[0][:, None] + areas[1][None] - inter
    ious = inter / np.maximum(union, 1e-9)
    ious[a.labels[:, None] != b.labels[None]] = -1
    for place in np.argsort(-ious, axis=None, kind='stable'):
        i, j = np.unravel_index(place, ious.shape)
        if ious[i, j] < iou:
            break
        if partners[i] < 0 and free[j]:
            partners[i], free[j] = j, False
    return partners, free
