"""Controlled comparison: a small model, trained once per upsampler and seed.

    python tools/analysis_tools/compare_upsamplers.py --out FOLDER
    python tools/analysis_tools/compare_upsamplers.py --config CONFIG ...
    python tools/analysis_tools/compare_upsamplers.py --show FILE.json

Candidates of one seed differ in their upsamplers alone: all other weights
start from the same saved state, or from the config's load_from, and batches,
augmentation and dropout are the same. Each is tested on the config's test
images; times are measured in turns when all are trained. FOLDER gets
comparison.json, .md and .png.

The same command resumes a comparison that was interrupted, with the figures
that it would have had without the interruption. On a CPU each training has
one thread, and the same command gives the same figures but for time and
memory; on a GPU some of PyTorch's own kernels add in no fixed order.
"""

import argparse
import json
import os
import statistics
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.logging import MMLogger
from prettytable import PrettyTable, TableStyle

from mmsapa.datasets.ground_truth import build_data, test_data, test_items
from mmsapa.engine import controlled_comparison as controlled
from mmsapa.engine import inference, runner, timing
from mmsapa.engine.cli import KeyValues, command_line, interruptible
from mmsapa.engine.config import (
    ConfigError,
    find_slots,
    kind_of,
)
from mmsapa.engine.images import make_folder, read_image, save
from mmsapa.evaluation.complexity import count
from mmsapa.upsamplers.presets import PRESETS
from mmsapa.visualization import Comparison, draw_comparison

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/segformer_mit-mini_sapa-g_demo.py'
# Measurements of each candidate's time, and images in the picture.
ROUNDS, IMAGES = 15, 3
# The key of each figure, its head, and digits.
SEGMENTATION = (('mIoU', 'mIoU', 2), ('mBIoU', 'boundary IoU', 2))
DEPTH = (
    ('d1', 'δ1', 3),
    ('abs_rel', 'AbsRel', 3),
    ('rmse', 'RMS, m', 3),
    ('dbe_acc', 'edges, accuracy', 2),
    ('dbe_comp', 'edges, completeness', 2),
)
MATTING = (
    ('SAD', 'SAD', 2),
    ('MSE', 'MSE', 5),
    ('Grad', 'Grad', 2),
    ('Conn', 'Conn', 2),
)
NOTES = {
    SEGMENTATION: 'Boundary IoU is mmsapa.BoundaryIoU (Cheng et al. 2021): '
    'the IoU of the pixels near contours, summed over images and averaged '
    'over classes as in mIoU.',
    DEPTH: 'Figures of an image are averaged over images, by '
    'mmsapa.DepthMetric. Edges are its depth boundary errors, in pixels, '
    'after Koch et al. 2018, with the edges found in both maps: accuracy is '
    'the mean distance from a predicted edge to a true one, completeness '
    'that from a true edge to a predicted one, up to 10. δ1 is better if '
    'higher, all others if lower.',
    MATTING: 'Figures of an image are averaged over images, by '
    'mmsapa.MattingMetric, in the unknown region of the trimap. All are '
    'better if lower.',
}


def read_config(path, options, out):
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
    if cfg.get('load_from'):
        runner.check_checkpoint(cfg.load_from)
    runner.check_data(cfg, 'train_dataloader', 'test_dataloader')
    make_folder(out)
    note = out / 'config.json'
    text = json.dumps(cfg.to_dict(), default=str, indent=1)
    if note.is_file() and note.read_text() != text:
        raise ConfigError(
            f'{out} holds a comparison with another config: expected that in '
            f'{note}, got {path} and its options; name another folder by '
            '--out, or delete this one.'
        )
    note.write_text(text)
    return cfg


def compare(cfg, out, upsamplers, seeds, jobs):
    """Train, test, count, time and draw all candidates.

    Returns:
        dict: What comparison.json holds.
    """
    data = pseudo_collate([build_data(cfg, 'test_dataloader')[0]])
    size = tuple(data['inputs'][0].shape[1:])
    counts, cfgs = {}, {}
    for name in upsamplers:
        model = inference.build_model(controlled.with_upsampler(cfg, name))
        counts[name] = count(model, size)
    for seed in seeds:
        start = out / f'seed-{seed}/init.pth'
        controlled.save_initial_state(cfg, seed, start)
        for name in upsamplers:
            cfgs[name, seed] = controlled.candidate_config(
                cfg, name, seed, start
            )
    failed = controlled.train_all([*cfgs.values()], jobs)
    if failed:
        raise ConfigError(
            f'{len(failed)} of {len(cfgs)} trainings failed, and run.log in '
            f'{", ".join(failed)} says why; the same command tries them '
            'again, and without them it compares the others.'
        )
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
    return dict(
        environment=timing.environment(get_device()),
        config=os.path.relpath(cfg.filename, ROOT),
        iterations=cfg.train_cfg.max_iters,
        size=size,
        seeds=seeds,
        rows=[
            dict(
                upsampler=name,
                params=counts[name]['params'],
                flops=counts[name]['flops'],
                seconds=timed[name]['seconds'],
                runs=[
                    dict(seed=seed, **json.loads(path.read_text()))
                    for seed in seeds
                    for path in [controlled.result_of(cfgs[name, seed])]
                ],
            )
            for name in upsamplers
        ],
    )


