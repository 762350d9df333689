"""Images to look at, and pictures of them, for tools of the command line."""

import argparse
import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import mmcv
import numpy as np

from mmsapa.engine.checkpoint import shorten
from mmsapa.visualization import Detections

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


class Item(NamedTuple):
    """An image to look at.

    Attributes:
        name (str): Stands above its picture, and names a file of it.
        info (dict): What a pipeline starts from: ``img_path``, and what the
            test data say; ``leaf`` is the number of the innermost data set.
        truth (np.ndarray | Detections, optional): Labels [H, W], or objects.
        backend_args (dict, optional): Of mmengine's file backend.
        in_folder (bool): It was found there: what is no image is left out,
            where one that was named ends the run.
    """

    name: str
    info: dict
    truth: np.ndarray | Detections | None = None
    backend_args: dict | None = None
    in_folder: bool = False

    @property
    def path(self) -> str:
        """Path or address of the file."""
        return self.info['img_path']


class Unusable(ValueError):
    """Says in a sentence why an image is of no use."""


def find_images(paths):
    """List images and those in folders.

    Returns:
        tuple[list[Item], list[str]]: Images; their names are relative to
        their folder and without suffix, and numbered where that is taken.
        Then hidden files in the folders, which are left out: macOS writes a
        ``._x.jpg``, no image, beside an ``x.jpg``.
    """
    names, items, hidden = set(), [], []

    def add(name, path, in_folder):
        info = dict(img_path=str(path), img_id=0)
        items.append(Item(free_name(name, names), info, in_folder=in_folder))

    for path in map(Path, paths):
        if path.is_dir():
            files = [
                file
                for file in sorted(path.rglob('*'))
                if file.suffix.lower() in IMAGES and not file.is_dir()
            ]
            if not files:
                sys.exit(f'There is no image ({" ".join(IMAGES)}) in {path}.')
            for file in files:
                inside = file.relative_to(path)
                if any(part.startswith('.') for part in inside.parts):
                    hidden.append(f'{file} is hidden.')
                else:
                    add(inside.with_suffix('').as_posix(), file, True)
        elif path.is_file():
            add(path.stem, path, False)
        else:
            sys.exit(f'There is no image or folder {path}.')
    return items, hidden


def free_name(name, taken):
    """Take a name, numbered if it is taken already."""
    others = (f'{name}_{i}' for i in itertools.count(2))
    free = next(x for x in itertools.chain([name], others) if x not in taken)
    taken.add(free)
    return free


def read_image(item):
    """Read an image as OpenMMLab's pipelines do, but as RGB.

    Returns:
        np.ndarray: uint8, [H, W, 3].

    Raises:
        Unusable: If it cannot be read.
    """
    try:
        image = mmcv.imread(item.path, backend_args=item.backend_args)
    except (OSError, cv2.error) as error:
        raise Unusable(
            f'{item.path}: expected an image, got what cannot be read: '
            f'{shorten(error)}'
        ) from error
    if image is None:
        raise Unusable(
            f'{item.path}: expected an image, got what OpenCV cannot read.'
        )
    return image[..., ::-1]


def leave_out(item, error, skipped):
    """Note why an image of a folder is left out; others end the run."""
    if not item.in_folder:
        sys.exit(str(error))
    skipped.append(str(error))


def tell(written, skipped):
    """Name the pictures that were written, and what was left out.

    Where there is no picture, that is an error.
    """
    for path in written:
        print(f'{path}  {path.stat().st_size / 1000:.0f} kB')
    if skipped:
        words = '\n  '.join([f'Left out ({len(skipped)}):', *skipped])
        if not written:
            sys.exit(f'There is nothing to draw. {words}')
        print(words)


def sheet_or_folder(text):
    """Take ``--out``: FILE.png, or a folder."""
    path = Path(text)
    if path.suffix.lower() in {*IMAGES, '.pdf', '.svg'} - {'.png'}:
        raise argparse.ArgumentTypeError(
            f'expected FILE.png or a folder, got {text}.'
        )
    return path


def make_folder(path):
    """Make a folder for what is drawn, before there is any work."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f'--out: expected a folder, got {path}: {error}.')


def save(figure, path):
    """Save a figure as PNG."""
    make_folder(path.parent)
    try:
        figure.savefig(path, pil_kwargs=dict(optimize=True))
    except OSError as error:
        sys.exit(f'{path} cannot be written: {error}.')
