"""A fair race: a small model, trained once for each upsampler and seed.

    python tools/analysis_tools/race.py
    python tools/analysis_tools/race.py --upsamplers fade sapa-b --seeds 0 1
    python tools/analysis_tools/race.py --config CONFIG --jobs 4 --out FOLDER
    python tools/analysis_tools/race.py --out FOLDER --show

Runs of one seed differ in their upsamplers alone: all other weights start
from the same numbers, the batches are the same, flips and all, and so is the
randomness of dropout. Each run notes a hash of the weights that it started
from and of all batches, and the race compares them. After training the model
is tested on the config's test images; times are taken when all are trained,
in turns. Where the config has a load_from, all runs start from that trained
model, and upsamplers alone are new.

A race that was stopped, by whatever, goes on when it is started again: runs
that are finished stay, and the others go on from their last checkpoint, with
the figures that they would have had otherwise. On a CPU each run has one
thread, and the same command gives the same figures but for time and memory;
on a GPU some of PyTorch's own kernels add in no fixed order.
"""

import argparse
import copy
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import cv2
import mmcv
import mmcv.ops  # registers carafe
import mmengine
import mmseg
import numpy as np
import race_run
import torch
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.runner import load_checkpoint
from race_run import PREDICTIONS, RESULT, digest, slots_of, weights_of, write
from race_table import render
from tqdm import tqdm

import mmsapa
from mmsapa.datasets.demo_data import make_dataset
from mmsapa.datasets.ground_truth import build_data, test_data, test_items
from mmsapa.engine import timing
from mmsapa.engine.checkpoint import (
    CheckpointError,
    allow_training_checkpoints,
)
from mmsapa.engine.config import leaf_datasets, library_of
from mmsapa.engine.images import make_folder, read_image, save
from mmsapa.engine.inference import build_model, legend_of, metainfo_of
from mmsapa.engine.runner import (
    KeyValues,
    check_checkpoint,
    check_data,
    command_line,
    interruptible,
    load_config,
)
from mmsapa.evaluation import complexity
from mmsapa.upsamplers.presets import PRESETS
from mmsapa.visualization import Comparison, draw_comparison

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/segformer_mit-mini_sapa-g_demo.py'
DATA = 'data/demo'
ROUNDS = 15
# What a run's folder holds, besides what race_run.py writes.
SETTINGS, LOG = 'settings.json', 'run.log'


# ---- what is raced ----------------------------------------------------------


def read_config(path, options=None):
    """Read the config of a segmentor with a slot.

    Args:
        path (str | Path): Config file.
        options (dict, optional): What is put in place of its settings.

    Returns:
        Config: The config.
    """
    cfg = load_config(str(path), options)
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    if library_of(cfg) != 'mmseg' or not slots_of(cfg):
        sys.exit(
            f'{path}: expected a config of MMSegmentation with a slot, such '
            f"as mmsapa.SegformerHead's upsample_cfg; take {CONFIG} as an "
            'example.'
        )
    train_cfg = cfg.get('train_cfg') or {}
    if 'max_iters' not in train_cfg:
        sys.exit(
            f'{path}: expected a training of so many iterations, '
            f'train_cfg.max_iters, got {dict(train_cfg)}.'
        )
    for name in ('train_dataloader', 'test_dataloader'):
        if not cfg.get(name):
            sys.exit(f'{path}: expected a {name}, got none.')
    return cfg


def config_of_run(cfg, upsampler, seed):
    """The config that a run is trained and tested by.

    Args:
        cfg (Config): The race's.
        upsampler (str): Name in PRESETS.
        seed (int): Of everything random.

    Returns:
        Config: A copy with these in it.
    """
    cfg = copy.deepcopy(cfg)
    for slot in slots_of(cfg):
        slot['upsample_cfg'] = copy.deepcopy(PRESETS[upsampler])
    cfg.randomness = dict(seed=seed)
    cfg.setdefault('env_cfg', {})
    cfg.env_cfg.cudnn_benchmark = False
    # Every run starts from it, and none goes on from it.
    cfg.start_from, cfg.load_from = cfg.get('load_from'), None
    cfg.resume = False
    # A worker draws flips from a seed that it is told; this process has one
    # stream for these and for whatever else is random.
    if not cfg.train_dataloader.get('num_workers'):
        cfg.train_dataloader.num_workers = 1
    # Tested once, after the last iteration.
    for name in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[name] = None
    cfg.setdefault('default_hooks', {})
    cfg.default_hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    keep = cfg.default_hooks.checkpoint
    keep.pop('save_best', None)
    # One that is being written may be torn.
    keep.update(by_epoch=False, max_keep_ckpts=2)
    cfg.test_evaluator = [
        dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
        dict(type='mmsapa.BoundaryIoU'),
    ]
    return cfg


