"""Scenes of overlapping shapes, drawn with their ground truth.

The class of a shape is told by its outline alone: colors and textures are
drawn independently of it. Many parts are thin (rings, crosses, spirals, bars),
so a prediction is only as good as its boundaries.
"""

from typing import NamedTuple

import cv2
import numpy as np

CLASSES = ('disc', 'ring', 'triangle', 'cross', 'star', 'bar', 'spiral')
# Okabe and Ito's colors, which color-blind people can tell apart.
PALETTE = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
    (204, 121, 167),
)
# Semantic labels as ADE20K stores them: 0 is 'other', which training and
# evaluation leave out; the ground is a class like any other.
GROUND = 1
# The label of blobs, which are of no class.
OTHER = len(CLASSES)

_SUPERSAMPLING = 4
# A shape never hides more than this of one below it, so that the rest can be
# recognized.
_MIN_VISIBLE = 0.45


class Scene(NamedTuple):
    """One picture and its ground truth.

    Attributes:
        image (np.ndarray): BGR, uint8, [H, W, 3].
        instances (np.ndarray): uint8, [H, W]; 0 is the ground, i + 1 the
            visible part of shape i.
        labels (list[int]): Index into ``CLASSES`` of each shape, or
            ``OTHER`` for a blob.
    """

    image: np.ndarray
    instances: np.ndarray
    labels: list

    def semantic(self):
        """Return labels as ADE20K stores them, uint8, [H, W]."""
        table = [GROUND]
        for label in self.labels:
            table.append(0 if label == OTHER else GROUND + 1 + label)
        return np.array(table, np.uint8)[self.instances]


def make_scene(seed, size=128):
    """Draw one scene.

    Args:
        seed (np.random.SeedSequence | int): Determines the scene.
        size (int): Side of the square image in pixels. Defaults to 128.

    Returns:
        Scene: Image and ground truth. A pixel belongs to the shape that
        covers most of it, and its color is the mean over its area.
    """
    rng = np.random.default_rng(seed)
    canvas = np.zeros((size * _SUPERSAMPLING,) * 2, np.uint8)
    labels, areas = [], [0]
    for _ in range(rng.integers(5, 9)):
        for _ in range(8):
            # One shape in fifteen is a blob of no class.
            label = int(rng.integers(2 * len(CLASSES) + 1)) // 2
            trial = canvas.copy()
            _draw_shape(rng, trial, label, len(labels) + 1)
            bins = len(labels) + 2
            # Faster than bincount, which widens the canvas first.
            counts = cv2.calcHist([trial], [0], None, [bins], [0, bins])
            counts = counts.ravel()
            if np.all(counts[1:-1] >= _MIN_VISIBLE * np.array(areas[1:])):
                canvas = trial
                labels.append(label)
                areas.append(counts[-1])
                break

    coverage = np.stack(
        [
            cv2.resize(
                (canvas == i).astype(np.float32),
                (size, size),
                interpolation=cv2.INTER_AREA,
            )
            for i in range(len(labels) + 1)
        ]
    )
    ground = rng.uniform(40, 215, 3)
    image = coverage[0, ..., None] * _texture(rng, size, ground)
    for part in coverage[1:]:
        color = rng.uniform(10, 245, 3)
        while np.linalg.norm(color - ground) < 90:
            color = rng.uniform(10, 245, 3)
        image += part[..., None] * _texture(rng, size, color)
    image += 3 * rng.standard_normal(image.shape, np.float32)
    return Scene(
        np.clip(image, 0, 255).astype(np.uint8),
        coverage.argmax(0).astype(np.uint8),
        labels,
    )


def _draw_shape(rng, canvas, label, value):
    """Draw a shape somewhere on the supersampled canvas."""
    side = canvas.shape[0]
    radius = side * rng.uniform(0.15, 0.27)
    center = rng.uniform(0.6 * radius, side - 0.6 * radius, 2)
    stroke = side * rng.uniform(0.032, 0.052)
    draw_at(rng, canvas, label, value, center, radius, stroke)