def draw(cfg, models, path):
    """Draw what the models predict in the first test images."""
    data = test_data(cfg)
    rows = []
    for item in test_items(cfg, data, range(min(IMAGES, len(data)))):
        predictions = {
            name: inference.predict(model, item, 0)
            for name, model in models.items()
        }
        rows.append(
            Comparison(
                read_image(item),
                predictions,
                item.ground_truth,
                name=item.name,
            )
        )
    meta = inference.metainfo_of(cfg)
    legend = inference.legend_of(meta, kind_of(cfg))
    save(draw_comparison(rows, *legend), path)


def render(result):
    """Write a comparison as Markdown: what was measured, and the table."""
    made, seeds = result['environment'], result['seeds']
    spread = f'Figures are those of seed {seeds[0]} alone'
    if len(seeds) > 1:
        spread = (
            'Figures are means ± standard deviations (n - 1) over the seeds '
            + ', '.join(map(str, seeds))
        )
    memory = 'resident memory of the training process, libraries included'
    if made['cuda']:
        memory = "memory of PyTorch's tensors on the GPU in training"
    threads = '' if made['cuda'] else ', one thread per training'
    figures = result['rows'][0]['runs'][0]
    columns = next(each for each in NOTES if each[0][0] in figures)
    heads = (
        *('upsampler', *(head for _, head, _ in columns)),
        *('parameters', 'FLOPs, G', 'ms per image', 'peak memory, MB'),
    )
    table = PrettyTable(heads, align='r')
    table.set_style(TableStyle.MARKDOWN)
    table.align[heads[0]] = 'l'
    for row in result['rows']:
        low, median, high = 1e3 * timing.quartiles(row['seconds'])
        cells = (
            row['upsampler'],
            *(mean_of(row, key, 1, digits) for key, _, digits in columns),
            f'{row["params"]:,}',
            f'{row["flops"] / 1e9:.3f}',
            f'{median:.1f} ({low:.1f} to {high:.1f})',
            mean_of(row, 'peak_bytes', 1e6, 0),
        )
        table.add_row(cells)
    return (
        f'{result["config"]}, {result["iterations"]} iterations. {spread}. '
        f'{NOTES[columns]} Parameters and FLOPs are counted as by '
        'get_flops.py, for an image of '
        f'{"x".join(map(str, result["size"]))} pixels; times are the median '
        f'and quartiles of its inference. Peak memory is the {memory}.\n'
        f'Measured on {made["date"]}, {made["machine"]}{threads}, '
        f'torch {made["torch"]}, mmsapa {made["commit"] or made["mmsapa"]}.'
        f'\n\n{table.get_string()}'
    )


def mean_of(row, key, unit, digits):
    """Mean over the seeds, ± standard deviation if there are several."""
    numbers = [run[key] / unit for run in row['runs']]
    text = f'{statistics.mean(numbers):.{digits}f}'
    if len(numbers) > 1:
        text += f' ± {statistics.stdev(numbers):.{digits}f}'
    return text


def whole_number(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f'expected a whole number, got {text}'
        )
    return int(text)


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
    add('--seeds', nargs='+', type=whole_number, default=[0], metavar='N')
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
    return parser.parse_args()


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
        cfg = read_config(args.config, args.cfg_options, args.out)
        # Each name and seed once.
        names, seeds = map(dict.fromkeys, (args.upsamplers, args.seeds))
        result = compare(cfg, args.out, [*names], [*seeds], args.jobs)
    text = render(result)
    numbers = json.dumps(result, indent=1)
    (args.out / 'comparison.json').write_text(numbers + '\n')
    (args.out / 'comparison.md').write_text(text + '\n')
    print(text)


if __name__ == '__main__':
    main()