def settings_of(cfg, surroundings):
    """All that a run's figures hang on, as JSON has it."""
    settings = dict(config=cfg.to_dict(), **surroundings)
    return json.loads(json.dumps(settings, default=str))


def surroundings_of(cfg):
    """What figures hang on besides a run's config.

    Returns:
        dict: Names and sizes of the data's files, the checkpoint to start
        from, the code that computes, versions, and the machine.
    """
    package = Path(mmsapa.__file__).parent
    code = [
        *package.glob('_C*'),
        *package.glob('ops/*.py'),
        *package.glob('upsamplers/*.py'),
        *package.glob('seg/*.py'),
    ]
    modules = torch, np, cv2, mmengine, mmcv, mmseg, mmsapa
    data = {}
    for part in ('train', 'test'):
        dataset = build_data(cfg, f'{part}_dataloader')
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        data[part] = digest(json.dumps(sizes_of(infos)).encode())
    start = Path(cfg.get('load_from') or '')
    return dict(
        data=data,
        start=digest(start.read_bytes()) if start.is_file() else None,
        code=digest(*(path.read_bytes() for path in sorted(code))),
        versions={module.__name__: module.__version__ for module in modules},
        machine=timing.environment(get_device())['machine'],
    )


def sizes_of(infos):
    """Names and sizes of images and their label maps."""
    try:
        return [
            (Path(path).name, os.path.getsize(path))
            for info in infos
            for path in (info['img_path'], info['seg_map_path'])
        ]
    except KeyError:
        sys.exit(
            'A race needs label maps, to train and to test with: expected '
            'data_prefix.seg_map_path in all data of the config.'
        )
    except OSError as error:
        sys.exit(f'A race needs all images and label maps: {error}.')


def differences(there, here, name=''):
    """Where two settings differ, in words."""
    if isinstance(there, list) and isinstance(here, list):
        there, here = (dict(enumerate(items)) for items in (there, here))
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return [] if there == here else [f'{name} ({there} there, {here} now)']
    return [
        words
        for key in {**there, **here}
        for words in differences(
            there.get(key), here.get(key), f'{name}.{key}'.strip('.')
        )
    ]


def draw_scenes(cfg):
    """Draw the demo's scenes if the config wants them and there are none."""
    root = Path(DATA, 'ade')
    (leaf, *_) = leaf_datasets(cfg.train_dataloader.dataset)
    wanted = Path(leaf.get('data_root') or '')
    if wanted.parent == root and not root.exists():
        make_dataset(DATA, 'ade')


# ---- all runs ---------------------------------------------------------------


@contextmanager
def lock(out):
    """Wait until no other race, nor what is left of one, is in a folder.

    Yields:
        int: A file, for processes that shall keep the lock too.
    """
    with open(out / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'Another race is in {out}: waiting for its end.')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def folder_of(out, upsampler, seed):
    return out / 'runs' / upsampler / f'seed-{seed}'