def draw_at(rng, canvas, label, value, center, radius, stroke):
    """Draw a shape, turned and mirrored at random, at a place.

    Args:
        rng (np.random.Generator): Source of randomness.
        canvas (np.ndarray): uint8, [H, W]; gets the shape.
        label (int): Index into ``CLASSES``, or ``OTHER`` for a blob.
        value (int): Value of its pixels.
        center (np.ndarray): x and y in pixels.
        radius (float): Of the shape in pixels, about.
        stroke (float): Width of its thin parts in pixels.
    """
    name = CLASSES[label] if label < OTHER else 'blob'
    line = None  # or the width of a line along the points
    closed = True
    if name == 'disc':
        points = radius * 0.8 * _circle(48)
    elif name == 'ring':
        points, line = radius * 0.85 * _circle(48), stroke
    elif name == 'triangle':
        points = radius * _circle(3)
    elif name == 'cross':
        # Quarter of an outline, turned four times.
        arm = 0.62 * stroke
        corner = np.array([[arm, arm], [radius, arm], [radius, -arm]])
        turns = [corner @ _rotation(-k * np.pi / 2) for k in range(4)]
        points = np.concatenate(turns)
    elif name == 'star':
        points = radius * 1.05 * _circle(10)
        points[1::2] *= rng.uniform(0.32, 0.45)
    elif name == 'bar':
        points = np.array([[-radius * 1.3, 0.0], [radius * 1.3, 0.0]])
        line, closed = stroke, False
    elif name == 'spiral':
        turn = np.linspace(0.12, 1, 64)[:, None]
        angle = turn * 2 * np.pi * rng.uniform(1.7, 2)
        points = np.concatenate([np.cos(angle), np.sin(angle)], 1)
        points *= radius * 1.1 * turn
        # Its arms are close together; thick ones would merge.
        line, closed = min(stroke, radius * 0.22), False
    else:
        wobble = rng.normal(0, 0.3, (6, 1)).repeat(8, 0)
        wobble = cv2.blur(np.tile(wobble, (3, 1)), (1, 9))[48:96]
        points = radius * 0.9 * (1 + wobble) * _circle(48)
    if rng.random() < 0.5:
        points = points * [1, -1]
    squash = [1, rng.uniform(0.78, 1)]
    points = (points * squash) @ _rotation(rng.uniform(0, 2 * np.pi)) + center
    points = points.round().astype(np.int32)
    if line is None:
        cv2.fillPoly(canvas, [points], value)
    else:
        cv2.polylines(canvas, [points], closed, value, max(1, round(line)))


def _circle(count):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _rotation(angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _texture(rng, size, color):
    """Waves, checks, spots or clouds around a color, [size, size, 3]."""
    x = np.arange(size, dtype=np.float32)
    y = x[:, None]
    angle = rng.uniform(0, 2 * np.pi)
    period = rng.uniform(5, 14)
    cos, sin = (
        np.float32(f(angle) * 2 * np.pi / period) for f in (np.cos, np.sin)
    )
    kind = rng.integers(4)
    if kind < 3:
        waves = np.sin(cos * x + sin * y)
        if kind > 0:
            across = np.sin(cos * y - sin * x)
            if kind == 1:
                waves = np.clip(3 * waves * across, -1, 1)
            else:
                waves = np.maximum(waves + across - 0.6, 0) - 0.3
    else:
        cells = rng.normal(0, 0.6, (max(2, int(size / period)),) * 2)
        waves = cv2.resize(
            cells.astype(np.float32),
            (size, size),
            interpolation=cv2.INTER_CUBIC,
        )
    # Light falls from one side.
    right, down = (np.float32(v / size) for v in rng.uniform(-20, 20, 2))
    return (
        waves[..., None] * rng.normal(0, 20, 3).astype(np.float32)
        + (x * right + y * down)[..., None]
        + color.astype(np.float32)
    )
