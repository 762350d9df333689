"""Demo data sets: scenes in the layouts of the real ones."""

import json
import os
import os.path as osp
import re
import shutil
from functools import partial

import cv2
import mmcv
import mmengine
import numpy as np
from pycocotools import mask as coco_mask

from mmsapa.datasets.depth_scenes import make_depth_scene
from mmsapa.datasets.matting_scenes import make_background, make_foreground
from mmsapa.datasets.matting_transforms import make_trimap
from mmsapa.datasets.processes import map_in_processes
from mmsapa.datasets.scenes import CLASSES, OTHER, make_scene

FORMATS = ('ade', 'coco', 'nyu', 'comp1k')
# What the demo's configs are made for: numbers of images, and their sides in
# pixels.
NUM_TRAIN, NUM_VAL = 1500, 100
SIZES = dict(ade=128, coco=96, nyu=128, comp1k=128)
MANIFEST = 'demo_data.json'
# Raised whenever the same arguments give other bytes than before.
VERSION = 1

_NAMES = dict(
    ade=r'ADEChallengeData2016/(images|annotations)/(training|validation)/'
    r'ADE_(train|val)_\d{8}\.(jpg|png)',
    coco=r'(train2017|val2017)/\d{12}\.jpg|'
    r'annotations/instances_(train2017|val2017)\.json',
    nyu=r'nyudepthv2_(train|test)_files_with_gt\.txt|'
    r'(sync/room_0001|official_splits/test/room)/'
    r'(rgb_\d{5}\.jpg|sync_depth_\d{5}\.png)',
    comp1k=r'Training_set/Other/(fg|alpha)/\d{5}\.(jpg|png)|'
    r'train2014/\d{5}\.jpg|'
    r'Test_set/(alpha/\d{5}|(merged|trimaps)/\d{5}_\d)\.png',
)
_QUALITY = cv2.IMWRITE_JPEG_QUALITY, 95
_NYU_PAIR = 'rgb_{:05d}.jpg', 'sync_depth_{:05d}.png'
# Backgrounds for each test foreground; in Composition-1K there are 20.
_GROUNDS = 4


def make_dataset(
    out,
    layout,
    num_train=NUM_TRAIN,
    num_val=NUM_VAL,
    size=None,
    seed=0,
    nproc=None,
):
    """Write a demo data set, unless it exists already.

    The bytes depend on ``num_*``, ``size`` and ``seed`` alone: every image
    has its own seed, whichever process draws it. The folder gets its name
    only when it is complete.

    Args:
        out (str): Folder that gets a subfolder ``layout``.
        layout (str): 'ade', 'coco', 'nyu' or 'comp1k'.
        num_train (int): Number of training images. Defaults to 1500.
        num_val (int): Number of validation images. Defaults to 100.
        size (int, optional): Side of the images in pixels. Defaults to that
            of the demo's configs: 96 in 'coco', 128 in the others.
        seed (int): Seed. Defaults to 0.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        bool: Whether something was written.

    Raises:
        ValueError: The layout is unknown or a number is not positive.
        FileExistsError: The folder has a file that this function did not
            write, or that was changed since.
        OSError: A file cannot be written.
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
    write = dict(
        ade=_write_ade,
        coco=_write_coco,
        nyu=_write_nyu,
        comp1k=_write_comp1k,
    )[layout]
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
    """Find a user's file that would be lost if the folder was rewritten."""
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
    """Call a function with the numbers of all images, in processes."""
    description = ('training images', 'validation images')[split]
    numbers = range(1, count + 1)
    return map_in_processes(function, numbers, description, nproc)


def _scene_of(split, number, size, seed, make=make_scene):
    key = (split, number)
    return make(np.random.SeedSequence(seed, spawn_key=key), size)


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
    mmcv.imwrite(scene.image, image_path.format(number), _QUALITY)
    mmcv.imwrite(scene.semantic(), label_path.format(number))


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
    mmcv.imwrite(scene.image, image_path.format(number), _QUALITY)
    items = []
    for i, label in enumerate(scene.labels, 1):
        mask = scene.instances == i
        if label == OTHER or not mask.any():
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


def _write_nyu(root, split, count, size, seed, nproc):
    scene = ('room_0001', 'room')[split]
    folder = osp.join(root, ('sync', 'official_splits/test')[split], scene)
    mmengine.mkdir_or_exist(folder)
    _map(
        partial(
            _write_nyu_pair, folder=folder, split=split, size=size, seed=seed
        ),
        split,
        count,
        nproc,
    )
    # In BTS's lists, paths of the training alone begin with a slash. The
    # focal length is that of the scenes' camera.
    path = ('/', '')[split] + scene
    name = f'nyudepthv2_{("train", "test")[split]}_files_with_gt.txt'
    with open(osp.join(root, name), 'w') as file:
        for number in range(1, count + 1):
            image, depth = (f'{path}/{x.format(number)}' for x in _NYU_PAIR)
            file.write(f'{image} {depth} {size:.4f}\n')


def _write_nyu_pair(number, folder, split, size, seed):
    scene = _scene_of(split, number, size, seed, make_depth_scene)
    image, depth = (osp.join(folder, x.format(number)) for x in _NYU_PAIR)
    mmcv.imwrite(scene.image, image, _QUALITY)
    mmcv.imwrite(scene.millimeters(), depth)


def _write_comp1k(root, split, count, size, seed, nproc):
    folders = (
        ('Training_set/Other/fg', 'Training_set/Other/alpha', 'train2014'),
        ('Test_set/merged', 'Test_set/alpha', 'Test_set/trimaps'),
    )[split]
    folders = [osp.join(root, folder) for folder in folders]
    for folder in folders:
        mmengine.mkdir_or_exist(folder)
    write = (_write_comp1k_pair, _write_comp1k_composite)[split]
    _map(
        partial(write, folders=folders, size=size, seed=seed),
        split,
        count,
        nproc,
    )


def _write_comp1k_pair(number, folders, size, seed):
    fg = _scene_of(0, number, size, seed, make_foreground)
    bg = _scene_of(2, number, size, seed, make_background)
    fg_path, alpha_path, bg_path = (
        osp.join(folder, f'{number:05d}') for folder in folders
    )
    mmcv.imwrite(fg.color, fg_path + '.jpg', _QUALITY)
    mmcv.imwrite(fg.alpha, alpha_path + '.png')
    mmcv.imwrite(bg, bg_path + '.jpg', _QUALITY)


def _write_comp1k_composite(number, folders, size, seed):
    foreground, ground = divmod(number - 1, _GROUNDS)
    fg = _scene_of(1, foreground + 1, size, seed, make_foreground)
    bg = _scene_of(3, number, size, seed, make_background)
    alpha = fg.alpha[..., None] / 255
    composite = (alpha * fg.color + (1 - alpha) * bg).astype(np.uint8)
    # Trimaps of one foreground differ.
    erosions = np.random.default_rng((seed, number)).integers(3, 12, 2)
    trimap = make_trimap(alpha[..., 0], *erosions.tolist())
    merged_path, alpha_path, trimap_path = (
        osp.join(folder, f'{foreground + 1:05d}') for folder in folders
    )
    if ground == 0:
        mmcv.imwrite(fg.alpha, f'{alpha_path}.png')
    mmcv.imwrite(composite, f'{merged_path}_{ground}.png')
    mmcv.imwrite(trimap, f'{trimap_path}_{ground}.png')
