"""SUN RGB-D, from the layouts that users have on disk.

Only color images and labels of 37 classes are used.
"""

import functools
import glob
import os.path as osp
import re
from importlib.util import find_spec

import numpy as np
import scipy.io

from mmsapa.datasets.pairs_converter import (
    Pair,
    convert_pairs,
    files_by_stem,
    pair_by_name,
    read_labels,
)
from mmsapa.engine.config import ConfigError

# In Handa's archive of labels the test images come first: the label of
# training image n has the number n + TEST_IMAGES.
TEST_IMAGES = 5050
CLASSES = 37
LISTS = (
    ('{}_rgb.txt', '{}_label.txt'),  # ESANet's
    ('img_dir_{}.txt', 'label_{}.txt'),  # RedNet's
)
SEG_MAT = 'SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat'
META_MAT = 'SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat'
SPLIT_MAT = 'SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat'


def convert_sunrgbd(root: str, out: str, nproc: int | None = None) -> dict:
    """Convert SUN RGB-D, or what of it is not converted yet.

    What ``root`` holds tells which layout it is:

    - Handa's extraction (ankurhanda/sunrgbd-meta-data):
      ``SUNRGBD-train_images`` and ``SUNRGBD-test_images``, and beside or
      below them the labels ``img-000001.png`` to ``img-010335.png``. Image n
      of the training belongs to label n + 5050.
    - The lists that ESANet and RedNet write, ``train_rgb.txt`` and
      ``train_label.txt``, or ``img_dir_train.txt`` and ``label_train.txt``,
      and the same for the test, with a label in each line that belongs to
      the image in the same line.
    - That of RGB-D toolkits such as DFormer and CMX: ``RGB``, ``labels``,
      ``train.txt`` and ``test.txt``.
    - The data set as it is downloaded: ``SUNRGBD`` and ``SUNRGBDtoolbox``.
      Its labels are read by h5py.

    Args:
        root (str): Folder.
        out (str): Folder to write, as
            :func:`mmsapa.datasets.pairs_converter.convert_pairs` has it.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        dict[str, int]: Number of pairs of each split.

    Raises:
        ConfigError: If no layout is found, a file is missing or cannot be
            read, or an image and its labels do not belong together.
    """
    pairs = find_pairs(root)
    return convert_pairs(pairs, out, read, CLASSES, True, nproc=nproc)


def find_pairs(root: str) -> list[Pair]:
    """Find what belongs together.

    Args:
        root (str): As in :func:`convert_sunrgbd`.

    Returns:
        list[Pair]: Of both splits.

    Raises:
        ConfigError: As in :func:`convert_sunrgbd`.
    """

    def there(*names):
        return all(osp.exists(osp.join(root, name)) for name in names)

    if there('SUNRGBD-train_images', 'SUNRGBD-test_images'):
        return _handa(root)
    for names in LISTS:
        files = [x.format(s) for s in ('train', 'test') for x in names]
        if there(*files):
            return _lists(root, names)
    for folder in root, osp.join(root, 'SUNRGBD'):
        if all(
            osp.exists(osp.join(folder, name))
            for name in ('RGB', 'labels', 'train.txt', 'test.txt')
        ):
            return _toolkits(folder)
    if there('SUNRGBD', SEG_MAT, META_MAT, SPLIT_MAT):
        return _toolbox(root)
    raise ConfigError(
        f"{root}: expected SUN RGB-D, which is Handa's SUNRGBD-train_images "
        'and SUNRGBD-test_images with the labels img-000001.png and so on; '
        'or train_rgb.txt, train_label.txt and the same of the test; or RGB, '
        'labels, train.txt and test.txt; or SUNRGBD and SUNRGBDtoolbox; got '
        'none of them; name the folder that holds them.'
    )


def read(label: str) -> np.ndarray:
    """Read the labels of a pair.

    Args:
        label (str): A file, or the toolbox's with ``#`` and an index.

    Returns:
        ndarray: [H, W], 0 for none.
    """
    path, _, index = label.rpartition('#')
    if not path.endswith('.mat'):
        return read_labels(label)
    file = _open_labels(path)
    maps = file['SUNRGBD2Dseg']['seglabel']
    # MATLAB's order of rows and columns is the other way round.
    return file[maps[int(index)][0]][:].T


