"""Scenes for the demo, written as ADE20K and as COCO lie on the disk.

A scene holds overlapping shapes on a textured ground. What a shape is, its
outline alone tells: colours and textures are drawn independently of the
class. Many parts are thin (rings, crosses, spirals, bars), so a prediction
is only as good as its boundaries.
"""

import json
import os
import os.path as osp
import re
import shutil
from functools import partial
from typing import NamedTuple

import cv2
import mmengine
import numpy as np
from mmengine.utils import track_progress_rich
from pycocotools import mask as coco_mask

CLASSES = ('disc', 'ring', 'triangle', 'cross', 'star', 'bar', 'spiral')
# Okabe and Ito's colours, which colour-blind people can tell apart.
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
FORMATS = ('ade', 'coco')
# What the demo's configs are made for: how many, and their sides in pixels.
NUM_TRAIN, NUM_VAL = 1500, 100
SIZES = dict(ade=128, coco=96)
MANIFEST = 'demo_data.json'
# Raised whenever the same arguments give other bytes than before.
VERSION = 1

_NAMES = dict(
    ade=r'ADEChallengeData2016/(images|annotations)/(training|validation)/'
    r'ADE_(train|val)_\d{8}\.(jpg|png)',
    coco=r'(train2017|val2017)/\d{12}\.jpg|'
    r'annotations/instances_(train2017|val2017)\.json',
)
_SUPERSAMPLING = 4
# A shape never hides more than this of one below it, so that what is left
# can be recognised.
_MIN_VISIBLE = 0.45
_OTHER = len(CLASSES)


class Scene(NamedTuple):
    """One picture and its truth.

    Attributes:
        image (np.ndarray): BGR, uint8, [H, W, 3].
        instances (np.ndarray): uint8, [H, W]; 0 is the ground, i + 1 the
            visible part of shape i.
        labels (list[int]): Index into ``CLASSES`` of each shape, or
            ``len(CLASSES)`` for a blob that is of no class.
    """

    image: np.ndarray
    instances: np.ndarray
    labels: list

    def semantic(self):
        """Labels as ADE20K stores them, uint8, [H, W]."""
        table = [GROUND]
        for label in self.labels:
            table.append(0 if label == _OTHER else GROUND + 1 + label)
        return np.array(table, np.uint8)[self.instances]


def make_scene(seed, size=128):
    """Draw one scene.

    Args:
        seed (np.random.SeedSequence | int): Decides everything about it.
        size (int): Side of the square image in pixels. Defaults to 128.

    Returns:
        Scene: Image and truth. A pixel belongs to the shape that is seen in
        the largest part of it, and its colour is the mean over that pixel.
    """
    rng = np.random.default_rng(seed)
    canvas = np.zeros((size * _SUPERSAMPLING,) * 2, np.uint8)
    labels, areas = [], [0]
    for _ in range(rng.integers(5, 9)):
        for _ in range(8):
            # One shape in sixteen or so is a blob of no class.
            label = int(rng.integers(2 * len(CLASSES) + 1)) // 2
            trial = canvas.copy()
            _draw_shape(rng, trial, label, len(labels) + 1)
            bins = len(labels) + 2
            # Much faster than bincount, which widens the canvas first.
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
        colour = rng.uniform(10, 245, 3)
        while np.linalg.norm(colour - ground) < 90:
            colour = rng.uniform(10, 245, 3)
        image += part[..., None] * _texture(rng, size, colour)
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
    centre = rng.uniform(0.6 * radius, side - 0.6 * radius, 2)
    stroke = side * rng.uniform(0.032, 0.052)
    name = CLASSES[label] if label < _OTHER else 'blob'
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
        # Its arms lie close together; thick ones would merge.
        line, closed = min(stroke, radius * 0.22), False
    else:
        wobble = rng.normal(0, 0.3, (6, 1)).repeat(8, 0)
        wobble = cv2.blur(np.tile(wobble, (3, 1)), (1, 9))[48:96]
        points = radius * 0.9 * (1 + wobble) * _circle(48)
    if rng.random() < 0.5:
        points = points * [1, -1]
    squash = [1, rng.uniform(0.78, 1)]
    points = (points * squash) @ _rotation(rng.uniform(0, 2 * np.pi)) + centre
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


def _texture(rng, size, colour):
    """Waves, checks, spots or clouds around a colour, [size, size, 3]."""
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
        + colour.astype(np.float32)
    )


