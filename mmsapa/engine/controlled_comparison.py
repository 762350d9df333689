"""Controlled comparison: one model, trained with each upsampler.

Candidates of one seed differ in the upsampler alone: all other weights start
from one saved state, and batches, augmentation and dropout are the same.
"""

import copy
import json
import math
import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import set_random_seed
from tqdm import tqdm

from mmsapa.datasets.processes import complete_file
from mmsapa.engine import timing
from mmsapa.engine.checkpoint import find_last_checkpoint, load_weights
from mmsapa.engine.config import (
    ConfigError,
    find_slots,
    kind_of,
    type_name,
)
from mmsapa.engine.evaluation_options import evaluators
from mmsapa.engine.image_figures import ImageFigures
from mmsapa.engine.inference import build_model
from mmsapa.engine.runner import build_runner
from mmsapa.upsamplers.presets import PRESETS


def with_upsampler(cfg, name):
    """Copy a config, with the upsampler of PRESETS in all of its slots."""
    cfg = copy.deepcopy(cfg)
    for slot in find_slots(cfg.model):
        slot['upsample_cfg'] = copy.deepcopy(PRESETS[name])
    return cfg


def save_initial_state(cfg, seed, path):
    """Save the weights that all candidates of a seed start from.

    Args:
        cfg (Config): The comparison's; ``load_from``, if set, is a checkpoint
            of the model without weights in its slots.
        seed (int): Of the initialization, where there is no ``load_from``.
        path (Path): File to write; one that exists is kept.

    Raises:
        CheckpointError: ``load_from`` cannot be read or does not fit.
    """
    if path.is_file():
        return
    set_random_seed(seed)
    model = build_model(with_upsampler(cfg, 'nearest'))
    if cfg.get('load_from'):
        what = 'the model without weights in its slots'
        advice = 'Name one that was trained with nearest or bilinear.'
        load_weights(model, cfg.load_from, what, advice)
    else:
        model.init_weights()
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete_file(path, 'wb') as file:
        torch.save(dict(state_dict=model.state_dict()), file)


def candidate_config(cfg, name, seed, initial_state, rate=None, split='test'):
    """Make the config that trains a candidate and tests it in the end.

    Args:
        cfg (Config): The comparison's, which is left as it is.
        name (str): The upsampler's, in PRESETS.
        seed (int): Of all that is random.
        initial_state (Path): Of :func:`save_initial_state`; the work dir is
            beside it, with the name and the rate, if there is one.
        rate (float, optional): Learning rate. Default: None, the config's.
        split (str): 'test', or 'val' to test on the validation images.
            Default: 'test'.

    Returns:
        Config: For :func:`train_and_test`.
    """
    cfg = with_upsampler(cfg, name)
    if rate is not None:
        cfg.optim_wrapper.optimizer.lr = rate
        name = f'{name}-lr-{rate}'
    if split == 'val':
        cfg.test_dataloader = cfg.val_dataloader
    # Images of all candidates in one order, to be paired.
    cfg.test_dataloader.sampler = dict(type='DefaultSampler', shuffle=False)
    checkpoint = 'default_hooks.checkpoint'
    cfg.merge_from_dict(
        {
            'work_dir': str(initial_state.with_name(name)),
            'load_from': str(initial_state),
            'resume': False,
            'randomness.seed': seed,
            'env_cfg.cudnn_benchmark': False,
            # A worker draws from a seed of its own, whatever the model draws.
            'train_dataloader.num_workers': (
                cfg.train_dataloader.get('num_workers') or 1
            ),
            **dict.fromkeys(['val_dataloader', 'val_cfg', 'val_evaluator']),
            'test_evaluator': _metrics(cfg),
            'result': 'result' if split == 'test' else 'validation',
            f'{checkpoint}.type': 'CheckpointHook',
            f'{checkpoint}.by_epoch': False,
            f'{checkpoint}.save_best': None,
            f'{checkpoint}.rule': None,  # of the best
            # Two, since a kill may leave the last one incomplete.
            f'{checkpoint}.max_keep_ckpts': 2,
        }
    )
    return cfg


