"""Training checkpoints and ``torch.load``'s safety."""

import functools
import os.path as osp
import pickle

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_local
from mmengine.utils import digit_version


def allow_training_checkpoints():
    """Let ``torch.load`` read what mmengine writes while training.

    From PyTorch 2.6 on, ``torch.load`` refuses objects that are not on its
    list. mmengine's checkpoints hold the log's history, which is made of
    numpy arrays and of its own methods, and the metainfo of the data, in its
    own kind of dict: these and nothing else are allowed here, and the check
    itself stays on. mmengine's fork reads a refused file a second time
    without the check; here it stays refused. Before PyTorch 2.6 there is
    nothing to do.
    """
    if digit_version(torch.__version__) < digit_version('2.6'):
        return
    # numpy 2 moved numpy.core to numpy._core. A file has the name of the
    # numpy that wrote it, and both names must load under either.
    core = np._core if hasattr(np, '_core') else np.core
    functions = (core.multiarray._reconstruct, core.multiarray.scalar)
    allowed = [ConfigDict, HistoryBuffer, np.ndarray, np.dtype]
    for function in functions:
        for home in ('numpy.core', 'numpy._core'):
            name = f'{home}.multiarray.{function.__name__}'
            allowed.append((function, name))
    # Since numpy 1.25 each dtype has a class of its own.
    kinds = 'f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 ? U'.split()
    allowed += {type(np.dtype(kind)) for kind in kinds} - {np.dtype}
    allowed.append((_history_method, 'builtins.getattr'))
    torch.serialization.add_safe_globals(allowed)
    known = CheckpointLoader._get_checkpoint_loader('')
    if known.__module__ == load_from_local.__module__:
        CheckpointLoader.register_scheme('', _load_from_local, force=True)


@functools.wraps(load_from_local)  # mmengine logs its name
def _load_from_local(filename, map_location=None):
    return torch.load(osp.expanduser(filename), map_location=map_location)


def _history_method(owner, name):
    """Stand in for ``getattr``, by which a history names its methods.

    The real one would let a file reach anything.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(
            f'a checkpoint may not ask for {name!r} of {owner!r}'
        )
    return getattr(owner, name)