def prepare(out, cfg, runs, redo):
    """Make the folders of runs, and see to it that no other's are used.

    Args:
        out (Path): The race's folder.
        cfg (Config): The race's.
        runs (list[tuple[str, int]]): Upsamplers and seeds.
        redo (bool): Whether runs with other settings are thrown away.

    Returns:
        dict[Path, dict]: The folders, and the settings of each.
    """
    surroundings = surroundings_of(cfg)
    configs = {folder_of(out, *run): config_of_run(cfg, *run) for run in runs}
    settings = {
        folder: settings_of(config, surroundings)
        for folder, config in configs.items()
    }
    others = {
        folder: differences(json.loads((folder / SETTINGS).read_text()), want)
        for folder, want in settings.items()
        if (folder / SETTINGS).is_file()
    }
    others = {folder: words for folder, words in others.items() if words}
    if others and not redo:
        folder, words = next(iter(others.items()))
        more = f' and {len(words) - 4} more' if len(words) > 4 else ''
        sys.exit(
            f'{len(others)} of {len(runs)} runs were made otherwise and are '
            f'not mixed with new ones: {folder} differs in '
            f'{", ".join(words[:4])}{more}. Name another folder with --out, '
            'or have these run anew with --redo.'
        )
    if cfg.get('load_from'):
        # What does not fit is found before any work.
        try:
            race_run.start_of(next(iter(configs.values())))
        except CheckpointError as error:
            sys.exit(str(error))
    for folder in others:
        print(f'{folder}: was made otherwise, runs anew.')
    for folder, config in configs.items():
        if not (folder / SETTINGS).is_file() or folder in others:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            config.dump(folder / race_run.CONFIG)
            # Last: a folder that has it is complete.
            write(folder / SETTINGS, json.dumps(settings[folder], indent=1))
    return settings