def _metrics(cfg):
    """Choose the metrics; what counts and where is the config's own."""
    kind = kind_of(cfg)
    if kind == 'mattor':
        return [dict(type='mmsapa.MattingMetric')]
    if kind == 'segmentor':
        head = cfg.model.get('decode_head') or {}
        head = head[-1] if isinstance(head, list) else head
        if head.get('num_classes') == 1:
            raise ConfigError(
                'decode_head.num_classes: expected two classes or more, since '
                "IoUMetric's IoU of one is the share of right pixels, got 1; "
                'set num_classes=2 and out_channels=1, and name both classes.'
            )
        labels = _own(cfg, 'IoUMetric', 'ignore_index')
        edges = _own(cfg, 'BoundaryIoU', 'ignore_index', 'dilation_ratio')
        return [
            dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'], **labels),
            dict(type='mmsapa.BoundaryIoU', **{**labels, **edges}),
        ]
    limits = 'min_depth_eval', 'max_depth_eval', 'crop_type'
    kept = _own(cfg, 'DepthMetric', *limits)
    return [dict(type='mmsapa.DepthMetric', boundaries=True, **kept)]


def _own(cfg, metric, *keys):
    """The settings of a metric of the config's test evaluator."""
    own = [x for x in evaluators(cfg) if type_name(x) == metric]
    return {key: own[0][key] for key in keys if own and key in own[0]}


class SameConditions(Hook):
    """Gives all candidates the same random numbers, and measures memory.

    Each iteration has a seed of its own, so that a resumed training draws
    what it would have drawn without the interruption.

    Args:
        seed (int): Of the training.
        tell (Callable): Takes the number of iterations that are done.
    """

    priority = 'VERY_HIGH'

    def __init__(self, seed, tell):
        self.seed = seed
        self.tell = tell
        self.peak_bytes = 0

    def before_train(self, runner):
        """Have the batches before a resumed checkpoint loaded."""
        # mmengine's fork skips them unloaded, but workers draw random numbers
        # as they load.
        batches = runner.train_loop.dataloader_iterator
        batches.skip_iter = lambda n: [next(batches) for _ in range(n)]
        self._note(runner.iter)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Seed the iteration."""
        sequence = np.random.SeedSequence([self.seed, runner.iter])
        set_random_seed(int(sequence.generate_state(1)[0]))

    def before_save_checkpoint(self, runner, checkpoint):
        """Have a training that resumes know the peak so far."""
        checkpoint['peak_bytes'] = self.peak_bytes

    def after_load_checkpoint(self, runner, checkpoint):
        """Go on with the peak so far, if this training has one."""
        self.peak_bytes = checkpoint.get('peak_bytes', 0)

    def after_train_iter(self, runner, *args, **kwargs):
        """Tell that the iteration is done."""
        self._note(runner.iter + 1)

    def after_train(self, runner):
        """End the workers, whose memory the test may need."""
        # Garbage collection, which finds a cycle, would wait five seconds.
        del runner.train_loop.dataloader_iterator.skip_iter
        runner.train_loop.dataloader_iterator = None

    def _note(self, done):
        self.tell(done)
        # In each iteration, since mmengine's log resets the peak of a GPU.
        if get_device() == 'cuda':
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = timing.memory('VmHWM')
        self.peak_bytes = max(self.peak_bytes, peak)
        parent = multiprocessing.parent_process()
        if parent and not parent.is_alive():
            raise RuntimeError('The process that started this one has ended.')


def train_and_test(cfg, tell):
    """Train and test a candidate, from its last checkpoint if there is one.

    One that is trained is tested alone. What was measured of each image goes
    to :func:`images_of`.

    Args:
        cfg (Config): Of :func:`candidate_config`.
        tell (Callable): As :class:`SameConditions` has it.

    Returns:
        dict: Metrics, those of segmentation in percent, and ``peak_bytes`` of
        the training.
    """
    iterations = cfg.train_cfg.max_iters
    last = find_last_checkpoint(cfg.work_dir)
    trained = last and Path(last).name == f'iter_{iterations}.pth'
    if last:
        cfg.load_from, cfg.resume = last, not trained
    runner = build_runner(cfg)
    hook = SameConditions(cfg.randomness.seed, tell)
    images = ImageFigures(kind_of(cfg))
    runner.register_hook(hook)
    runner.register_hook(images)
    # Built now, so that test data that do not fit stop it before training.
    _ = runner.test_loop
    if trained:
        tell(iterations)
    else:
        # Slots draw their weights when training starts.
        set_random_seed(cfg.randomness.seed)
        runner.train()
    # The MSE of a matte may be small.
    metrics = {k: float(f'{v:.6g}') for k, v in runner.test().items()}
    images.save(images_of(cfg), metrics)
    peak = hook.peak_bytes
    if not peak:  # in a checkpoint of an older version
        older = result_of(cfg)
        text = older.read_text() if older.is_file() else '{}'
        peak = json.loads(text).get('peak_bytes', math.nan)
    return dict(metrics, peak_bytes=peak)


def result_of(cfg):
    """Name the file of a candidate's result, which is there once tested."""
    return Path(cfg.work_dir, f'{cfg.result}.json')


