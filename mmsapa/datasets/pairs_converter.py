"""Pairs of image and label map, checked and written in one layout.

What the converters of SUN RGB-D, CamVid and Weizmann horses share.
"""

import json
import os
import os.path as osp
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmsapa.datasets.processes import (
    complete_file,
    make_folder,
    map_in_processes,
    write_once,
)
from mmsapa.engine.config import ConfigError

# Those of the data sets that read what is written, and others.
KEPT = ('.jpg', '.jpeg', '.png')
IMAGES = (*KEPT, '.bmp', '.ppm')
WEIGHTS = 'class_weights.json'


class Pair(NamedTuple):
    """An image and its label map.

    Attributes:
        split (str): 'train', 'val' or 'test'.
        name (str): What both are called, without suffix.
        image (str): File.
        label (str): What the reader of label maps takes, usually a file.
    """

    split: str
    name: str
    image: str
    label: str


def convert_pairs(
    pairs: Sequence[Pair],
    out: str,
    read: Callable[[str], np.ndarray],
    num_classes: int,
    reduce_zero_label: bool = False,
    resize: bool = False,
    nproc: int | None = None,
) -> dict[str, int]:
    """Write pairs in the layout of MMSegmentation, or what is not there yet.

    Every pair is read and checked. ``out`` gets ``images/SPLIT/NAME``, a
    JPEG file as it is, and otherwise a PNG file,
    ``annotations/SPLIT/NAME.png``, and in the end
    ``class_weights.json`` with the weights of
    :func:`median_frequency_weights` in the training split, for
    :class:`mmsapa.seg.BalancedCrossEntropyLoss`. A file gets its name only
    when it is complete, and is not made again.

    Args:
        pairs (Sequence[Pair]): In any order.
        out (str): Folder to write.
        read (Callable): Takes ``label`` of a pair and returns the labels to
            write, uint8, [H, W]; it can be pickled.
        num_classes (int): Number of classes.
        reduce_zero_label (bool): Whether label 0 is none and 1 the first
            class; otherwise 255 is none. Default: False.
        resize (bool): Whether an image of another size is resized to that of
            its label map. Default: False.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        dict[str, int]: Number of pairs of each split.

    Raises:
        ConfigError: If a file cannot be read, an image and its label map
            differ in size, or a label is none of the classes.
        UserError: If the folders cannot be made.
    """
    splits = Counter(pair.split for pair in pairs)
    for split in splits:
        for kind in 'images', 'annotations':
            make_folder(osp.join(out, kind, split))
    work = partial(
        _convert,
        out=out,
        read=read,
        num_classes=num_classes,
        reduce_zero_label=reduce_zero_label,
        resize=resize,
    )
    counts = map_in_processes(work, pairs, 'pairs', nproc)
    training = [c for pair, c in zip(pairs, counts) if pair.split == 'train']
    if training:
        weights = median_frequency_weights(np.array(training))
        with complete_file(osp.join(out, WEIGHTS)) as file:
            json.dump([round(float(w), 6) for w in weights], file)
    return dict(splits)


def median_frequency_weights(counts: np.ndarray) -> np.ndarray:
    """Compute SegNet's weights of classes.

    The frequency of a class is the number of its pixels over that of all
    pixels of the images that have it; its weight is the median of the
    frequencies over its own (https://arxiv.org/abs/1511.00561, section 4).

    Args:
        counts (ndarray): [images, classes + 1], pixels of each class, and of
            none.

    Returns:
        ndarray: float64, [classes]; 0 for a class that no image has.
    """
    pixels = counts[:, :-1].sum(0)
    there = (counts[:, :-1] > 0) * counts.sum(1, keepdims=True)
    frequencies = pixels / np.maximum(there.sum(0), 1)
    found = pixels > 0
    weights = np.zeros(len(pixels))
    if found.any():
        weights[found] = np.median(frequencies[found]) / frequencies[found]
    return weights


def read_labels(path: str) -> np.ndarray:
    """Read a label map, as it is stored.

    Args:
        path (str): Image of one channel, whose pixels are labels or indices
            of a palette, or a ``.npy`` file.

    Returns:
        ndarray: [H, W].

    Raises:
        ConfigError: If it cannot be read, or has several channels.
    """
    try:
        labels = np.load(path) if path.endswith('.npy') else _pixels(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'{path}: expected a label map, got what cannot be read: {error}'
        ) from error
    if labels.ndim != 2:
        raise ConfigError(
            f'{path}: expected a label map of one channel, whose pixels are '
            f'class numbers, got an array of shape {list(labels.shape)}.'
        )
    return labels


