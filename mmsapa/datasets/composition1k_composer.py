"""The test composites of Composition-1K, as Adobe's script makes them."""

import math
import os
import os.path as osp
import shutil
from functools import partial

import numpy as np
from PIL import Image

from mmsapa.datasets.matting_loading import check_size, read_gray
from mmsapa.datasets.processes import (
    complete_file,
    make_folder,
    map_in_processes,
    write_once,
)
from mmsapa.engine.config import ConfigError

# Of Adobe's folder.
ADOBE = 'Test_set/Adobe-licensed images'
LISTS = 'Test_set/test_fg_names.txt', 'Test_set/test_bg_names.txt'


def compose_test_set(root, bg_folders, out=None, nproc=None):
    """Compose the test set, or what of it is not there yet.

    Foreground i of F and background i · n + j make the composite
    ``<foreground>_<j>.png``, with n = B / F, which is 20. Trimaps and alpha
    maps are copied. What lies in ``out`` then is A2U matting's layout::

        Test_set/merged/<foreground>_<j>.png
        Test_set/trimaps/<foreground>_<j>.png
        Test_set/alpha/<foreground>.png
        test.txt

    A file gets its name only when it is complete, and is not made again.

    Args:
        root (str): Adobe's folder, with ``Test_set``.
        bg_folders (Sequence[str]): Folders of the backgrounds: VOC's
            JPEGImages, or for other lists COCO's train2014.
        out (str, optional): Where it goes. Default: ``root``.
        nproc (int, optional): Number of processes. Defaults to one a core,
            at most eight.

    Returns:
        int: Number of composites that were made.

    Raises:
        ConfigError: If something is missing or does not fit.
    """
    out = out or root
    tasks = _plan(root, bg_folders)
    for name in ('merged', 'trimaps', 'alpha'):
        make_folder(osp.join(out, 'Test_set', name))
    # Here, since composites in several processes share an alpha map.
    for alpha, target in {(x['alpha'], _targets(x)[1]) for x in tasks}:
        write_once(partial(shutil.copyfile, alpha), osp.join(out, target))
    made = map_in_processes(
        partial(_write_files, out=out), tasks, 'test composites', nproc
    )
    with complete_file(osp.join(out, 'test.txt')) as file:
        for task in tasks:
            file.write('\t'.join(_targets(task)) + '\n')
    return sum(made)


def compose(fg: Image.Image, alpha: np.ndarray, bg: Image.Image):
    """Put a foreground before a background, as Adobe's script does.

    A background that is smaller is enlarged, bicubically, its sides rounded
    up; its top-left part is taken. Values are cut off, not rounded.

    Args:
        fg (Image): RGB.
        alpha (ndarray): From 0 to 1, float64, [H, W], of the same size.
        bg (Image): RGB, of any size.

    Returns:
        ndarray: RGB, uint8, [H, W, 3].
    """
    width, height = fg.size
    ratio = max(width / bg.size[0], height / bg.size[1])
    if ratio > 1:
        size = (math.ceil(side * ratio) for side in bg.size)
        bg = bg.resize(tuple(size), Image.BICUBIC)
    front = np.asarray(fg, float)
    behind = np.asarray(bg.crop((0, 0, width, height)), float)
    alpha = alpha[..., None]
    return (alpha * front + (1 - alpha) * behind).astype(np.uint8)


def _plan(root, bg_folders):
    """List the composites; the files of all must exist."""
    fgs, bgs = (_names(osp.join(root, path)) for path in LISTS)
    count = len(bgs) // max(len(fgs), 1)
    if not count or len(bgs) != count * len(fgs):
        raise ConfigError(
            f'{osp.join(root, LISTS[1])}: expected as many backgrounds for '
            f'each of {len(fgs)} foregrounds, 20 in Composition-1K, got '
            f'{len(bgs)}; take both lists of one release.'
        )
    folders = [osp.join(root, ADOBE, x) for x in ('fg', 'alpha', 'trimaps')]
    for folder in (*folders, *bg_folders):
        if not osp.isdir(folder):
            raise ConfigError(
                f'{folder}: expected a folder of images, got none; unpack '
                "Adobe's folder there, or name that of the backgrounds."
            )
    tables = [*map(_by_stem, folders), {}]
    for folder in bg_folders:
        tables[-1].update(_by_stem(folder))
    folders.append(bg_folders[0])
    tasks, missing = [], {}
    for number, bg in enumerate(bgs):
        fg = fgs[number // count]
        name = f'{fg}_{number % count}'
        task = dict(name=name, stem=fg)
        for key, stem, table, folder in zip(
            ('fg', 'alpha', 'trimap', 'bg'),
            (fg, fg, name, bg),
            tables,
            folders,
        ):
            task[key] = table.get(stem)
            if task[key] is None:
                missing[osp.join(folder, stem)] = key
        tasks.append(task)
    if missing:
        raise ConfigError(
            f'{next(iter(missing))}.png or .jpg: expected a file, got none, '
            f'as {len(missing)} of {2 * (len(fgs) + len(bgs))} do not exist; '
            'the backgrounds of the test are images of VOC 2012, those of '
            'the training of COCO 2014.'
        )
    return tasks


def _names(path):
    """Read the names of a list, without suffixes."""
    try:
        with open(path, encoding='utf-8-sig') as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{path}: expected Adobe's list of names, got what cannot be "
            f'read: {error}'
        ) from error
    return [osp.splitext(osp.basename(line))[0] for line in lines]


def _by_stem(folder):
    """Return the files of a folder by their names without suffix."""
    return {
        osp.splitext(name)[0]: osp.join(folder, name)
        for name in sorted(os.listdir(folder))
        if name[0] != '.'
    }


def _targets(task):
    """Return the paths of composite, alpha and trimap under ``out``."""
    alpha, trimap = (osp.splitext(task[key])[1] for key in ('alpha', 'trimap'))
    return (
        f'Test_set/merged/{task["name"]}.png',
        f'Test_set/alpha/{task["stem"]}{alpha}',
        f'Test_set/trimaps/{task["name"]}{trimap}',
    )


def _write_files(task, out):
    merged, _, trimap = (osp.join(out, x) for x in _targets(task))
    write_once(partial(shutil.copyfile, task['trimap']), trimap)
    return write_once(partial(_save, task), merged)


def _save(task, path):
    fg, bg = _open(task['fg']), _open(task['bg'])
    pixels = read_gray(task['alpha'])
    check_size(task['alpha'], pixels, fg.size[::-1], task['fg'])
    image = compose(fg, pixels / np.iinfo(pixels.dtype).max, bg)
    Image.fromarray(image).save(path, format='PNG')


def _open(path):
    try:
        return Image.open(path).convert('RGB')
    except OSError as error:
        raise ConfigError(
            f'{path}: expected an image, got what cannot be read: {error}'
        ) from error
