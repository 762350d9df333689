"""Pretrained weights by the addresses in configs.

mmengine finds them, but needs torchvision for ``torchvision://NAME``, and ends
with a traceback on a machine without a network. :func:`register_loaders` fixes
both; :func:`mmsapa.engine.runner.build_runner` calls it.
"""

import difflib
import functools
import os.path as osp
import pickle
from collections.abc import Callable
from http.client import HTTPException
from urllib.parse import urlparse

import mmengine
import torch
from mmengine.runner import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)
from mmengine.runner.checkpoint import (
    load_from_http,
    load_from_mmcls,
    load_from_openmmlab,
    load_from_torchvision,
)

from mmsapa.engine.checkpoint import CheckpointError


class PretrainedError(CheckpointError):
    """Weights that a config names cannot be fetched; says what to do."""


def torchvision_models() -> dict:
    """Return the addresses of torchvision's weights, by their names.

    Returns:
        dict[str, str]: torchvision's own where it can be imported, otherwise
        those of its models of 2022 in mmengine's list.
    """
    try:
        return get_torchvision_models()
    except Exception:  # it is absent, or was built for another torch
        known = osp.join(mmengine.__path__[0], 'hub/torchvision_0.12.json')
        return mmengine.load(known)


def find_weights(address: str) -> str:
    """Resolve an address of a config.

    Args:
        address (str): ``torchvision://NAME``, ``open-mmlab://NAME``,
            ``mmcls://NAME`` or a web address.

    Returns:
        str: A web address, or a file if ``open_mmlab.json`` in mmengine's
        home has one.

    Raises:
        PretrainedError: If nothing has that name.
    """
    scheme, _, name = address.partition('://')
    if scheme in ('http', 'https'):
        return address
    if scheme in ('torchvision', 'modelzoo'):
        models = torchvision_models()
    elif scheme == 'mmcls':
        models = get_mmcls_models()
    else:
        models = get_external_models()
        name = get_deprecated_model_names().get(name, name)
    # torchvision has models without weights.
    models = {name: url for name, url in models.items() if url}
    if name not in models:
        alike = difflib.get_close_matches(name, models) or sorted(models)
        raise PretrainedError(
            f'{address}: expected one of the names that {scheme}:// has, such '
            f'as {", ".join(alike[:3])}, got {name!r}.'
        )
    return models[name]


@functools.wraps(load_from_torchvision)  # mmengine logs its name
def _load_from_torchvision(address, map_location=None):
    return load_from_http(find_weights(address), map_location, progress=True)


def _explained(load: Callable) -> Callable:
    """Let a loader raise PretrainedError, which says what to do."""

    @functools.wraps(load)
    def explained(address, map_location=None):
        url = find_weights(address)
        if '://' not in url:
            return load(address, map_location=map_location)
        name = osp.basename(urlparse(url).path)
        folder = osp.join(torch.hub.get_dir(), 'checkpoints')
        try:
            return load(address, map_location=map_location)
        except (OSError, HTTPException) as error:
            raise PretrainedError(
                f'{address} needs {name}, and {url} cannot be fetched '
                f'({str(error).strip("<>")}): fetch it where there is a '
                f'network, and put it into {folder}/.'
            ) from error
        except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
            reason = str(error).partition('\n')[0]
            raise PretrainedError(
                f'{osp.join(folder, name)} cannot be read ({reason}): if it '
                f'is torn, delete it, and {url} is fetched again.'
            ) from error

    return explained


def register_loaders():
    """Register these loaders in place of mmengine's, not of other packages'.

    By mmengine's :meth:`CheckpointLoader.register_scheme`, for the process.
    """
    for prefix, load in {
        'http://': load_from_http,
        'https://': load_from_http,
        'torchvision://': _load_from_torchvision,
        'modelzoo://': _load_from_torchvision,
        'open-mmlab://': load_from_openmmlab,
        'openmmlab://': load_from_openmmlab,
        'mmcls://': load_from_mmcls,
    }.items():
        known = CheckpointLoader._get_checkpoint_loader(prefix)
        if known.__module__ == load_from_http.__module__:
            CheckpointLoader.register_scheme(
                prefix, _explained(load), force=True
            )
