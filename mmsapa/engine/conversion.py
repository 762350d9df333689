"""Checkpoints of other releases, with our names of weights."""

from pathlib import Path

import torch

from mmsapa.datasets.processes import complete_file, make_folder
from mmsapa.engine.checkpoint import read_checkpoint, weights_of
from mmsapa.engine.runner import check_checkpoint
from mmsapa.errors import UserError


def convert_checkpoint(source, target, rename):
    """Write a checkpoint again with other names of weights.

    Args:
        source (str): File.
        target (str): File to write; it has a ``state_dict`` alone.
        rename (Callable): Takes and returns a dict of weights; raises
            ValueError where they are not those it knows.

    Returns:
        int: Number of weights.

    Raises:
        UserError: The file cannot be read, or is of another model.
    """
    check_checkpoint(source)
    weights = weights_of(read_checkpoint(source))
    try:
        weights = rename(weights)
    except ValueError as error:
        raise UserError(f'{source}: {error}') from error
    make_folder(Path(target).parent)
    with complete_file(target, 'wb') as file:
        torch.save(dict(state_dict=weights, meta={}), file)
    return len(weights)
