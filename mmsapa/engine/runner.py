"""What the tools share: options, configs, runners, a kind farewell."""

import argparse
import difflib
import inspect
import os
import os.path as osp
import shlex
import signal
import sys
from contextlib import contextmanager

import torch
from mmengine.config import DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmsapa.datasets.checks import missing_paths
from mmsapa.engine.checkpoint import (
    CheckpointError,
    allow_training_checkpoints,
    check_file,
    shorten,
)
from mmsapa.engine.config import (
    ConfigError,
    leaf_datasets,
    library_of,
    read_config,
    type_name,
)
from mmsapa.engine.evaluation_options import evaluators
from mmsapa.engine.pretrained import register_loaders
from mmsapa.engine.safe_runner import KeepsFiles, SafeRunner

DATA_HELP = {
    'mmseg': 'https://mmsegmentation.readthedocs.io/en/latest/user_guides/'
    '2_dataset_prepare.html',
    'mmdet': 'https://mmdetection.readthedocs.io/en/latest/user_guides/'
    'dataset_prepare.html',
}


# What must be set by what starts the processes, and what that may be.
LAUNCHERS = dict(
    none=(),
    pytorch=('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    mpi=(
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_LOCAL_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'MASTER_ADDR',
    ),
)
STARTERS = dict(
    pytorch='tools/dist_train.sh, tools/dist_test.sh or torchrun',
    slurm='srun',
    mpi='mpirun',
)


