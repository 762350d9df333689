"""A small data set of photographs: the 27 of alphamatting.com with mattes."""

import os
import os.path as osp
import shutil
from functools import partial

import cv2
import mmcv
import numpy as np
from scipy.ndimage import distance_transform_edt

from mmsapa.datasets.matting_loading import check_size, read_colors, read_gray
from mmsapa.datasets.matting_scenes import make_background, make_foreground
from mmsapa.datasets.processes import map_in_processes
from mmsapa.engine.config import ConfigError

# Photographs to test with; the other 20 are for training.
TEST = (4, 8, 12, 16, 20, 24, 27)
# Scenes of the demo that are added to the training.
DRAWN = 60
_NAMES = [f'GT{number:02d}' for number in range(1, 28)]
PHOTOGRAPHS, SCENES = 'Training_set/photographs', 'Training_set/drawn'
BACKGROUNDS, TESTED = 'backgrounds', 'Test_set'


def convert(root, out, side=400, nproc=None):
    """Make a data set in Composition-1K's layout, unless it is there.

    The photographs of TEST are tested as they are, with their trimaps. The
    others give foregrounds and backgrounds to train with. Where a pixel is
    not opaque, the color of its foreground is that of the nearest opaque
    pixel; behind the object, the background is filled in from around it.
    Foregrounds and grounds of the demo are drawn beside them::

        Training_set/{photographs,drawn}/{fg,alpha}
        backgrounds
        Test_set/{merged,alpha,trimaps}

    Args:
        root (str): Folder with ``images``, ``alpha`` and ``trimap``, each of
            which has GT01.png to GT27.png.
        out (str): Folder to write.
        side (int): Longer side in pixels, to which photographs are reduced.
            Default: 400.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        bool: Whether something was written.

    Raises:
        ConfigError: If a file is missing or does not fit, ``side`` is tiny,
            or ``out`` exists and is something else.
    """
    if osp.exists(out):
        if not osp.isdir(osp.join(out, PHOTOGRAPHS)):
            raise ConfigError(
                f'{out}: expected a new folder, or one that was converted, '
                f'got one without {PHOTOGRAPHS}; name another.'
            )
        return False
    if side < 16:
        raise ConfigError(
            f'--side: expected at least 16 pixels, got {side}; 400 is usual.'
        )
    files = [
        [osp.join(root, kind, f'{name}.png') for name in _NAMES]
        for kind in ('images', 'alpha', 'trimap')
    ]
    missing = [x for kind in files for x in kind if not osp.isfile(x)]
    if missing:
        raise ConfigError(
            f'{missing[0]}: expected a file, got none, as {len(missing)} of '
            f'{3 * len(_NAMES)} are missing; unpack images, mattes and '
            'trimaps of alphamatting.com there.'
        )
    unfinished = f'{osp.normpath(out)}.partial'
    shutil.rmtree(unfinished, ignore_errors=True)
    write = partial(_write_photograph, out=unfinished, side=side)
    tasks = list(zip(range(1, 28), *files, strict=True))
    map_in_processes(write, tasks, 'photographs', nproc)
    draw = partial(_write_drawn, out=unfinished, side=side)
    map_in_processes(draw, range(DRAWN), 'drawn scenes', nproc)
    os.rename(unfinished, out)
    return True


def _write_photograph(task, out, side):
    number, *paths = task
    image, alpha, trimap = read_colors(paths[0]), *map(read_gray, paths[1:])
    for path, pixels in zip(paths[1:], (alpha, trimap), strict=True):
        check_size(path, pixels, image.shape[:2], paths[0])
    # On averaging, what is partly unknown becomes neither 0 nor 255.
    image, alpha, trimap = (_reduce(x, side) for x in (image, alpha, trimap))
    if number in TEST:
        files = {
            f'{TESTED}/merged': image,
            f'{TESTED}/alpha': alpha,
            f'{TESTED}/trimaps': trimap,
        }
    else:
        behind = (alpha > 0).astype(np.uint8)
        files = {
            # Opaque but for a twentieth, since few pixels are quite.
            f'{PHOTOGRAPHS}/fg': image[_nearest(alpha > 242)],
            f'{PHOTOGRAPHS}/alpha': alpha,
            BACKGROUNDS: cv2.inpaint(image, behind, 3, cv2.INPAINT_NS),
        }
    _write(files, out, f'GT{number:02d}.png')


def _reduce(pixels, side):
    ratio = min(1, side / max(pixels.shape[:2]))
    height, width = (round(ratio * x) for x in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _nearest(mask):
    """Index, for each pixel, the nearest one in a mask."""
    return tuple(
        distance_transform_edt(
            ~mask, return_distances=False, return_indices=True
        )
    )


def _write_drawn(number, out, side):
    fg = make_foreground(np.random.SeedSequence([0, number]), side)
    bg = make_background(np.random.SeedSequence([1, number]), side)
    files = {
        f'{SCENES}/fg': fg.color,
        f'{SCENES}/alpha': fg.alpha,
        BACKGROUNDS: bg,
    }
    _write(files, out, f'drawn{number:02d}.png')


def _write(files, out, name):
    for folder, pixels in files.items():
        mmcv.imwrite(pixels, osp.join(out, folder, name))
