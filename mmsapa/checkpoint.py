"""Checkpoints of training: reading them again, and finding a whole one."""

import glob
import os.path as osp
import pickle
import zipfile

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version


def allow_training_checkpoints():
    """Let ``torch.load`` read what mmengine writes while training.

    From PyTorch 2.6 on, ``torch.load`` refuses objects that it was not told
    of. mmengine's checkpoints hold the log's history, which is made of
    numpy arrays and of its own methods: these and nothing else are allowed
    here, and the check itself stays on. Before PyTorch 2.6 there is nothing
    to do.
    """
    if digit_version(torch.__version__) < digit_version('2.6'):
        return
    # numpy 2 moved numpy.core to numpy._core. A file names the place that
    # the numpy had which wrote it, and both names must load under either.
    core = np._core if hasattr(np, '_core') else np.core
    functions = (core.multiarray._reconstruct, core.multiarray.scalar)
    allowed = [HistoryBuffer, np.ndarray, np.dtype]
    for function in functions:
        for home in ('numpy.core', 'numpy._core'):
            name = f'{home}.multiarray.{function.__name__}'
            allowed.append((function, name))
    # Since numpy 1.25 each dtype has a class of its own.
    kinds = ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', '?')
    allowed += {type(np.dtype(kind)) for kind in kinds} - {np.dtype}
    allowed.append((_history_method, 'builtins.getattr'))
    torch.serialization.add_safe_globals(allowed)


def _history_method(owner, name):
    """Stand in for ``getattr``, by which a history names its methods.

    The real one would let a file reach anything.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(
            f'a checkpoint may not ask for {name!r} of {owner!r}'
        )
    return getattr(owner, name)


def find_last_checkpoint(work_dir):
    """Find the last checkpoint in a work dir that was written to its end.

    mmengine first deletes the oldest checkpoint, then writes the new one,
    then notes its name in the file ``last_checkpoint``. A process killed
    in between leaves a torn file, or a note that names a deleted one.

    Args:
        work_dir (str): Folder that training writes to.

    Returns:
        str | None: Path, or None where there is no whole checkpoint.
    """
    candidates = glob.glob(osp.join(glob.escape(work_dir), '*.pth'))
    # The best ones carry no optimizer, so training cannot go on from them.
    candidates = [
        path
        for path in candidates
        if not osp.basename(path).startswith('best_')
    ]
    candidates.sort(key=osp.getmtime, reverse=True)
    note = osp.join(work_dir, 'last_checkpoint')
    if osp.isfile(note):
        with open(note) as file:
            named = file.read().strip()
        # A work dir that was moved still holds the file under that name.
        moved = osp.join(work_dir, osp.basename(named))
        candidates = [named, moved] + candidates
    # A zip file's directory is its end: torn ones have none.
    return next(
        (path for path in candidates if zipfile.is_zipfile(path)), None
    )
