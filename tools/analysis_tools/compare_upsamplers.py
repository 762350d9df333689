"""Controlled comparison: a small model, trained once per upsampler and seed.

    python tools/analysis_tools/compare_upsamplers.py --out FOLDER
    python tools/analysis_tools/compare_upsamplers.py --config CONFIG ...
    python tools/analysis_tools/compare_upsamplers.py --show FILE.json

Candidates of one seed differ in their upsamplers alone: all other weights
start from the same saved state, or from the config's load_from, and batches,
augmentation and dropout are the same. Each is tested on the config's test
images; times are measured in turns when all are trained. FOLDER gets
comparison.json, .md and .png: figures, those of each class, and differences
from a baseline, paired by seed and image.

With --lrs, each upsampler is trained with every rate and the first seed, and
keeps for all seeds the rate that is best on the config's validation images.
Only then is it tested.

The same command resumes a comparison that was interrupted, with the figures
that it would have had without the interruption. On a CPU each training has
one thread, and the same command gives the same figures but for time and
memory; on a GPU some of PyTorch's own kernels add in no fixed order.
"""

import argparse
import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.logging import MMLogger

from mmsapa.datasets.ground_truth import (
    build_data,
    read_trimap,
    test_data,
    test_items,
)
from mmsapa.datasets.processes import complete_file, make_folder
from mmsapa.engine import controlled_comparison as controlled
from mmsapa.engine import (
    image_figures,
    inference,
    learning_rates,
    runner,
    timing,
)
from mmsapa.engine.cli import KeyValues, command_line, interruptible
from mmsapa.engine.comparison_page import render
from mmsapa.engine.config import ConfigError, find_slots, kind_of
from mmsapa.engine.images import read_image, save
from mmsapa.evaluation.complexity import count
from mmsapa.upsamplers.presets import PRESETS
from mmsapa.visualization import Comparison, draw_comparison

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/segformer_mit-mini_sapa-g_demo.py'
# Measurements of each candidate's time, and images in the picture.
ROUNDS, IMAGES = 15, 3


def read_config(path, options, out, rates=()):
    """Read a comparison's config, check it, and note it in its folder."""
    cfg = runner.load_config(path, options)
    if not (
        kind_of(cfg) != 'detector'
        and find_slots(cfg.model)
        and 'max_iters' in (cfg.get('train_cfg') or {})
        and cfg.get('train_dataloader')
        and cfg.get('test_dataloader')
    ):
        raise ConfigError(
            f'{path}: expected a config of a segmentor, depth estimator or '
            'mattor with an upsample_cfg in its model, train_cfg.max_iters, a '
            f'train_dataloader and a test_dataloader, as {CONFIG} has them.'
        )
    if rates and not (
        cfg.get('val_dataloader')
        and cfg.val_dataloader.dataset != cfg.test_dataloader.dataset
        and 'lr' in (cfg.get('optim_wrapper') or {}).get('optimizer', ())
    ):
        raise ConfigError(
            f'{path}: expected a val_dataloader with other images than those '
            'of test_dataloader, and optim_wrapper.optimizer.lr, to choose '
            'learning rates; set them by --cfg-options, or leave --lrs out.'
        )
    if cfg.get('load_from'):
        runner.check_checkpoint(cfg.load_from)
    loaders = ('train', 'val', 'test') if rates else ('train', 'test')
    runner.check_data(cfg, *(f'{name}_dataloader' for name in loaders))
    make_folder(out)
    note = out / 'config.json'
    text = json.dumps(cfg.to_dict(), default=str, indent=1)
    if note.is_file() and note.read_text() != text:
        raise ConfigError(
            f'{out} holds a comparison with another config: expected that in '
            f'{note}, got {path} and its options; name another folder by '
            '--out, or delete this one.'
        )
    with complete_file(note) as file:
        file.write(text)
    return cfg