def make_dataset(
    out,
    layout,
    num_train=NUM_TRAIN,
    num_val=NUM_VAL,
    size=None,
    seed=0,
    nproc=None,
):
    """Write a demo data set, unless it lies there already.

    The bytes depend on ``num_*``, ``size`` and ``seed`` alone: every image
    has a seed of its own, whichever process draws it. The folder appears
    under its name only when all of it is written.

    Args:
        out (str): Folder that gets a subfolder ``layout``.
        layout (str): 'ade' or 'coco'.
        num_train (int): Number of training images. Defaults to 1500.
        num_val (int): Number of validation images. Defaults to 100.
        size (int, optional): Side of the images. Defaults to what the demo's
            configs take: 128 in 'ade', 96 in 'coco'.
        seed (int): Seed. Defaults to 0.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        bool: Whether something was written.

    Raises:
        ValueError: The layout is unknown or a number is not positive.
        FileExistsError: The folder holds something that was not made here,
            or was changed since.
    """
    if layout not in FORMATS:
        raise ValueError(f'layout must be one of {FORMATS}, got {layout!r}')
    if size is None:
        size = SIZES[layout]
    if min(num_train, num_val, size) < 1:
        raise ValueError(
            'num_train, num_val and size must be positive, got '
            f'{num_train}, {num_val} and {size}'
        )
    manifest = dict(
        version=VERSION,
        layout=layout,
        num_train=num_train,
        num_val=num_val,
        size=size,
        seed=seed,
    )
    target = osp.join(out, layout)
    if osp.exists(target):
        if _read_manifest(target) == manifest:
            return False
        foreign = _foreign_file(target, layout)
        if foreign:
            raise FileExistsError(
                f'{target} holds other scenes, and {foreign} was not made '
                'here, or changed since; move it, or name another folder'
            )
    partial_dir = osp.join(out, f'.{layout}.partial')
    shutil.rmtree(partial_dir, ignore_errors=True)
    write = _write_ade if layout == 'ade' else _write_coco
    nproc = nproc or min(os.cpu_count() or 1, 8)
    for split, count in enumerate((num_train, num_val)):
        write(partial_dir, split, count, size, seed, nproc)
    mmengine.dump(manifest, osp.join(partial_dir, MANIFEST))
    if osp.exists(target):
        shutil.rmtree(target)
    os.rename(partial_dir, target)
    return True


def _read_manifest(folder):
    try:
        return mmengine.load(osp.join(folder, MANIFEST))
    except (OSError, ValueError):
        return None


def _foreign_file(folder, layout):
    """Find a file that would be lost if the folder was drawn anew."""
    manifest = osp.join(folder, MANIFEST)
    if osp.islink(folder) or not osp.isfile(manifest):
        return folder
    # The manifest is written last.
    made = os.stat(manifest).st_mtime_ns
    for parent, folders, names in os.walk(folder):
        links = [
            name for name in folders if osp.islink(osp.join(parent, name))
        ]
        for name in names + links:
            path = osp.join(parent, name)
            inside = osp.relpath(path, folder).replace(os.sep, '/')
            ours = inside == MANIFEST or re.fullmatch(_NAMES[layout], inside)
            if not ours or os.lstat(path).st_mtime_ns > made:
                return path
    return None


def _map(function, split, count, nproc):
    return track_progress_rich(
        function,
        range(1, count + 1),
        nproc=nproc,
        chunksize=8,
        description=('training images', 'validation images')[split],
    )


def _scene_of(split, number, size, seed):
    key = (split, number)
    return make_scene(np.random.SeedSequence(seed, spawn_key=key), size)


def _write_image(path, image, *params):
    # imwrite reports failure by its result alone.
    if not cv2.imwrite(path, image, params):
        raise OSError(f'cannot write {path}')


def _write_ade(root, split, count, size, seed, nproc):
    folder = ('training', 'validation')[split]
    name = ('ADE_train_{:08d}', 'ADE_val_{:08d}')[split]
    base = osp.join(root, 'ADEChallengeData2016')
    images = osp.join(base, 'images', folder)
    annotations = osp.join(base, 'annotations', folder)
    for path in (images, annotations):
        mmengine.mkdir_or_exist(path)
    _map(
        partial(
            _write_ade_image,
            image_path=osp.join(images, name + '.jpg'),
            label_path=osp.join(annotations, name + '.png'),
            split=split,
            size=size,
            seed=seed,
        ),
        split,
        count,
        nproc,
    )


def _write_ade_image(number, image_path, label_path, split, size, seed):
    scene = _scene_of(split, number, size, seed)
    _write_image(
        image_path.format(number), scene.image, cv2.IMWRITE_JPEG_QUALITY, 95
    )
    _write_image(label_path.format(number), scene.semantic())


def _write_coco(root, split, count, size, seed, nproc):
    name = ('train2017', 'val2017')[split]
    images = osp.join(root, name)
    mmengine.mkdir_or_exist(images)
    mmengine.mkdir_or_exist(osp.join(root, 'annotations'))
    found = _map(
        partial(
            _write_coco_image,
            image_path=osp.join(images, '{:012d}.jpg'),
            split=split,
            size=size,
            seed=seed,
        ),
        split,
        count,
        nproc,
    )
    annotations = [item for items in found for item in items]
    for i, item in enumerate(annotations, 1):
        item['id'] = i
    content = dict(
        info=dict(description='mmsapa demo scenes', version=str(VERSION)),
        licenses=[],
        images=[
            dict(
                id=number,
                file_name=f'{number:012d}.jpg',
                height=size,
                width=size,
            )
            for number in range(1, count + 1)
        ],
        annotations=annotations,
        categories=[
            dict(id=i, name=label, supercategory='shape')
            for i, label in enumerate(CLASSES, 1)
        ],
    )
    path = osp.join(root, 'annotations', f'instances_{name}.json')
    with open(path, 'w') as file:
        json.dump(content, file)


def _write_coco_image(number, image_path, split, size, seed):
    scene = _scene_of(split, number, size, seed)
    _write_image(
        image_path.format(number), scene.image, cv2.IMWRITE_JPEG_QUALITY, 95
    )
    items = []
    for i, label in enumerate(scene.labels, 1):
        mask = scene.instances == i
        if label == _OTHER or not mask.any():
            continue
        # Run lengths, because polygons know no holes.
        rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        items.append(
            dict(
                image_id=number,
                category_id=label + 1,
                segmentation=dict(
                    size=rle['size'], counts=rle['counts'].decode()
                ),
                area=int(mask.sum()),
                bbox=coco_mask.toBbox(rle).tolist(),
                iscrowd=0,
            )
        )
    return items
