"""Checkpoints: reading them safely, loading weights, finding the last one."""

import glob
import os.path as osp
import pickle
import re
import textwrap
import zipfile
from collections import OrderedDict

import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader, load_state_dict

from mmsapa.errors import UserError
from mmsapa.training_checkpoints import allow_training_checkpoints


class CheckpointError(UserError):
    """A checkpoint cannot be read or does not fit; the message says why."""


def check_file(path):
    """Check that a file may be a checkpoint, without reading all of it.

    Args:
        path (str): File.

    Raises:
        CheckpointError: It is torn, or of another kind.
    """
    with open(path, 'rb') as file:
        start = file.read(2)
    # A zip file's directory is its end: torn ones have none. Before
    # PyTorch 1.6 checkpoints were pickles.
    if not zipfile.is_zipfile(path) and start[:1] != b'\x80':
        kind = 'a torn one' if start == b'PK' else 'another kind of file'
        raise CheckpointError(
            f'{path}: expected a checkpoint of PyTorch, got {kind}.'
        )


def read_checkpoint(path, map_location='cpu'):
    """Read a checkpoint; a file with ``torch.load``'s safety on.

    Addresses are read by ``torch.hub``, by its own rules.

    Args:
        path (str): File or address.
        map_location (str): As for ``torch.load``. Defaults to 'cpu'.

    Returns:
        dict: The checkpoint; :func:`weights_of` finds its weights.

    Raises:
        CheckpointError: It is torn, or no checkpoint of a model.
    """
    allow_training_checkpoints()
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location)
    except CheckpointError:
        raise
    except (
        *(AttributeError, EOFError, ImportError, IndexError, KeyError),
        *(OSError, RuntimeError, ValueError, pickle.UnpicklingError),
    ) as error:
        # torch.load's message about a refused object is a page long.
        refused = re.search(r'GLOBAL (\S+)', str(error))
        raise CheckpointError(
            f'{path}: expected a checkpoint of PyTorch, got '
            + (
                f'one that asks for what it may not: {refused[1]}'
                if refused
                else f'what cannot be read: {type(error).__name__}, '
                f'{shorten(error)}'
            )
        ) from error
    if not any(map(torch.is_tensor, weights_of(checkpoint).values())):
        raise CheckpointError(
            f'{path}: expected a checkpoint of a model, got what holds no '
            'weights.'
        )
    return checkpoint


def weights_of(checkpoint):
    """Return the weights in the content of a checkpoint file, {} if none.

    They are its ``state_dict``; its ``model``, as many training scripts
    without mmengine have it; or all of it.
    """
    if isinstance(checkpoint, dict):
        model = checkpoint.get('model')
        whole = model if isinstance(model, dict) else checkpoint
        checkpoint = checkpoint.get('state_dict', whole)
    return checkpoint if isinstance(checkpoint, dict) else {}


def load_weights(model, path, what='the model', advice=''):
    """Load all weights of a model from a file.

    Args:
        model (nn.Module): Takes the weights.
        path (str): File or address.
        what (str): The model, in words. Defaults to 'the model'.
        advice (str): Ends the message of an error: what to do.

    Returns:
        dict: The checkpoint.

    Raises:
        CheckpointError: It cannot be read or does not fit.
    """
    checkpoint = read_checkpoint(path)
    put_weights(model, checkpoint, path, what, advice)
    return checkpoint


def put_weights(
    model,
    checkpoint,
    path,
    what='the model',
    advice='',
    partly=False,
    revise_keys=((r'^module\.', ''),),
):
    """Put a checkpoint's weights into a model, and check that they fit.

    Missing weights would stay random, and weights that the model has no place
    for mean that another model was trained. Whole parts, such as an auxiliary
    head, may be left over.

    Args:
        model (nn.Module): Takes the weights; may be wrapped.
        checkpoint (dict): Of :func:`read_checkpoint`.
        path (str): Where it is from.
        what (str): The model, in words. Defaults to 'the model'.
        advice (str): Ends the message of an error: what to do.
        partly (bool): Whether it is enough that some weights fit, as for a
            training that starts from another model. Defaults to False.
        revise_keys (Sequence[tuple[str, str]]): Patterns in names of weights
            and their replacements. Defaults to removing what a wrapper adds.

    Raises:
        CheckpointError: It does not fit.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    state = weights_of(checkpoint)
    metadata = getattr(state, '_metadata', None)
    for pattern, replacement in revise_keys:
        state = OrderedDict(
            (re.sub(pattern, replacement, key), value)
            for key, value in state.items()
        )
    if metadata is not None:
        state._metadata = metadata
    missing, left_over, mismatched = _load(model, state)
    own = model.state_dict()
    # Whole numbers are counters and indices, which no training changes.
    needed = {
        key
        for key, value in own.items()
        if torch.is_tensor(value) and value.is_floating_point()
    }
    missing = [key for key in missing if key in needed]
    parts = {key.partition('.')[0] for key in own}
    left_over = [
        key
        for key in left_over
        if key.partition('.')[0] in parts
        and not key.endswith('num_batches_tracked')
    ]
    fit = len(needed) - len(missing) - len(mismatched)
    problems = [
        f'{name}: {shorten(", ".join(keys))}'
        for name, keys in (
            ('missing', missing),
            ('of another size', mismatched),
            ('left over', left_over),
        )
        if keys
    ]
    if not problems:
        return
    summary = f'{fit} of {len(needed)} weights fit; {"; ".join(problems)}.'
    if fit == 0 or not partly:
        raise CheckpointError(
            f'{path} does not fit {what}: {summary} {advice}'.rstrip()
        )
    print_log(f'{path}: {summary}', logger='current')


def _load(model, state):
    """Load what fits; return the keys missing, left over and of other size."""
    missing, left_over, mismatched = [], [], []

    def note(_, keys):
        # mmengine would only log them, or raise without a summary.
        missing.extend(keys.missing_keys)
        left_over.extend(keys.unexpected_keys)
        keys.missing_keys.clear()
        keys.unexpected_keys.clear()

    handle = model.register_load_state_dict_post_hook(note)
    try:
        load_state_dict(model, state, strict=True)
    except RuntimeError as error:
        mismatched = re.findall(r'size mismatch for (\S+):', str(error))
        if not mismatched:
            raise
    finally:
        handle.remove()
    return missing, left_over, mismatched


def shorten(message):
    """Make one short line of a message."""
    return textwrap.shorten(str(message), 160, placeholder=' …')


def find_last_checkpoint(work_dir):
    """Find the last complete checkpoint in a work dir.

    mmengine first deletes the oldest checkpoint, then writes the new one,
    then notes its name in the file ``last_checkpoint``. A process killed
    in between leaves a torn file, or a note that names a deleted one.

    Args:
        work_dir (str): Folder that training writes to.

    Returns:
        str | None: Path, or None if there is no complete checkpoint.
    """
    # Other files may lie there: the best ones, which carry no optimizer, or
    # weights that a training starts from.
    candidates = [
        path
        for path in glob.glob(osp.join(glob.escape(work_dir), '*.pth'))
        if re.fullmatch(r'(epoch|iter)_\d+\.pth', osp.basename(path))
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