def compare(cfg, out, upsamplers, seeds, jobs, baseline, rates=()):
    """Train, test, count, time and draw all candidates.

    Args:
        cfg (Config): Of :func:`read_config`.
        out (Path): Folder.
        upsamplers (list[str]): Names in PRESETS.
        seeds (list[int]): Of the trainings.
        jobs (int): Trainings at a time.
        baseline (str): The upsampler that the others are compared with.
        rates (list[float]): Learning rates to choose from, if any.

    Returns:
        dict: What comparison.json holds.
    """
    data = pseudo_collate([build_data(cfg, 'test_dataloader')[0]])
    size = tuple(data['inputs'][0].shape[1:])
    counts = {}
    for name in upsamplers:
        model = inference.build_model(controlled.with_upsampler(cfg, name))
        counts[name] = count(model, size)
    starts = {seed: out / f'seed-{seed}/init.pth' for seed in seeds}
    for seed, start in starts.items():
        controlled.save_initial_state(cfg, seed, start)
    chosen, validation = {}, {}
    if rates:
        print('Choosing learning rates.')
        chosen, validation = learning_rates.choose_rates(
            cfg, upsamplers, seeds[0], starts[seeds[0]], rates, jobs
        )
    cfgs = {
        (name, seed): controlled.candidate_config(
            cfg, name, seed, start, chosen.get(name)
        )
        for seed, start in starts.items()
        for name in upsamplers
    }
    controlled.train_all([*cfgs.values()], jobs)
    models = {}
    for name in upsamplers:
        first = cfgs[name, seeds[0]]
        weights = f'{first.work_dir}/iter_{cfg.train_cfg.max_iters}.pth'
        models[name] = inference.load_model(first, weights, get_device(), '')
    print('Measuring times.')
    runs = {
        name: torch.no_grad()(partial(model.test_step, data))
        for name, model in models.items()
    }
    timed = timing.time_in_rounds(runs, ROUNDS, 1, lambda name: None)
    draw(cfg, models, out / 'comparison.png')
    result = dict(
        environment=timing.environment(get_device()),
        config=os.path.relpath(cfg.filename, ROOT),
        iterations=cfg.train_cfg.max_iters,
        size=size,
        seeds=seeds,
        rows=[],
    )
    if rates:
        result['rates'] = rates
    if len(upsamplers) > 1:
        result['baseline'] = baseline
    if kind_of(cfg) == 'segmentor':
        result['classes'] = inference.metainfo_of(cfg)['classes']
    for name in upsamplers:
        row = dict(
            upsampler=name,
            params=counts[name]['params'],
            flops=counts[name]['flops'],
            seconds=timed[name]['seconds'],
            runs=[
                read_run(cfgs[name, seed], 'classes' in result)
                for seed in seeds
            ],
        )
        if rates:
            row.update(rate=chosen[name], validation=validation[name])
        if name != baseline:
            row['paired'] = image_figures.compare_pairs(
                *(
                    [controlled.images_of(cfgs[x, seed]) for seed in seeds]
                    for x in (name, baseline)
                )
            )
        result['rows'].append(row)
    return result


def read_run(cfg, by_class):
    """Read what was measured of a candidate."""
    run = json.loads(controlled.result_of(cfg).read_text())
    if by_class:
        images = controlled.images_of(cfg)
        run['classes'] = image_figures.figures_by_class(images)
    return dict(seed=cfg.randomness.seed, **run)


def draw(cfg, models, path):
    """Draw what the models predict in the first test images."""
    data = test_data(cfg)
    rows = [
        Comparison(
            read_image(item),
            {
                name: inference.predict(model, item, 0)
                for name, model in models.items()
            },
            item.ground_truth,
            name=item.name,
            trimap=read_trimap(item),
        )
        for item in test_items(cfg, data, range(min(IMAGES, len(data))))
    ]
    meta = inference.metainfo_of(cfg)
    legend = inference.legend_of(meta, kind_of(cfg))
    save(draw_comparison(rows, *legend), path)


def whole_number(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f'expected a whole number, got {text}'
        )
    return int(text)


def positive_number(text):
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float('inf'):
        raise argparse.ArgumentTypeError(
            f'expected a number above 0, got {text}'
        )
    return number


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        '--config',
        default=str(CONFIG),
        help='of a segmentor, depth estimator or mattor with a slot; '
        'default: %(default)s',
    )
    add(
        '--upsamplers',
        nargs='+',
        choices=PRESETS,
        default=['nearest', 'bilinear', 'sapa-i', 'sapa-b', 'sapa-g'],
        metavar='NAME',
        help=', '.join(PRESETS),
    )
    add(
        '--baseline',
        metavar='NAME',
        help='upsampler that the others are compared with; default: the first',
    )
    add('--seeds', nargs='+', type=whole_number, default=[0], metavar='N')
    add(
        '--lrs',
        nargs='+',
        type=positive_number,
        default=[],
        metavar='LR',
        help="learning rates to choose from; default: the config's alone",
    )
    add(
        '--jobs',
        type=whole_number,
        default=0,
        metavar='N',
        help='trainings at a time; default: one per GPU, or one per core',
    )
    add(
        '--out',
        type=Path,
        default='work_dirs/comparison',
        help='folder; default: %(default)s',
    )
    add(
        '--show',
        type=Path,
        metavar='FILE.json',
        help='only print the table of a comparison',
    )
    add(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='settings that replace those of the config',
    )
    args = parser.parse_args()
    args.baseline = args.baseline or args.upsamplers[0]
    if args.baseline not in args.upsamplers:
        parser.error(
            f'--baseline: expected one of {", ".join(args.upsamplers)}, got '
            f'{args.baseline}'
        )
    return args


def main():
    args = parse_args()
    if args.show:
        try:
            return print(render(json.loads(args.show.read_text())))
        except (LookupError, OSError, TypeError, ValueError) as error:
            sys.exit(f'{args.show}: expected a comparison, got {error!r}.')
    # The libraries' messages would break up the progress bar.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    MMLogger.get_current_instance().setLevel('WARNING')
    again = command_line(*sys.argv)
    with interruptible(f'Stopped. To resume: {again}'):
        cfg = read_config(args.config, args.cfg_options, args.out, args.lrs)
        # Each name, seed and rate once.
        names, seeds, rates = (
            [*dict.fromkeys(x)]
            for x in (args.upsamplers, args.seeds, args.lrs)
        )
        result = compare(
            cfg, args.out, names, seeds, args.jobs, args.baseline, rates
        )
    text = render(result)
    for name, content in (
        ('comparison.json', json.dumps(result, indent=1)),
        ('comparison.md', text),
    ):
        with complete_file(args.out / name) as file:
            file.write(content + '\n')
    print(text)


if __name__ == '__main__':
    main()