def places(jobs=None):
    """Environments in which runs are trained side by side, one in each."""
    if get_device() != 'cuda':
        jobs = jobs or len(os.sched_getaffinity(0))
        return [dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')] * jobs
    devices = os.environ.get('CUDA_VISIBLE_DEVICES')
    devices = devices.split(',') if devices else torch.cuda.device_count()
    if isinstance(devices, int):
        devices = list(map(str, range(devices)))
    return [
        dict(CUDA_VISIBLE_DEVICES=device)
        for device in islice(cycle(devices), jobs or len(devices))
    ]


def train_all(folders, iterations, where, keep):
    """Train and test what is not finished, each run in its own process.

    Args:
        folders (list[Path]): Of all runs.
        iterations (int): Of each.
        where (list[dict]): See :func:`places`.
        keep (int): A file that the processes shall hold open.

    Returns:
        dict[Path, str]: Why a run has no result, where that is so.
    """
    todo = [folder for folder in folders if not (folder / RESULT).is_file()]
    free = queue.SimpleQueue()
    for place in where:
        free.put(place)
    mutex, stopping, processes, failed = threading.Lock(), [], [], {}
    done = len(folders) - len(todo)
    bar = tqdm(
        total=len(folders) * iterations,
        initial=done * iterations,
        desc=f'{done} of {len(folders)} runs',
        unit='it',
        disable=not todo,
    )

    def train(folder):
        place = free.get()
        try:
            with mutex:
                if stopping:
                    return
                process = start(folder, place, keep)
                processes.append(process)
            at = 0
            for line in process.stdout:
                # Some library may greet as well.
                if line.strip().isdecimal():
                    with mutex:
                        bar.update(int(line) - at)
                    at = int(line)
            code = process.wait()
        finally:
            free.put(place)
        if not (folder / RESULT).is_file():
            failed[folder] = last_words(folder, code)
        with mutex:
            finished = sum((f / RESULT).is_file() for f in folders)
            bar.set_description(f'{finished} of {len(folders)} runs')

    pool = ThreadPoolExecutor(len(where))
    try:
        for _ in pool.map(train, todo):
            pass
    except BaseException:
        with mutex:
            stopping.append(True)
            for process in processes:
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    return failed


def start(folder, place, keep):
    with open(folder / LOG, 'a') as log:
        return subprocess.Popen(
            [sys.executable, race_run.__file__, folder],
            env={**os.environ, **place},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            pass_fds=[keep],
        )


def last_words(folder, code):
    lines = (folder / LOG).read_text(errors='replace').split('\n')
    lines = [line.strip() for line in lines if line.strip()]
    if code < 0:
        return f'it was ended by signal {-code}'
    return lines[-1] if lines else f'it ended with {code}'


# ---- figures ----------------------------------------------------------------


def one_image(cfg):
    """The first test image, as a model gets it."""
    return pseudo_collate([build_data(cfg, 'test_dataloader')[0]])


def count(cfg):
    """Parameters and FLOPs of a run's model for one test image.

    Returns:
        dict: ``params`` and ``flops``, as get_flops.py counts them.
    """
    model = build_model(cfg)
    if hasattr(model, 'auxiliary_head'):
        model.auxiliary_head = None
    size = tuple(one_image(cfg)['inputs'][0].shape[1:])
    counts = complexity.count(model, size)
    return dict(params=counts['params'], flops=counts['flops'])


def time_all(configs, folders, settings, path):
    """Time the inference of one test image, all upsamplers in turns.

    Args:
        configs (dict[str, Config]): The first run of each upsampler.
        folders (dict[str, Path]): Their folders.
        settings (dict[str, dict]): Their settings.
        path (Path): File that keeps the times.

    Returns:
        dict: ``seconds`` of each upsampler, in each round, and the
        ``environment`` in which they were taken.
    """
    made = {
        name: digest(json.dumps(settings[name]).encode()) for name in configs
    }
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        kept = {}
    if kept.get('settings') == made:
        return kept
    device, runs = get_device(), {}
    for name, cfg in configs.items():
        model = build_model(cfg)
        weights = weights_of(folders[name], cfg.train_cfg.max_iters)
        load_checkpoint(
            model, str(weights), map_location='cpu', logger='silent'
        )
        model.to(device)
        data = one_image(cfg)
        runs[name] = torch.no_grad()(
            lambda model=model, data=data: model.test_step(data)
        )
    bar = tqdm(total=len(runs) * (ROUNDS + 1))

    def tick(name):
        bar.set_description(f'timing {name}')
        bar.update()

    timed = timing.time_in_rounds(runs, ROUNDS, 1, tick)
    bar.close()
    for name, row in timed.items():
        if 'reason' in row:
            raise RuntimeError(f'{name} cannot be timed: {row["reason"]}')
    taken = dict(
        settings=made,
        environment=timing.environment(device),
        seconds={name: row['seconds'] for name, row in timed.items()},
    )
    write(path, json.dumps(taken))
    return taken


def collect(out, cfg, upsamplers, seeds, settings, failed):
    """Bring the figures of all finished runs together.

    Returns:
        dict: What race.json holds.
    """
    results, configs, firsts = {}, {}, {}
    for name in upsamplers:
        found = {
            seed: json.loads((folder / RESULT).read_text())
            for seed in seeds
            if (folder := folder_of(out, name, seed)) not in failed
        }
        if found:
            results[name] = found
            first = next(iter(found))
            firsts[name] = folder_of(out, name, first)
            configs[name] = config_of_run(cfg, name, first)
    compare_notes(results)
    times = time_all(
        configs,
        firsts,
        {name: settings[folder] for name, folder in firsts.items()},
        out / 'times.json',
    )
    rows = [
        dict(
            upsampler=name,
            **count(configs[name]),
            seconds=times['seconds'][name],
            runs=[dict(seed=s, **run) for s, run in results[name].items()],
        )
        for name in results
    ]
    return dict(
        environment=times['environment'],
        config=os.path.relpath(cfg.filename, ROOT),
        iterations=cfg.train_cfg.max_iters,
        size=list(one_image(cfg)['inputs'][0].shape[1:]),
        seeds=seeds,
        rows=rows,
        failed={
            str(folder.relative_to(out)): why for folder, why in failed.items()
        },
    )


def compare_notes(results):
    """Stop if runs of one seed had other weights or batches."""
    for seed in {seed for runs in results.values() for seed in runs}:
        for what in ('start', 'batches'):
            notes = {
                name: runs[seed][what]
                for name, runs in results.items()
                if seed in runs
            }
            if len(set(notes.values())) > 1:
                sys.exit(
                    f'Not a fair race: with seed {seed} expected the same '
                    f'{what} for all upsamplers, got {notes}.'
                )


def draw_sheet(out, cfg, rows, seed, count=3):
    """Draw upsamplers side by side, on the first test images.

    Args:
        out (Path): The race's folder.
        cfg (Config): The race's.
        rows (list[dict]): Of the result; upsamplers are drawn that have one
            of the seed.
        seed (int): Of the runs whose predictions are shown.
        count (int): Number of test images. Default: 3.
    """
    folders = {
        row['upsampler']: folder_of(out, row['upsampler'], seed)
        for row in rows
        if seed in (run['seed'] for run in row['runs'])
    }
    picture = out / 'race.png'
    if not folders:
        picture.unlink(missing_ok=True)
        return
    data = test_data(cfg)
    paths = [data[index]['img_path'] for index in range(len(data))]
    comparisons = []
    for item in test_items(cfg, data, to_draw(paths)[:count]):
        predictions = {}
        # As the data set stores them: 0 may stand for what is ignored.
        shift = bool(item.info.get('reduce_zero_label'))
        for name, folder in folders.items():
            stored = mmcv.imread(
                folder / PREDICTIONS / f'{item.name}.png', 'unchanged'
            )
            predictions[name] = stored.astype(int) - shift
        comparisons.append(
            Comparison(
                read_image(item),
                predictions,
                item.ground_truth,
                name=item.name,
            )
        )
    if comparisons:
        legend = legend_of(metainfo_of(cfg), library_of(cfg))
        save(draw_comparison(comparisons, *legend), picture)


def to_draw(paths):
    """Indices of images whose predictions lie in a file of their own.

    It has an image's name without its folder, which images of several data
    sets may share.
    """
    folders = {}
    for path in map(Path, paths):
        folders.setdefault(path.stem, set()).add(path)
    first = {Path(path).stem: i for i, path in reversed([*enumerate(paths)])}
    return sorted(i for stem, i in first.items() if len(folders[stem]) == 1)


# ---- command line -----------------------------------------------------------


def race(args):
    out = Path(args.out)
    cfg = read_config(args.config, args.cfg_options)
    make_folder(out)
    draw_scenes(cfg)
    check_data(cfg, 'train_dataloader', 'test_dataloader')
    allow_training_checkpoints()
    runs = [(name, seed) for seed in args.seeds for name in args.upsamplers]
    with lock(out) as keep:
        settings = prepare(out, cfg, runs, args.redo)
        failed = train_all(
            list(settings),
            cfg.train_cfg.max_iters,
            places(args.jobs),
            keep,
        )
        result = collect(
            out, cfg, args.upsamplers, args.seeds, settings, failed
        )
        write(out / 'race.json', json.dumps(result, indent=1))
        write(out / 'race.md', render(result, 'markdown'))
        draw_sheet(out, cfg, result['rows'], args.seeds[0])
    print(render(result, args.format))
    if failed:
        sys.exit(
            f'{len(failed)} of {len(runs)} runs have no result; '
            f'{next(iter(failed)) / LOG} says more. The same command goes on.'
        )


def show(args):
    path = Path(args.out, 'race.json')
    if not path.is_file():
        sys.exit(f'{args.out} holds no finished race: there is no {path}.')
    try:
        print(render(json.loads(path.read_text()), args.format))
    except (LookupError, TypeError, ValueError) as error:
        sys.exit(f'{path} is no result of a race: {error!r}')


def positive(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(
            f'expected a number from 1 on, got {text}.'
        )
    return int(text)


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--config',
        default=str(CONFIG),
        help='of a segmentor with a slot; default: %(default)s',
    )
    parser.add_argument(
        '--upsamplers',
        nargs='+',
        choices=PRESETS,
        default=['nearest', 'bilinear', 'sapa-i', 'sapa-b', 'sapa-g'],
        metavar='NAME',
        help=', '.join(PRESETS),
    )
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[0], metavar='N'
    )
    parser.add_argument(
        '--jobs',
        type=positive,
        metavar='N',
        help='runs at the same time; default: one a GPU, or one a core',
    )
    parser.add_argument(
        '--out', default='work_dirs/race', help='folder; default: %(default)s'
    )
    parser.add_argument(
        '--redo',
        action='store_true',
        help='throw away runs in it that were made with other settings',
    )
    parser.add_argument(
        '--show',
        action='store_true',
        help='only print the table of the race that is in it',
    )
    parser.add_argument(
        '--format', choices=['text', 'markdown'], default='text'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings that replace those of the config',
    )
    args = parser.parse_args(argv)
    for name in ('upsamplers', 'seeds'):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


def main(argv=None):
    args = parse_args(argv)
    # The libraries' asides would tear the progress bar.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    if args.show:
        return show(args)
    words = sys.argv[1:] if argv is None else argv
    again = command_line(sys.argv[0], *words)
    with interruptible(f'Stopped. To go on: {again}'):
        race(args)


if __name__ == '__main__':
    main()