def images_of(cfg):
    """Name the file of what is measured of each image."""
    return result_of(cfg).with_suffix('.npz')


def is_finished(cfg):
    """Tell whether there is all that is measured of a candidate."""
    return result_of(cfg).is_file() and images_of(cfg).is_file()


def train_all(cfgs, jobs=0):
    """Train and test all candidates that are not finished.

    Each has a process of its own, which writes what it prints to ``run.log``
    in the work dir, and what :func:`train_and_test` returns to
    :func:`result_of`.

    Args:
        cfgs (list[Config]): Of :func:`candidate_config`.
        jobs (int): Processes at a time; 0 for one per GPU or, without one,
            per core.

    Raises:
        ConfigError: Some failed.
    """
    jobs = jobs or torch.cuda.device_count() or len(os.sched_getaffinity(0))
    todo = [cfg for cfg in cfgs if not is_finished(cfg)]
    context = multiprocessing.get_context('spawn')
    progress, processes = context.RawArray('q', len(cfgs)), []
    iterations = cfgs[0].train_cfg.max_iters
    finished = (len(cfgs) - len(todo)) * iterations
    bar = tqdm(total=len(cfgs) * iterations, initial=finished, unit='it')

    def wait_for_less_than(count):
        while sum(process.is_alive() for process in processes) >= count:
            time.sleep(0.5)
            bar.update(finished + sum(progress) - bar.n)

    try:
        for number, cfg in enumerate(todo):
            wait_for_less_than(jobs)
            arguments = cfg, number, progress
            processes.append(context.Process(target=_run, args=arguments))
            processes[-1].start()
        wait_for_less_than(1)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        bar.close()
    failed = [cfg.work_dir for cfg in todo if not is_finished(cfg)]
    if failed:
        raise ConfigError(
            f'{len(failed)} of {len(cfgs)} trainings failed, and run.log in '
            f'{", ".join(failed)} says why; run the same command to try '
            'again, or leave these upsamplers or seeds out.'
        )


def _run(cfg, number, progress):
    # Ctrl-C goes to the parent too, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.makedirs(cfg.work_dir, exist_ok=True)
    with open(Path(cfg.work_dir, 'run.log'), 'a') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if get_device() == 'cuda':
        torch.cuda.set_device(number % torch.cuda.device_count())
    else:
        torch.set_num_threads(1)
    result = train_and_test(cfg, partial(progress.__setitem__, number))
    with complete_file(result_of(cfg)) as file:
        json.dump(result, file)
