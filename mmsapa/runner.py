"""What the tools share: options, configs, runners, a kind farewell."""

import argparse
import copy
import os
import os.path as osp
import shlex
import signal
import sys
from contextlib import contextmanager

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmsapa.checkpoint import allow_training_checkpoints
from mmsapa.config import leaf_datasets, library_of, type_name

DATA_HELP = {
    'mmseg': 'https://mmsegmentation.readthedocs.io/en/latest/user_guides/'
    '2_dataset_prepare.html',
    'mmdet': 'https://mmdetection.readthedocs.io/en/latest/user_guides/'
    'dataset_prepare.html',
}


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
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, such as '
        'train_dataloader.batch_size=2 or key="[(a,b),(c,d)]"',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
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
        Config: Of MMSegmentation or MMDetection.
    """
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    if not osp.isfile(config):
        sys.exit(f'There is no config file {config}.')
    try:
        cfg = Config.fromfile(config)
    except (ImportError, FileNotFoundError) as error:
        sys.exit(f'Cannot read {config}: {error}')
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    try:
        library_of(cfg)
    except ValueError as error:
        sys.exit(f'{config}: {error}')
    cfg.launcher = launcher
    stem = osp.splitext(osp.basename(config))[0]
    cfg.work_dir = (
        work_dir or cfg.get('work_dir') or osp.join('work_dirs', stem)
    )
    return cfg


def check_checkpoint(path):
    """Stop in a sentence if a checkpoint, file or address, is not there."""
    if '://' not in path and not osp.isfile(path):
        sys.exit(f'There is no checkpoint {path}.')


def check_data(cfg, *loaders):
    """Stop in a sentence if the data of a loader is not there."""
    for name in loaders:
        loader = cfg.get(name) or {}  # None where it is switched off
        for dataset in leaf_datasets(loader.get('dataset')):
            for path in _paths_of(dataset):
                if not osp.exists(path):
                    sys.exit(
                        f'{name} needs {path}, which does not exist. Put the '
                        'data there or a link to it (how it must lie: '
                        f'{DATA_HELP[library_of(cfg)]}), or name another '
                        f'folder by the setting {name}.dataset.data_root='
                        'FOLDER.'
                    )


def _paths_of(dataset):
    root = dataset.get('data_root') or ''
    prefixes = (dataset.get('data_prefix') or {}).values()
    for part in (*prefixes, dataset.get('ann_file')):
        if isinstance(part, str) and '://' not in root + part:
            if path := osp.join(root, part):
                yield path


def build_runner(cfg):
    """Build the config's runner, on a GPU or, where there is none, without.

    mmengine hands device numbers to a distributed model and picks nccl and
    synchronised batch norms, all of which only GPUs have; on CPUs the
    processes talk over gloo, and each norm looks at its own share.
    """
    allow_training_checkpoints()
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
        cfg.env_cfg.dist_cfg.backend = 'gloo'
        cfg.model = _plain_norms(cfg.model)
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
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def _plain_norms(node):
    if isinstance(node, dict):
        node = {key: _plain_norms(value) for key, value in node.items()}
        if type_name(node) in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'
        return ConfigDict(node)
    if isinstance(node, (list, tuple)):
        return type(node)(_plain_norms(item) for item in node)
    return node


def prepare_test(
    cfg, out=None, show=False, show_dir=None, wait_time=2, tta=False
):
    """Put into a config what the options of ``tools/test.py`` ask for.

    Args:
        cfg (Config): Config of a segmentor or detector, changed in place.
        out (str, optional): Folder that gets a segmentor's predictions as
            PNG files, or .pkl file that gets a detector's.
        show (bool): Show predictions in a window. Defaults to False.
        show_dir (str, optional): Folder that gets painted predictions.
        wait_time (float): Seconds that a window stays. Defaults to 2.
        tta (bool): Test with augmentation. Defaults to False.
    """
    if show or show_dir:
        hook = cfg.default_hooks.get('visualization')
        if hook is None:
            sys.exit(
                '--show and --show-dir need a visualization hook in the '
                "config's default_hooks."
            )
        hook.draw = True
        if show:
            hook.show = True
            hook.wait_time = wait_time
        if show_dir and library_of(cfg) == 'mmdet':
            hook.test_out_dir = show_dir
        elif show_dir:
            cfg.visualizer.save_dir = show_dir
        if library_of(cfg) == 'mmseg':
            # By itself it draws every fiftieth image.
            hook.interval = 1
    if tta:
        _use_tta(cfg)
    if out:
        _dump_predictions(cfg, out)


def _use_tta(cfg):
    datasets = leaf_datasets(cfg.test_dataloader.dataset)
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        if library_of(cfg) != 'mmdet':
            sys.exit(
                '--tta needs tta_model and tta_pipeline, which the config '
                'does not have.'
            )
        # MMDetection's detectors are tested with flipping where the config
        # says no more.
        cfg.setdefault(
            'tta_model',
            dict(
                type='DetTTAModel',
                tta_cfg=dict(
                    nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
                ),
            ),
        )
        pipeline = copy.deepcopy(datasets[0].pipeline)
        pack = pipeline.pop()
        pack.meta_keys = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        )
        flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
        pipeline.append(dict(type='TestTimeAug', transforms=[flips, [pack]]))
        cfg.setdefault('tta_pipeline', pipeline)
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _dump_predictions(cfg, out):
    is_pickle = out.endswith(('.pkl', '.pickle'))
    evaluators = cfg.test_evaluator
    if not isinstance(evaluators, (list, tuple)):
        evaluators = [evaluators]
    if library_of(cfg) == 'mmdet':
        if not is_pickle:
            sys.exit(
                '--out of a detector is a file that ends in .pkl, got '
                f'{out!r}.'
            )
        dump = dict(type='DumpDetResults', out_file_path=out)
        cfg.test_evaluator = [*evaluators, dump]
        return
    if is_pickle:
        sys.exit(
            f'--out of a segmentor is a folder for PNG files, got {out!r}.'
        )
    for evaluator in evaluators:
        evaluator.output_dir = out


@contextmanager
def interruptible(message):
    """Turn Ctrl-C into a sentence and exit code 130."""
    os.register_at_fork(after_in_child=_leave_ctrl_c_to_the_parent)
    try:
        yield
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