def files_by_stem(folder: str, suffixes: Sequence[str] = IMAGES) -> dict:
    """List the files of a folder by their names without suffix.

    Args:
        folder (str): Folder.
        suffixes (Sequence[str]): What the names end in, lower-case.

    Returns:
        dict[str, str]: Files by stem, in order of name.

    Raises:
        ConfigError: If there is no such folder, nothing in it, or two files
            of one stem.
    """
    names = sorted(os.listdir(folder)) if osp.isdir(folder) else []
    files = {}
    for name in names:
        stem, suffix = osp.splitext(name)
        if suffix.lower() not in suffixes or name[0] == '.':
            continue
        path = osp.join(folder, name)
        if stem in files:
            raise ConfigError(
                f'{path}: expected one file of this name, got '
                f'{osp.basename(files[stem])} too; take one of them away.'
            )
        files[stem] = path
    if not files:
        raise ConfigError(
            f'{folder}: expected a folder of files {" ".join(suffixes)}, got '
            'none; unpack the data set there, or name its folder.'
        )
    return files


def pair_by_name(split: str, images: str, labels: str) -> list[Pair]:
    """Pair the files of two folders by their names.

    Args:
        split (str): Of the pairs.
        images (str): Folder.
        labels (str): Folder.

    Returns:
        list[Pair]: In order of name.

    Raises:
        ConfigError: If an image has no label map.
    """
    files, maps = files_by_stem(images), files_by_stem(labels)
    missing = [stem for stem in files if stem not in maps]
    if missing:
        raise ConfigError(
            f'{files[missing[0]]}: expected a label map of the same name in '
            f'{labels}, got none, as {len(missing)} of {len(files)} are '
            'missing; unpack the data set again.'
        )
    return [
        Pair(split, stem, path, maps[stem]) for stem, path in files.items()
    ]


def _convert(pair, out, read, num_classes, reduce_zero_label, resize):
    """Write a pair; return the pixels of each class, and of none."""
    labels = read(pair.label)
    first = int(reduce_zero_label)
    none = 0 if reduce_zero_label else 255
    wrong = (labels != none) & (
        (labels < first) | (labels >= first + num_classes)
    )
    if wrong.any():
        raise ConfigError(
            f'{pair.label}: expected labels from {first} to '
            f'{first + num_classes - 1}, and {none} for none, got '
            f'{labels[wrong][0]}; take the label maps of this data set.'
        )
    image = _open(pair.image)
    size = image.size[::-1]
    differs = size != labels.shape
    if differs and (not resize or not _alike(size, labels.shape)):
        raise ConfigError(
            f'{pair.label}: expected a label map of the size of '
            f'{pair.image}, {size[1]} x {size[0]}, got '
            f'{labels.shape[1]} x {labels.shape[0]}; they do not '
            'belong together.'
        )
    suffix = osp.splitext(pair.image)[1].lower()
    as_it_is = suffix in KEPT and not differs
    path = osp.join(out, 'images', pair.split, pair.name)
    if as_it_is:
        write_once(partial(shutil.copyfile, pair.image), path + suffix)
    else:
        if differs:
            image = image.resize(labels.shape[::-1], Image.BICUBIC)
        write_once(partial(image.save, format='PNG'), path + '.png')
    path = osp.join(out, 'annotations', pair.split, pair.name + '.png')
    image = Image.fromarray(labels.astype(np.uint8, order='C'))
    write_once(partial(image.save, format='PNG'), path)
    classes = labels[labels != none].astype(int) - first
    counts = np.bincount(classes, minlength=num_classes)
    return np.append(counts, labels.size - classes.size)


def _open(path):
    try:
        with Image.open(path) as image:
            return image.convert('RGB')
    except OSError as error:
        raise ConfigError(
            f'{path}: expected an image, got what cannot be read: {error}'
        ) from error


def _alike(size, other):
    """Whether two sizes have one shape, but for the last few pixels."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) < 0.1


def _pixels(path):
    with Image.open(path) as image:
        # Those of 1 bit are read as bool.
        return np.asarray(image.convert('L') if image.mode == '1' else image)