def _handa(root):
    labels = {
        int(match[1]): path
        for pattern in ('img-*.png', '*/img-*.png')
        for path in sorted(glob.glob(osp.join(glob.escape(root), pattern)))
        if (match := re.fullmatch(r'img-(\d+)\.png', osp.basename(path)))
    }
    pairs, missing = [], []
    for split, offset in (('train', TEST_IMAGES), ('test', 0)):
        images = files_by_stem(osp.join(root, f'SUNRGBD-{split}_images'))
        for stem, path in images.items():
            match = re.fullmatch(r'img-(\d+)', stem)
            number = int(match[1]) + offset if match else None
            if number not in labels:
                missing.append((path, number))
            else:
                pairs.append(Pair(split, stem, path, labels[number]))
    if missing:
        path, number = missing[0]
        name = f'img-{number:06}.png' if number else 'a number in its name'
        raise ConfigError(
            f'{path}: expected {name} with its labels under {root}, got none, '
            f'as {len(missing)} of {len(missing) + len(pairs)} are missing; '
            'the label of training image n has the number n + '
            f'{TEST_IMAGES}: unpack the archive of labels there.'
        )
    return pairs


def _lists(root, names):
    pairs = []
    for split in 'train', 'test':
        images, labels = (
            _lines(osp.join(root, name.format(split))) for name in names
        )
        if len(images) != len(labels):
            raise ConfigError(
                f'{osp.join(root, names[1].format(split))}: expected a label '
                f'for each of {len(images)} images of '
                f'{names[0].format(split)}, got {len(labels)}; take both '
                'lists of one conversion.'
            )
        for image, label in zip(images, labels):
            # Some lists start at SUNRGBD, and some below it.
            image, label = (_under(root, path) for path in (image, label))
            pairs.append(Pair(split, _name(image, root), image, label))
    return pairs


def _toolkits(root):
    pairs = []
    for split in 'train', 'test':
        path = osp.join(root, f'{split}.txt')
        found = {
            pair.name: pair
            for pair in pair_by_name(
                split, osp.join(root, 'RGB'), osp.join(root, 'labels')
            )
        }
        # A line is RGB/NAME.jpg, perhaps with labels/NAME.png after it.
        for line in _lines(path):
            stem = osp.splitext(osp.basename(line.split()[0]))[0]
            if stem not in found:
                raise ConfigError(
                    f'{path}: expected names of images in {root}/RGB, got '
                    f'{line[:120]!r}; take the list of this data set.'
                )
            pairs.append(found[stem])
    return pairs


def _toolbox(root):
    load = functools.partial(
        scipy.io.loadmat, squeeze_me=True, struct_as_record=False
    )
    if find_spec('h5py') is None:
        raise ConfigError(
            f'{osp.join(root, SEG_MAT)}: expected h5py to read it, which is '
            'not installed; install it, or take an extraction of the labels.'
        )
    training = {
        _below(path)
        for path in np.atleast_1d(load(osp.join(root, SPLIT_MAT))['alltrain'])
    }
    pairs = []
    metas = np.atleast_1d(load(osp.join(root, META_MAT))['SUNRGBDMeta'])
    for index, meta in enumerate(metas):
        scene = _below(osp.dirname(osp.dirname(meta.rgbpath)))
        split = 'train' if scene in training else 'test'
        image = osp.join(root, 'SUNRGBD', scene, 'image', meta.rgbname)
        label = f'{osp.join(root, SEG_MAT)}#{index}'
        pairs.append(Pair(split, _name(image, root), image, label))
    return pairs


@functools.lru_cache(1)  # opened by each process, which reads from it
def _open_labels(path):
    import h5py

    return h5py.File(path, 'r')


def _below(path):
    """The part of a path on the authors' disk below SUNRGBD."""
    return path.rpartition('/SUNRGBD/')[2].rstrip('/')


def _under(root, path):
    for place in path, osp.join(root, path), osp.join(root, 'SUNRGBD', path):
        if osp.exists(place):
            return place
    raise ConfigError(
        f'{osp.join(root, path)}: expected a file, as a list in {root} names '
        'it, got none; unpack the data set there, with its folder SUNRGBD.'
    )


def _name(image, root):
    """A name of its own for each image; file names are not."""
    parts = osp.relpath(image, root).split('/')
    return '-'.join(
        osp.splitext(part)[0] if part == parts[-1] else part
        for part in parts
        if part not in ('..', 'SUNRGBD', 'image')
    )


def _lines(path):
    with open(path, encoding='utf-8-sig', errors='replace') as file:
        return [line.strip() for line in file if line.strip()]
