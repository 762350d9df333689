"""From a config file to a runner, with checks of what the user gave."""

import difflib
import inspect
import os
import os.path as osp

import torch
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmsapa.datasets.checks import missing_paths
from mmsapa.engine.checkpoint import (
    CheckpointError,
    check_file,
    shorten,
)
from mmsapa.engine.cli import LAUNCHERS
from mmsapa.engine.config import (
    ConfigError,
    find_config,
    leaf_datasets,
    library_of,
    read_config,
)
from mmsapa.engine.evaluation_options import evaluators
from mmsapa.engine.pretrained import register_loaders
from mmsapa.engine.safe_runner import RunnerMixin, SafeRunner
from mmsapa.training_checkpoints import allow_training_checkpoints

DATA_HELP = {
    'mmseg': 'https://mmsegmentation.readthedocs.io/en/latest/user_guides/'
    '2_dataset_prepare.html',
    'mmdet': 'https://mmdetection.readthedocs.io/en/latest/user_guides/'
    'dataset_prepare.html',
    'mmsapa': 'docs/data.md',
}
# What starts the processes of each launcher.
STARTERS = dict(
    pytorch='tools/dist_train.sh, tools/dist_test.sh or torchrun',
    slurm='srun',
    mpi='mpirun',
)


def load_config(
    config, cfg_options=None, work_dir=None, launcher='none', local_rank=0
):
    """Read a config and apply the arguments that training and testing share.

    Args:
        config (str): File, or a name such as ``mmsapa::segformer/NAME.py``.
        cfg_options (dict, optional): Settings that override the config's.
        work_dir (str, optional): Defaults to the config's, and if it has
            none to ./work_dirs/NAME_OF_THE_CONFIG.
        launcher (str): One of ``LAUNCHERS``. Defaults to 'none'.
        local_rank (int): For launchers that do not set the environment
            variable LOCAL_RANK. Defaults to 0.

    Returns:
        Config: Of one of the libraries; its ``default_scope`` is set if the
        config leaves it to classes as types.

    Raises:
        ConfigError: The file cannot be read, or an argument does not fit.
    """
    _check_launcher(launcher)
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    config = find_config(config)
    try:
        cfg = read_config(config)
    except Exception as error:  # a config is a program: it may raise anything
        kind = type(error).__name__
        raise ConfigError(
            f'Cannot read {config}: {kind}, {shorten(error)}'
        ) from error
    _merge(cfg, cfg_options or {})
    try:
        library = library_of(cfg)
        _import_all(cfg)
    except (ConfigError, ImportError) as error:
        raise ConfigError(f'{config}: {error}') from error
    if cfg.get('default_scope') is None:
        # The defaults of classes are names nevertheless.
        cfg.default_scope = library
    cfg.launcher = launcher
    stem = osp.splitext(osp.basename(config))[0]
    # mmengine parses options that look like numbers into numbers.
    cfg.work_dir = str(
        work_dir or cfg.get('work_dir') or osp.join('work_dirs', stem)
    )
    if cfg.get('load_from') is not None:
        cfg.load_from = str(cfg.load_from)
    _check_work_dir(cfg.work_dir)
    return cfg


def _import_all(node):
    """Import the classes of a pure Python config, which are lazy."""
    for part in node.values() if hasattr(node, 'values') else node:
        if isinstance(part, (dict, list, tuple)):
            _import_all(part)


def _check_launcher(launcher):
    absent = [x for x in LAUNCHERS[launcher] if x not in os.environ]
    if absent:
        raise ConfigError(
            f'--launcher {launcher} expects what started the processes to set '
            f'{", ".join(absent)}; start them by {STARTERS[launcher]}, or '
            'leave --launcher out.'
        )


def _merge(cfg, options):
    known = {*cfg, *inspect.signature(Runner).parameters}
    for key in options:
        first = key.partition('.')[0]
        alike = difflib.get_close_matches(first, known, 1, 0.8)
        if first not in known and alike:
            raise ConfigError(
                f'--cfg-options: {cfg.filename} has no {first}; is '
                f'{alike[0]} meant?'
            )
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ConfigError(
            f'--cfg-options: cannot put {", ".join(options)} into '
            f'{cfg.filename}: {shorten(error)}'
        ) from error


def _check_work_dir(work_dir):
    path = osp.abspath(work_dir)
    while not osp.lexists(path):
        path = osp.dirname(path)
    if not osp.isdir(path):
        why = f'{path} is a file'
    elif not os.access(path, os.W_OK | os.X_OK):
        why = f'nothing may be written in {path}'
    else:
        return
    raise ConfigError(
        f'The work dir {work_dir} cannot be made, for {why}; name another '
        'folder by --work-dir.'
    )


def check_checkpoint(path):
    """Check that a checkpoint exists and is complete, before a model is built.

    Args:
        path (str): File, or address, which is left to the loader.

    Raises:
        CheckpointError: It is missing, torn or of another kind.
    """
    if '://' in path:
        return
    if not osp.isfile(path):
        raise CheckpointError(f'There is no checkpoint {path}.')
    check_file(path)


def check_data(cfg, *loaders):
    """Check that the files and folders of data loaders exist.

    Args:
        cfg (Config): Of :func:`load_config`.
        *loaders (str): Such as 'train_dataloader'; for validation and test
            the annotation file of the evaluator is checked too.

    Raises:
        ConfigError: A path is missing, or is not text.
    """
    for name in loaders:
        loader = cfg.get(name) or {}  # None where it is switched off
        for dataset in leaf_datasets(loader.get('dataset')):
            _check_paths(cfg, name, dataset, 'dataset.data_root=FOLDER')
        if loader and name != 'train_dataloader':
            name = name.replace('dataloader', 'evaluator')
            for metric in evaluators(cfg, name):
                _check_paths(cfg, name, metric, 'ann_file=FILE')


def _check_paths(cfg, name, part, setting):
    try:
        path = next(missing_paths(part), None)
    except ConfigError as error:
        raise ConfigError(f'{name}: {error}') from error
    if path is not None:
        raise ConfigError(
            f'{name} needs {path}, which does not exist. Put the data there '
            'or a link to it (how it must lie: '
            f'{DATA_HELP[library_of(cfg)]}), or name another place by the '
            f'setting {name}.{setting}.'
        )


def build_runner(cfg):
    """Build the config's runner, on a GPU if there is one.

    mmengine gives device numbers to a distributed model and picks nccl, which
    only GPUs have; on CPUs the processes communicate over gloo.

    Args:
        cfg (Config): Of :func:`load_config`; changed in place.

    Returns:
        Runner: A :class:`SafeRunner`, or one of the config's runner_type that
        keeps users' files.

    Raises:
        UserError: Data, model, evaluator or checkpoint do not fit. The
            runner raises it, too.
    """
    allow_training_checkpoints()
    register_loaders()
    for split in ('val', 'test'):
        # One part of a loop switched off switches off the loop.
        parts = [f'{split}_{x}' for x in ('dataloader', 'evaluator', 'cfg')]
        if any(part in cfg and cfg[part] is None for part in parts):
            cfg.update(dict.fromkeys(parts))
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
        cfg.env_cfg.dist_cfg.backend = 'gloo'
        cfg.sync_bn = None  # which only GPUs have
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        # mmengine keeps an existing process group; to make one it selects a
        # GPU first.
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
    kind = cfg.get('runner_type')
    if kind is None:
        return SafeRunner.from_cfg(cfg)
    kind = RUNNERS.get(kind) if isinstance(kind, str) else kind
    return type(kind.__name__, (RunnerMixin, kind), {}).from_cfg(cfg)
