"""Time and memory of SAPA and of other upsamplers.

    python tools/analysis_tools/benchmark_upsamplers.py operator
    python tools/analysis_tools/benchmark_upsamplers.py layer --device cuda
    python tools/analysis_tools/benchmark_upsamplers.py scaling --threads 1 2
    python tools/analysis_tools/benchmark_upsamplers.py model --size 512x512
    python tools/analysis_tools/benchmark_upsamplers.py show FILE.json

operator: the bare operators, given queries, keys and values (CARAFE: its
    weights; mmcv-carafe needs a GPU). Whatever computes SAPA is first compared
    with mmsapa.ops.sapa_upsample_reference, forward and backward.
layer: upsample layers with their norms and projections, given guide and x.
scaling: operators from 8x8 to 1024x1024, and in batch.
model: whole models at inference, batch 1, random weights. For the share of
    the upsampling, the calls of all slots in one inference are recorded by
    forward hooks and timed alone.
show: tables and plot of an earlier run.

A measurement lasts at least 0.15 s, and they take turns: each candidate once,
then each again. Memory is the peak of one pass beyond inputs, outputs and
gradients; on a CPU with one thread, and only where the system tells (Linux).
While times are taken, malloc keeps what is freed (glibc): new pages from the
system would cost every candidate the same, and more than the candidate does.

On a CPU, PyTorch interpolates small maps (high-res H + W <= 128, C > 3) in
NHWC, at several times the cost per pixel: a ratio to bilinear at 32x32 is not
one at 64x64.
"""

import argparse
import functools
import itertools
import json
import os
import re
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from mmsapa.datasets.processes import make_folder
from mmsapa.engine import candidates, timing
from mmsapa.engine.candidates import LAYERS, OPERATORS, SHAPES, Shape
from mmsapa.engine.cli import interruptible
from mmsapa.engine.config import read_config
from mmsapa.visualization.timing import draw, markdown

ROOT = Path(__file__).parents[2]
PASSES = ['forward', 'forward+backward']
# Config, the part of cfg.model that takes upsample_cfg, size of the image.
MODELS = {
    'segformer': (
        'segformer/segformer_mit-b1_sapa-g_1xb16-160k_ade20k-512x512.py',
        'decode_head',
        (512, 512),
    ),
    'faster-rcnn': (
        'faster_rcnn/faster-rcnn_r50_fpn-sapa-g_1x_coco.py',
        'neck',
        (800, 1344),
    ),
}
CANDIDATES = dict(
    operator=[name for name in OPERATORS if name != 'reference'],
    layer=[
        *('sapa-i', 'sapa-b', 'sapa-g', 'sapa-b-bilinear', 'sapa-g-bilinear'),
        *('dysample', 'carafe', 'mmcv-carafe', 'deconv'),
        *('nearest', 'bilinear'),
    ],
    scaling=['sapa', 'tiled', 'bilinear', 'nearest'],
    model=['sapa-i', 'sapa-b', 'sapa-g', 'nearest', 'bilinear'],
)
# glibc's malloc keeps what is freed, as PyTorch does on a GPU. Otherwise a
# call may or may not have to fetch its result's pages from the system,
# whatever came before it, and that takes as long as the call.
KEEPING_MALLOC = dict(
    MALLOC_MMAP_MAX_='0', MALLOC_TRIM_THRESHOLD_=str(1 << 40)
)


def keep_memory():
    """Start this program anew where malloc does not keep what is freed."""
    if not KEEPING_MALLOC.items() <= os.environ.items():
        os.environ.update(KEEPING_MALLOC)
        os.execv(sys.executable, [sys.executable, *sys.argv])


cpu_extra_bytes = functools.cache(
    functools.partial(timing.cpu_extra_bytes, candidates.memory_runs)
)


def ticker(bar, title):
    """A function that tells the bar what is timed next."""

    def tick(key):
        bar.set_description(f'{title} {" ".join(key)}')
        bar.update()

    return tick


