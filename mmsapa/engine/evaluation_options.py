"""What the options of ``tools/test.py`` change in a config."""

import copy
import inspect
import os.path as osp

from mmengine.config import ConfigDict
from mmengine.registry import METRICS

from mmsapa.engine.config import (
    ConfigError,
    leaf_datasets,
    library_of,
    type_name,
)


def prepare_test(
    cfg, out=None, show=False, show_dir=None, wait_time=2, tta=False
):
    """Apply the options of ``tools/test.py`` to a config.

    Args:
        cfg (Config): Config of a segmentor, detector or mattor, changed in
            place.
        out (str, optional): Folder that gets the predictions of a segmentor,
            depth estimator or mattor as PNG files, or .pkl file that gets a
            detector's.
        show (bool): Show predictions in a window. Defaults to False.
        show_dir (str, optional): Folder that gets painted predictions.
        wait_time (float): Seconds that a window stays open. Defaults to 2.
        tta (bool): Test with augmentation. Defaults to False.

    Raises:
        ConfigError: The config does not support an option.
    """
    for part in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        if cfg.get(part) is None:
            raise ConfigError(
                f'{cfg.filename} has no {part}, so there is no test; set it, '
                'as val_ has it, say.'
            )
    if show or show_dir:
        _show(cfg, show, show_dir, wait_time)
    if tta:
        _use_tta(cfg)
    if out:
        _dump_predictions(cfg, out)


def _show(cfg, show, show_dir, wait_time):
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if not hook or not cfg.get('visualizer'):
        raise ConfigError(
            "--show and --show-dir need a visualization hook in the config's "
            'default_hooks, and a visualizer.'
        )
    if cfg.get('launcher', 'none') != 'none':
        raise ConfigError(
            '--show and --show-dir: expected one process, which draws all '
            f'images, got --launcher {cfg.launcher}, where the first draws '
            'its own alone; leave it out, or draw in a test of its own.'
        )
    hook.draw = True
    # The libraries' hooks ask for the iteration of the training, for which
    # mmengine would build its data, which need not be there.
    for part in (
        *('train_dataloader', 'train_cfg'),
        *('optim_wrapper', 'param_scheduler'),
    ):
        cfg[part] = None
    if show:
        hook.show = True
        hook.wait_time = wait_time
    if library_of(cfg) != 'mmdet':
        # By itself it draws every fiftieth image.
        hook.interval = 1
        if show_dir:
            cfg.visualizer.save_dir = show_dir
            if not cfg.visualizer.get('vis_backends'):
                cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    elif show_dir:
        # Otherwise it would be a folder of the work dir.
        hook.test_out_dir = osp.abspath(show_dir)


def _use_tta(cfg):
    datasets = leaf_datasets(cfg.test_dataloader.get('dataset'))
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        if library_of(cfg) != 'mmdet':
            raise ConfigError(
                '--tta needs tta_model and tta_pipeline, which the config '
                'does not have.'
            )
        # MMDetection's default is to test detectors with flipping.
        cfg.setdefault(
            'tta_model',
            dict(
                type='mmdet.models.DetTTAModel',
                tta_cfg=dict(
                    nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
                ),
            ),
        )
    if type_name(cfg.tta_model) == 'DetTTAModel':
        _refuse_masks(cfg)
    for dataset in datasets:
        dataset.pipeline = cfg.get('tta_pipeline') or _flipped(dataset)
    model = ConfigDict(cfg.tta_model)
    model.module = cfg.model
    cfg.model = model


def _refuse_masks(cfg):
    measured = any(
        'segm' in metric.get('metric', '') or 'Panoptic' in type_name(metric)
        for metric in evaluators(cfg)
    )
    heads = [x for x in ('mask_head', 'panoptic_head') if _has(cfg.model, x)]
    if measured or heads:
        raise ConfigError(
            '--tta of a detector merges boxes only, but the '
            + (f'model has a {heads[0]}' if heads else 'test measures masks')
            + '; leave --tta out.'
        )


def _has(model, name):
    if not isinstance(model, dict):
        return False
    parts = [value for key, value in model.items() if key != 'type']
    return bool(model.get(name)) or any(_has(part, name) for part in parts)


def _flipped(dataset):
    pipeline = copy.deepcopy(dataset.pipeline)
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
    # The merged boxes come with the ground truth of the first.
    flips = [dict(type='mmdet.RandomFlip', prob=p) for p in (0.0, 1.0)]
    pipeline.append(dict(type='TestTimeAug', transforms=[flips, [pack]]))
    return pipeline


def _dump_predictions(cfg, out):
    is_pickle = out.endswith(('.pkl', '.pickle'))
    library = library_of(cfg)
    if library == 'mmdet':
        if not is_pickle:
            raise ConfigError(
                '--out of a detector is a file that ends in .pkl, got '
                f'{out!r}.'
            )
        dump = dict(type='mmdet.DumpDetResults', out_file_path=out)
        cfg.test_evaluator = [*evaluators(cfg), dump]
        return
    if is_pickle:
        raise ConfigError(
            '--out of a segmentor, depth estimator or mattor is a folder for '
            f'PNG files, got {out!r}.'
        )
    able = [m for m in evaluators(cfg) if _takes_output_dir(m, library)]
    if not able:
        names = ', '.join(map(type_name, evaluators(cfg))) or 'none'
        raise ConfigError(
            '--out needs a metric in test_evaluator that writes predictions, '
            'such as IoUMetric, mmsapa.DepthMetric or mmsapa.MattingMetric, '
            f'got {names}.'
        )
    for metric in able:
        metric.output_dir = out


def evaluators(cfg, name='test_evaluator'):
    """List the configs of the metrics of an evaluator."""
    found = cfg.get(name) or []
    return [*found] if isinstance(found, (list, tuple)) else [found]


def _takes_output_dir(metric, library):
    kind = metric.get('type')
    if isinstance(kind, str):
        with METRICS.switch_scope_and_registry(library) as registry:
            kind = registry.get(kind)
    for base in getattr(kind, '__mro__', ()):
        if '__init__' in vars(base):
            taken = inspect.signature(base.__init__).parameters
            if 'output_dir' in taken:
                return True
            if all(p.kind != p.VAR_KEYWORD for p in taken.values()):
                return False
    return False
