"""Images to predict on, and files for the figures of them."""

import argparse
import itertools
from pathlib import Path
from typing import NamedTuple

import cv2
import mmcv
import numpy as np

from mmsapa.datasets.processes import make_folder
from mmsapa.engine.checkpoint import shorten
from mmsapa.engine.config import ConfigError
from mmsapa.visualization import Detections

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


class ImageError(ConfigError):
    """An image cannot be used; the message says why."""


class Item(NamedTuple):
    """An image to predict on.

    Attributes:
        name (str): Stands above its picture, and is the name of its file.
        info (dict): Input of a pipeline: ``img_path``, and for test data
            the other fields of the data set, such as ``trimap_path``;
            ``leaf`` is the number of the innermost data set.
        ground_truth (np.ndarray | Detections, optional): Labels, depth or
            alpha [H, W], or objects.
        backend_args (dict, optional): Of mmengine's file backend.
        in_folder (bool): It was found in a folder, where files that are no
            images are skipped.
        lacking (str): Why test data has no ground truth.
    """

    name: str
    info: dict
    ground_truth: np.ndarray | Detections | None = None
    backend_args: dict | None = None
    in_folder: bool = False
    lacking: str = ''

    @property
    def path(self) -> str:
        """Path or address of the file."""
        return self.info['img_path']


def find_images(paths):
    """List images and those in folders.

    Args:
        paths (Iterable[str | Path]): Files and folders.

    Returns:
        tuple[list[Item], list[str]]: Images; their names are relative to
        their folder, without suffix, and numbered if taken. Then a sentence
        for each hidden file in the folders: macOS writes a ``._x.jpg``, no
        image, beside an ``x.jpg``.

    Raises:
        ImageError: If a path does not exist, or a folder has no image.
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
                raise ImageError(
                    f'There is no image ({" ".join(IMAGES)}) in {path}.'
                )
            for file in files:
                inside = file.relative_to(path)
                if any(part.startswith('.') for part in inside.parts):
                    hidden.append(f'{file} is hidden.')
                else:
                    add(inside.with_suffix('').as_posix(), file, True)
        elif path.is_file():
            add(path.stem, path, False)
        else:
            raise ImageError(f'There is no image or folder {path}.')
    return items, hidden


def find_file(item, folder, what, suffixes=('.png',)):
    """Find what belongs to an image, by its name.

    Args:
        item (Item): The image.
        folder (str | Path): Where to look.
        what (str): Is looked for, such as 'trimap'.
        suffixes (Sequence[str]): That the file may have.

    Returns:
        str: Path of the file of the same name, or else of that of the
        image's file without the folders it is in.

    Raises:
        ImageError: If there is none.
    """
    names = item.name, Path(item.path).stem
    places = [
        Path(folder) / (name + suffix) for name in names for suffix in suffixes
    ]
    for place in places:
        if place.is_file():
            return str(place)
    raise ImageError(f'There is no {what} {places[0]} for {item.path}.')


def free_name(name, taken):
    """Take a name, numbered if it is taken already.

    Args:
        name (str): Any.
        taken (set[str]): Names in use; the new one is added.

    Returns:
        str: The name, or ``name_2`` and so on.
    """
    others = (f'{name}_{i}' for i in itertools.count(2))
    free = next(x for x in itertools.chain([name], others) if x not in taken)
    taken.add(free)
    return free


def read_image(item):
    """Read an image as OpenMMLab's pipelines do, but as RGB.

    Args:
        item (Item): Of :func:`find_images` or of the test data.

    Returns:
        np.ndarray: uint8, [H, W, 3].

    Raises:
        ImageError: If it cannot be read.
    """
    try:
        image = mmcv.imread(item.path, backend_args=item.backend_args)
    except (OSError, cv2.error) as error:
        raise ImageError(
            f'{item.path}: expected an image, got what cannot be read: '
            f'{shorten(error)}'
        ) from error
    if image is None:
        raise ImageError(
            f'{item.path}: expected an image, got what OpenCV cannot read.'
        )
    return image[..., ::-1]


def color_or_image(text):
    """Parse the argument ``--background`` for argparse.

    Args:
        text (str): Color as matplotlib has it, such as 'green' or '#00ff00',
            or an image.

    Returns:
        np.ndarray: RGB, uint8, [3] or [H, W, 3].
    """
    from matplotlib.colors import is_color_like, to_rgb

    if Path(text).is_file():
        try:
            return read_image(Item(text, dict(img_path=text)))
        except ImageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    if not is_color_like(text):
        raise argparse.ArgumentTypeError(
            f'expected a color such as green, or an image, got {text}.'
        )
    return np.array([round(255 * part) for part in to_rgb(text)], np.uint8)


def report(written, skipped):
    """List the pictures that were written, and the images skipped.

    Args:
        written (Sequence[Path]): Pictures.
        skipped (Sequence[str]): A sentence for each image.

    Returns:
        str: Lines to print.

    Raises:
        ImageError: If images were skipped and nothing was written.
    """
    lines = [f'{x}  {x.stat().st_size / 1000:.0f} kB' for x in written]
    if skipped:
        words = [f'Skipped ({len(skipped)}):', *skipped]
        lines.append('\n  '.join(words))
        if not written:
            raise ImageError(f'There is nothing to draw. {lines[0]}')
    return '\n'.join(lines)


def png_or_folder(text):
    """Parse the argument ``--out``, FILE.png or a folder, for argparse."""
    path = Path(text)
    if path.suffix.lower() in {*IMAGES, '.pdf', '.svg'} - {'.png'}:
        raise argparse.ArgumentTypeError(
            f'expected FILE.png or a folder, got {text}.'
        )
    return path


def is_png(path):
    """Whether :func:`png_or_folder` names a file."""
    return path.suffix.lower() == '.png'


def save(figure, path):
    """Save a figure as PNG.

    Args:
        figure (matplotlib.figure.Figure): Any.
        path (Path): File; its folder is made.

    Raises:
        ConfigError: If the file cannot be written.
    """
    make_folder(path.parent)
    try:
        figure.savefig(path, pil_kwargs=dict(optimize=True))
    except OSError as error:
        raise ConfigError(f'{path} cannot be written: {error}.') from error