def run_cases(args, shapes):
    """Measure operators or layers: a row for each case, pass, candidate."""
    kind = 'layer' if args.subcommand == 'layer' else 'operator'
    cases = list(itertools.product(args.threads, args.dtypes, shapes))
    pairs = list(itertools.product(args.passes, args.candidates))
    rows = []
    bar = tqdm(total=len(cases) * len(pairs) * (args.rounds + 2))
    for threads, dtype, shape in cases:
        tick = ticker(bar, f'{shape.name} {dtype}')
        torch.set_num_threads(threads)
        torch.compiler.reset()
        runs, results = {}, {}
        for name in args.candidates:
            case = kind, name, shape, dtype, args.device
            bar.set_description(f'{shape.name} {dtype} checking {name}')
            try:
                candidates.check(*case)
            except Exception as error:  # wrong, or no such kernel here
                fault = dict(reason=timing.first_line(error))
                results.update({(x, name): fault for x in args.passes})
                continue
            prepared = candidates.prepare(*case)
            for passes in args.passes:
                runs[passes, name] = timing.make_run(
                    *prepared, backward=passes != 'forward'
                )
        results.update(
            timing.time_in_rounds(
                runs, args.rounds, threads, tick, args.min_seconds
            )
        )
        for key in pairs:
            tick(key)
            passes, name = key
            backward = passes != 'forward'
            row = dict(
                candidate=name,
                shape=shape.title,
                dtype=dtype,
                threads=threads,
                passes=passes,
                pixels=shape.pixels,
                floor_bytes=shape.floor_bytes(dtype, backward),
                **results[key],
            )
            if args.memory and 'seconds' in row:
                if args.device == 'cuda':
                    row['extra_bytes'] = timing.cuda_extra_bytes(runs[key])
                else:
                    row['extra_bytes'] = cpu_extra_bytes(
                        kind, name, shape, dtype, backward
                    )
            rows.append(row)
    bar.close()
    return rows


def run_operators(args):
    shapes = [shape._replace(n=args.batch or shape.n) for shape in args.shapes]
    return run_cases(args, shapes)


def run_scaling(args):
    c, e, longest = args.channels, 32, args.max_side
    side = min(64, longest)
    growing = {
        'one map': [(1, 2**i, 2**i) for i in range(3, 11) if 2**i <= longest],
        f'batch of {side}x{side}': [(n, side, side) for n in (1, 4, 16, 64)],
    }
    rows = []
    for what, sizes in growing.items():
        sizes = [(n, c, e, h, w) for n, h, w in sizes]
        shapes = [Shape('x'.join(map(str, size)), *size) for size in sizes]
        series = f'{what}, growing; C = {c}, E = {e}'
        rows += [{'series': series, **x} for x in run_cases(args, shapes)]
    return rows


def run_models(args):
    """Measure whole models, and the upsamplers in them alone."""
    rows = []
    cases = list(itertools.product(args.threads, args.dtypes, args.models))
    total = 2 * len(args.candidates) * (args.rounds + 1)
    bar = tqdm(total=len(cases) * total)
    for threads, dtype, model in cases:
        torch.set_num_threads(threads)
        config, part, size = MODELS[model]
        size = args.size or size
        runs, results, weights = {}, {}, {}
        for name in args.candidates:
            bar.set_description(f'{model} building with {name}')
            cfg = read_config(ROOT / 'configs' / config)
            cfg.model[part].upsample_cfg = LAYERS[name]
            try:
                whole, upsampling = candidates.model_runs(
                    cfg, size, dtype, args.device, weights
                )
            except RuntimeError as error:  # no such kernel or dtype here
                results[name, 'whole'] = dict(reason=timing.first_line(error))
            else:
                runs[name, 'whole'] = whole
                runs[name, 'upsampling'] = upsampling
        tick = ticker(bar, model)
        results.update(
            timing.time_in_rounds(
                runs, args.rounds, threads, tick, args.min_seconds
            )
        )
        for name in args.candidates:
            upsampling = results.get((name, 'upsampling'), {})
            rows.append(
                dict(
                    candidate=name,
                    shape=f'{model} {"x".join(map(str, size))}',
                    dtype=dtype,
                    threads=threads,
                    passes='inference',
                    upsampling_seconds=upsampling.get('seconds'),
                    **results[name, 'whole'],
                )
            )
    bar.close()
    return rows