class KeyValues(DictAction):
    """Takes KEY=VALUE, and says what else is wrong."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Parse the values, as argparse has it."""
        for value in values:
            key, sign, _ = value.partition('=')
            if not (key and sign):
                parser.error(
                    f'{option_string}: expected KEY=VALUE such as '
                    f'train_dataloader.batch_size=2, got {value}'
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:  # brackets that are not closed
            parser.error(f'{option_string}: {error}')


def argument_parser(description):
    """Make a parser of the arguments that every tool takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        'config', help='config file of MMSegmentation or MMDetection'
    )
    parser.add_argument(
        '--work-dir',
        help='folder for logs, checkpoints and results; by default '
        './work_dirs/NAME_OF_THE_CONFIG',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, such as '
        'train_dataloader.batch_size=2 or key="[(a,b),(c,d)]"',
    )
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='what started the processes of a distributed run',
    )
    # Older launchers pass the rank as an argument, newer ones only set the
    # environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def load_config(
    config, cfg_options=None, work_dir=None, launcher='none', local_rank=0
):
    """Read the config and put in what the common arguments say.

    Args:
        config (str): File.
        cfg_options (dict, optional): Settings that replace the config's.
        work_dir (str, optional): Defaults to the config's, and if it has
            none to ./work_dirs/NAME_OF_THE_CONFIG.
        launcher (str): As :func:`argument_parser` has it.
        local_rank (int): The same.

    Returns:
        Config: Of MMSegmentation or MMDetection; its ``default_scope`` is
        set if the config leaves it to classes as types.
    """
    _check_launcher(launcher)
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    if not osp.isfile(config):
        sys.exit(f'There is no config file {config}.')
    try:
        cfg = read_config(config)
    except Exception as error:  # a config is a program: it may raise anything
        kind = type(error).__name__
        sys.exit(f'Cannot read {config}: {kind}, {shorten(error)}')
    _merge(cfg, cfg_options or {})
    try:
        library = library_of(cfg)
        _import_all(cfg)
    except (ConfigError, ImportError) as error:
        sys.exit(f'{config}: {error}')
    if cfg.get('default_scope') is None:
        # What classes have as defaults are names all the same.
        cfg.default_scope = library
    cfg.launcher = launcher
    stem = osp.splitext(osp.basename(config))[0]
    # Options that look like numbers have become some.
    cfg.work_dir = str(
        work_dir or cfg.get('work_dir') or osp.join('work_dirs', stem)
    )
    if cfg.get('load_from') is not None:
        cfg.load_from = str(cfg.load_from)
    _check_work_dir(cfg.work_dir)
    return cfg


def _import_all(node):
    """Import what pure Python names, as otherwise only its use does."""
    for part in node.values() if hasattr(node, 'values') else node:
        if isinstance(part, (dict, list, tuple)):
            _import_all(part)


def _check_launcher(launcher):
    absent = [x for x in LAUNCHERS[launcher] if x not in os.environ]
    if absent:
        sys.exit(
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
            sys.exit(
                f'--cfg-options: {cfg.filename} has no {first}; is '
                f'{alike[0]} meant?'
            )
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        sys.exit(
            f'--cfg-options: cannot put {", ".join(options)} into '
            f'{cfg.filename}: {shorten(error)}'
        )


def _check_work_dir(work_dir):
    path = osp.abspath(work_dir)
    while not osp.lexists(path):
        path = osp.dirname(path)
    if not osp.isdir(path):
        sys.exit(
            f'The work dir {work_dir} cannot be made, for {path} is a file; '
            'name another folder by --work-dir.'
        )


def check_checkpoint(path):
    """Stop in a sentence if a checkpoint, file or address, is not there."""
    if '://' in path:
        return
    if not osp.isfile(path):
        sys.exit(f'There is no checkpoint {path}.')
    try:
        check_file(path)
    except CheckpointError as error:
        sys.exit(str(error))


def check_data(cfg, *loaders):
    """Stop in a sentence if the data of a loader is not there."""
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
        sys.exit(f'{name}: {error}')
    if path is not None:
        sys.exit(
            f'{name} needs {path}, which does not exist. Put the data there '
            'or a link to it (how it must lie: '
            f'{DATA_HELP[library_of(cfg)]}), or name another place by the '
            f'setting {name}.{setting}.'
        )


def build_runner(cfg):
    """Build the config's runner, on a GPU or, where there is none, without.

    mmengine hands device numbers to a distributed model and picks nccl and
    synchronised batch norms, all of which only GPUs have; on CPUs the
    processes talk over gloo, and each norm looks at its own share.
    """
    allow_training_checkpoints()
    register_loaders()
    for split in ('val', 'test'):
        # Who switches off a part of a loop has no use for the rest.
        parts = [f'{split}_{x}' for x in ('dataloader', 'evaluator', 'cfg')]
        if any(part in cfg and cfg[part] is None for part in parts):
            cfg.update(dict.fromkeys(parts))
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
        cfg.env_cfg.dist_cfg.backend = 'gloo'
        _plain_norms(cfg.model)
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        # mmengine leaves a group that is there alone; its own way to make
        # one selects a GPU first.
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
    kind = cfg.get('runner_type')
    if kind is None:
        return SafeRunner.from_cfg(cfg)
    kind = RUNNERS.get(kind) if isinstance(kind, str) else kind
    return type(kind.__name__, (KeepsFiles, kind), {}).from_cfg(cfg)


def _plain_norms(node):
    """Change norms in place, which leaves classes of pure Python lazy."""
    if isinstance(node, dict):
        if type_name(node) in ('SyncBN', 'MMSyncBN', 'SyncBatchNorm'):
            node['type'] = 'BN'
        node = [*node.values()]
    if isinstance(node, (list, tuple)):
        for part in node:
            _plain_norms(part)


@contextmanager
def interruptible(message):
    """Turn Ctrl-C and what users get wrong into a sentence."""
    os.register_at_fork(after_in_child=_leave_ctrl_c_to_the_parent)
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        is_first = os.environ.get('RANK', '0') == '0'
        sys.exit(str(error) if is_first else 1)
    except KeyboardInterrupt:
        # A second Ctrl-C would only tear the farewell.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if os.environ.get('RANK', '0') == '0':
            print(f'\n{message}', file=sys.stderr, flush=True)
        sys.exit(130)


def _leave_ctrl_c_to_the_parent():
    """Keep a data loader's worker from printing tracebacks of its own.

    A terminal sends Ctrl-C to the workers too, and one that hands over data
    finds its line to the main process cut.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print_error = sys.excepthook

    def print_real_error(kind, error, trace):
        if not issubclass(kind, (ConnectionError, EOFError)):
            print_error(kind, error, trace)

    sys.excepthook = print_real_error


def command_line(*words):
    """Spell out a command as one would type it."""
    return shlex.join(['python', *words])