# ---- command line -----------------------------------------------------------


def size_of(text, numbers=2, expected='HxW such as 512x512'):
    if not re.fullmatch('x'.join([r'[1-9]\d*'] * numbers), text):
        raise argparse.ArgumentTypeError(f'expected {expected}, got {text}.')
    return tuple(map(int, text.split('x')))


def shape_of(text):
    expected = f'one of {", ".join(SHAPES)} or NxCxExHxW like 1x64x32x8x8'
    return SHAPES.get(text) or Shape(text, *size_of(text, 5, expected))


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='subcommand', required=True)

    def add(name, run, passes=None):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        option = command.add_argument
        option('--device', choices=['cpu', 'cuda'])
        option(
            '--dtypes',
            nargs='+',
            choices=candidates.TOLERANCES,
            default=['float32'],
        )
        option(
            '--threads',
            nargs='+',
            type=int,
            default=[1],
            help='of a CPU; a run for each number',
        )
        option('--rounds', type=int, default=7)
        option('--min-seconds', type=float, default=timing.SHORTEST)
        option(
            '--candidates',
            nargs='+',
            choices=LAYERS if name in ('layer', 'model') else OPERATORS,
            default=CANDIDATES[name],
            metavar='NAME',
            help=f'by default {", ".join(CANDIDATES[name])}',
        )
        option('--out', type=Path, default=Path('work_dirs/benchmark'))
        if passes:
            option('--passes', nargs='+', choices=PASSES, default=passes)
            option(
                '--memory',
                action=argparse.BooleanOptionalAction,
                default=name != 'scaling',
            )
        return option

    for name in ('operator', 'layer'):
        option = add(name, run_operators, PASSES)
        option(
            '--shapes',
            nargs='+',
            type=shape_of,
            default=[SHAPES['segformer']],
            metavar='SHAPE',
            help=f'{", ".join(SHAPES)}, or NxCxExHxW of the low-res map',
        )
        option('--batch', type=int, help='in place of N')
    option = add('scaling', run_scaling, PASSES[:1])
    option('--channels', type=int, default=64)
    option('--max-side', type=int, default=1024)
    option = add('model', run_models)
    option('--models', nargs='+', choices=MODELS, default=list(MODELS))
    option('--size', type=size_of, help='of the image, HxW')
    commands.add_parser('show').add_argument('file', type=Path)

    args = parser.parse_args()
    if args.subcommand != 'show':
        there = torch.cuda.is_available()
        args.device = args.device or ('cuda' if there else 'cpu')
        if args.device == 'cuda':
            if not there:
                parser.error(
                    '--device: expected a GPU that PyTorch can use, got '
                    'none; take --device cpu.'
                )
            args.threads = [1]
    return args


@interruptible('Stopped; what was measured is not kept.')
def main():
    args = parse_args()
    if args.subcommand == 'show':
        result = json.loads((path := args.file).read_text())
    else:
        make_folder(args.out)
        cuda = args.device == 'cuda'
        result = dict(
            subcommand=args.subcommand,
            device=args.device,
            environment=timing.environment(args.device),
            bandwidth=timing.copy_bandwidth() if cuda else None,
            rows=args.run(args),
        )
        path = args.out / f'{args.subcommand}-{args.device}.json'
        path.write_text(json.dumps(result, indent=1))
    text = markdown(result)
    print(text)
    path.with_suffix('.md').write_text(f'{text}\n')
    draw(result).savefig(path.with_suffix('.png'), dpi=150)
    print(f'\nWrote {path.with_suffix(".md")} and {path.with_suffix(".png")}.')


if __name__ == '__main__':
    if sys.argv[1:2] != ['show']:
        keep_memory()
    main()
