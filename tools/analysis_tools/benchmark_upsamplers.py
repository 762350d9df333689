"""Time and memory of SAPA and of what it stands beside.

    python tools/analysis_tools/benchmark_upsamplers.py operator
    python tools/analysis_tools/benchmark_upsamplers.py layer --device cuda
    python tools/analysis_tools/benchmark_upsamplers.py scaling --threads 1 2
    python tools/analysis_tools/benchmark_upsamplers.py model --size 512x512
    python tools/analysis_tools/benchmark_upsamplers.py show FILE.json

operator: the bare operators, given queries, keys and values (CARAFE: its
    finished weights). Whatever computes SAPA is first compared with
    mmsapa.ops.sapa_upsample_reference, forward and backward.
layer: upsample layers with their norms and projections, guide and x given.
scaling: operators from 8x8 to 1024x1024, and in batch.
model: whole models at inference, batch 1, random weights. For the share of
    the upsampling, the calls of all slots in one inference are recorded by
    forward hooks, and run again by themselves.
show: tables and plot of an earlier run.

A measurement lasts at least 0.15 s, and they go round: each contestant once,
then each again. Memory is the peak of one pass beyond inputs, outputs and
gradients; on a CPU of one thread, and only where the system tells (Linux).
While times are taken, malloc keeps what is freed (glibc): pages fresh from
the system would cost every contestant the same, and more than it does.

On a CPU, PyTorch takes small maps (high-res H + W <= 128, C > 3) through NHWC
when it interpolates, at several times the cost a pixel: do not read a ratio to
bilinear at 32x32 as if it were one at 64x64.
"""

import argparse
import functools
import itertools
import json
import re
from pathlib import Path
from typing import NamedTuple

import mmcv.ops  # registers carafe
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tqdm import tqdm

from mmsapa.engine import timing
from mmsapa.ops import (
    sapa_upsample,
    sapa_upsample_reference,
    sapa_upsample_tiled,
)
from mmsapa.upsamplers import UpsampleSlot
from mmsapa.visualization import timing as plots

ROOT = Path(__file__).parents[2]
KERNEL_SIZE, SCALE = 5, 2
PASSES = ['forward', 'forward+backward']
# Largest error of a contestant, as a share of the result's largest number.
TOLERANCES = {'float32': 1e-4, 'bfloat16': 2e-2, 'float16': 4e-3}


class Shape(NamedTuple):
    """Sizes of a case; H and W are those of the low-res map."""

    name: str
    n: int
    c: int
    e: int
    h: int
    w: int
    guide_channels: int | None = None  # of a layer; by default c


def pixels_of(shape):
    return shape.n * shape.h * shape.w * SCALE**2


def title_of(shape):
    """Its name and its sizes, which may be the same."""
    sizes = 'x'.join(map(str, shape[1:6]))
    return sizes if shape.name == sizes else f'{shape.name} {sizes}'


def floor_bytes(shape, dtype, backward):
    """What the operator must read and write, each number once."""
    key_value = (shape.e + shape.c) / SCALE**2
    numbers = shape.e + shape.c + key_value
    if backward:
        numbers += shape.c + 2 * shape.e + 2 * key_value
    itemsize = getattr(torch, dtype).itemsize
    return int(itemsize * pixels_of(shape) * numbers)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape('segformer', 1, 256, 32, 64, 64),
        Shape('fpn', 2, 256, 32, 100, 168),
        Shape('bts', 1, 2048, 32, 13, 17, guide_channels=1024),
        Shape('matting', 1, 256, 32, 32, 32),
        Shape('sapa-i', 1, 256, 256, 64, 64),
    )
}


# ---- contestants ------------------------------------------------------------


def split(x, h, w):
    """The queries of [N, C, Hq, Wq] by cell: [N, C, H, s, W, s]."""
    x = F.pad(x, [0, w * SCALE - x.shape[3], 0, h * SCALE - x.shape[2]])
    return x.unflatten(3, (w, SCALE)).unflatten(2, (h, SCALE))


def merge(x, like, dtype):
    """The reverse, to the size of ``like``."""
    x = x.flatten(4, 5).flatten(2, 3)[..., : like.shape[2], : like.shape[3]]
    return x.to(dtype).contiguous()


def unfold(query, key, value):
    """SAPA as one would write it: unfolded windows and two einsums."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    h, w = key.shape[2:]

    def windows(x):
        x = F.unfold(x.to(dtype), KERNEL_SIZE, padding=KERNEL_SIZE // 2)
        return x.unflatten(1, (-1, KERNEL_SIZE**2)).unflatten(3, (h, w))

    queries = split(query.to(dtype), h, w)
    logits = torch.einsum('nchawb,nckhw->nkhawb', queries, windows(key))
    out = torch.einsum(
        'nkhawb,nckhw->nchawb', logits.softmax(1), windows(value)
    )
    return merge(out, query, value.dtype)


def shifts(query, key, value):
    """SAPA in plain PyTorch, a shift of the map at a time, K * K times."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    h, w = key.shape[2:]
    queries = split(query.to(dtype), h, w)

    def shifted(x):
        x = F.pad(x.to(dtype), [KERNEL_SIZE // 2] * 4)
        for i, j in itertools.product(range(KERNEL_SIZE), repeat=2):
            yield x[:, :, i : i + h, None, j : j + w, None]

    logits = torch.stack([(queries * k).sum(1) for k in shifted(key)], 1)
    weights = logits.softmax(1).unsqueeze(2).unbind(1)
    out = 0
    for weight, v in zip(weights, shifted(value)):
        out = out + weight * v
    return merge(out, query, value.dtype)


def interpolation(mode):
    return lambda query, key, value: F.interpolate(
        value, query.shape[2:], mode=mode
    )


# Those with True compute SAPA.
OPERATORS = {
    'sapa': (sapa_upsample, True),
    'nearest': (interpolation('nearest'), False),
    'bilinear': (interpolation('bilinear'), False),
    # Its weights come in place of the queries.
    'carafe': (
        lambda query, key, value: mmcv.ops.carafe(
            value, query, KERNEL_SIZE, 1, SCALE
        ),
        False,
    ),
    'tiled-compiled': (
        torch.compile(sapa_upsample_tiled, dynamic=False, fullgraph=True),
        True,
    ),
    'tiled': (sapa_upsample_tiled, True),
    'shifts': (shifts, True),
    'unfold': (unfold, True),
    'reference': (sapa_upsample_reference, True),
}
LAYERS = {
    'sapa-i': dict(type='sapa', variant='I'),
    'sapa-b': dict(type='sapa', variant='B'),
    'sapa-g': dict(type='sapa', variant='G'),
    'dysample': dict(type='dysample'),
    'carafe': dict(type='carafe'),
    'deconv': dict(type='deconv'),
    'nearest': dict(type='nearest'),
    'bilinear': dict(type='bilinear', align_corners=False),
}
MODEL_CONFIGS = {
    'segformer': (
        'segformer/segformer_mit-b1_sapa-g_1xb16-160k_ade20k-512x512.py',
        'decode_head',
        '512x512',
    ),
    'faster-rcnn': (
        'faster_rcnn/faster-rcnn_r50_fpn-sapa-g_1x_coco.py',
        'neck',
        '800x1344',
    ),
}
CONTESTANTS = dict(
    operator=[name for name in OPERATORS if name != 'reference'],
    layer=list(LAYERS),
    scaling=['sapa', 'tiled', 'bilinear', 'nearest'],
    model=['sapa-i', 'sapa-b', 'sapa-g', 'nearest', 'bilinear'],
)


def prepare(kind, name, shape, dtype, device, short=0):
    """Make a contestant and what it works on.

    Args:
        kind (str): ``'operator'`` or ``'layer'``.
        name (str): Of the contestant.
        shape (Shape): Sizes.
        dtype (str): Of everything.
        device (str): ``'cpu'`` or ``'cuda'``.
        short (int): Queries missing at the far border.

    Returns:
        tuple: A function, its inputs, and its parameters.
    """
    c, e = shape.c, shape.e
    if kind == 'layer':
        guide_channels = shape.guide_channels or c
        layer = UpsampleSlot(LAYERS[name], c, guide_channels)
        layer.to(device, getattr(torch, dtype))
        guide, _, x = maps_of(shape, guide_channels, dtype, device, short)
        return (
            lambda guide, x: layer(x, guide),
            [guide, x],
            list(layer.parameters()),
        )
    high = KERNEL_SIZE**2 if name == 'carafe' else e
    maps = maps_of(shape, high, dtype, device, short)
    return OPERATORS[name][0], list(maps), []


@functools.lru_cache(2)  # what contestants share
def maps_of(shape, high, dtype, device, short):
    """High-res map of so many channels, low-res map of E, of C channels."""
    _, n, c, e, h, w, _ = shape
    torch.manual_seed(0)
    # Logits of variance 1, so that no weight underflows.
    scales = max(high, 1) ** -0.25, max(e, 1) ** -0.25, 1
    sizes = (
        (n, high, h * SCALE - short, w * SCALE - short),
        (n, e, h, w),
        (n, c, h, w),
    )
    return [
        torch.randn(size).mul_(scale).to(device, getattr(torch, dtype))
        for size, scale in zip(sizes, scales)
    ]


def fault_of(name, shape, dtype, device):
    """How an operator's result differs from the reference's, if it does."""
    shape = shape._replace(n=2, h=7, w=9)
    function, inputs, _ = prepare('operator', name, shape, dtype, device, 1)
    exact = [x.double() for x in inputs]
    got = timing.make_run(function, inputs, backward=True)()
    expected = timing.make_run(sapa_upsample_reference, exact, backward=True)
    expected = expected()
    names = ('result', 'gradient of query', 'of key', 'of value')
    for what, x, y in zip(names, got, expected):
        error = (x.double() - y).abs().max() / y.abs().max()
        if not error <= TOLERANCES[dtype]:
            return (
                f'refused: expected SAPA, got a {what} that is off by '
                f'{error:.1g} of its largest number; mend it'
            )
    return None


def shortage(name, shape, dtype, device):
    """Say so if memory will not do, before the system kills the process."""
    # Inputs, result, gradients, and about as much again on the way.
    needed = 2 * floor_bytes(shape, dtype, True)
    if name in ('unfold', 'reference'):
        needed += 3 * 4 * KERNEL_SIZE**2 * shape.c * pixels_of(shape)
    free = timing.free_bytes(device)
    if needed > free:
        return (
            f'expected {needed / 2**30:.1f} GiB of free memory, got '
            f'{free / 2**30:.1f}; take a smaller shape'
        )
    return None


def memory_runs(kind, name, shape, dtype, backward):
    """A small run to load the code by, and the one to measure."""
    small = shape._replace(n=1, h=8, w=8)
    # The compiler works anew for every size.
    sizes = (shape if 'compiled' in name else small, shape)
    return [
        timing.make_run(*prepare(kind, name, size, dtype, 'cpu'), backward)
        for size in sizes
    ]


@functools.cache
def cpu_extra_bytes(*case):
    return timing.cpu_extra_bytes(memory_runs, *case)


# ---- subcommands ------------------------------------------------------------


def run_cases(args, shapes):
    """Measure operators or layers.

    Args:
        args (Namespace): The command line.
        shapes (list[Shape]): Sizes.

    Returns:
        list[dict]: A row for each case, pass and contestant.
    """
    kind = 'layer' if args.subcommand == 'layer' else 'operator'
    cases = list(itertools.product(args.threads, args.dtypes, shapes))
    pairs = list(itertools.product(args.passes, args.contestants))
    rows = []
    bar = tqdm(total=len(cases) * len(pairs) * (args.rounds + 2))

    for threads, dtype, shape in cases:

        def tick(key, what=f'{shape.name} {dtype}'):
            bar.set_description(f'{what} {" ".join(key)}')
            bar.update()

        torch.set_num_threads(threads)
        torch.compiler.reset()
        runs, results = {}, {}
        for name in args.contestants:
            bar.set_description(f'{shape.name} {dtype} checking {name}')
            fault = fault_in(kind, name, shape, dtype, args.device)
            if fault:
                results.update({(x, name): fault for x in args.passes})
                continue
            prepared = prepare(kind, name, shape, dtype, args.device)
            for passes in args.passes:
                runs[passes, name] = timing.make_run(
                    *prepared, backward=passes != 'forward'
                )
        results.update(timing.time_in_rounds(runs, args.rounds, threads, tick))
        for key in pairs:
            tick(key)
            passes, name = key
            backward = passes != 'forward'
            row = dict(
                contestant=name,
                shape=title_of(shape),
                dtype=dtype,
                threads=threads,
                passes=passes,
                pixels=pixels_of(shape),
                floor_bytes=floor_bytes(shape, dtype, backward),
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


def fault_in(kind, name, shape, dtype, device):
    """``dict(reason=...)`` if a contestant is not to be timed, or None."""
    try:
        checked = name if kind == 'operator' else LAYERS[name]['type']
        fault = shortage(name, shape, dtype, device)
        if not fault and checked in OPERATORS and OPERATORS[checked][1]:
            fault = fault_of(checked, shape, dtype, device)
        if not fault:
            small = shape._replace(n=1, h=8, w=8)
            function, inputs, _ = prepare(kind, name, small, dtype, device)
            function(*inputs)
        return fault and dict(reason=fault)
    except Exception as error:  # no such kernel, dtype or compiler here
        return dict(reason=timing.first_line(error))


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
    """Measure whole models, and by themselves the upsamplers in them."""
    rows = []
    cases = list(itertools.product(args.threads, args.dtypes, args.models))
    total = 2 * len(args.contestants) * (args.rounds + 1)
    bar = tqdm(total=len(cases) * total)
    for threads, dtype, model in cases:

        def tick(key, model=model):
            bar.set_description(f'{model} {" ".join(key)}')
            bar.update()

        torch.set_num_threads(threads)
        size = args.size or MODEL_CONFIGS[model][2]
        runs, results = {}, {}
        for name in args.contestants:
            bar.set_description(f'{model} building with {name}')
            try:
                whole, part = model_runs(model, name, size, dtype, args.device)
            except RuntimeError as error:  # no such kernel or dtype here
                results[name, 'whole'] = dict(reason=timing.first_line(error))
            else:
                runs.update({(name, 'whole'): whole, (name, 'part'): part})
        results.update(timing.time_in_rounds(runs, args.rounds, threads, tick))
        for name in args.contestants:
            part = results.get((name, 'part'), {})
            rows.append(
                dict(
                    contestant=name,
                    shape=f'{model} {size}',
                    dtype=dtype,
                    threads=threads,
                    passes='inference',
                    upsampling_seconds=part.get('seconds'),
                    **results[name, 'whole'],
                )
            )
    bar.close()
    return rows


def model_runs(model, name, size, dtype, device):
    """One inference, and the upsampling in it by itself."""
    config, part, _ = MODEL_CONFIGS[model]
    cfg = Config.fromfile(ROOT / 'configs' / config)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None  # no download
    cfg.model[part].upsample_cfg = LAYERS[name]
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(device).eval()

    height, width = (int(side) for side in size.split('x'))
    image = torch.randn(1, 3, height, width, device=device)
    meta = dict.fromkeys(
        ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'),
        (height, width),
    )
    samples = None
    if cfg.default_scope == 'mmdet':
        from mmdet.structures import DetDataSample

        samples = [DetDataSample(metainfo={**meta, 'scale_factor': (1, 1)})]

    # Torch 2.1 refuses float32 even where autocast is off.
    half = dtype if dtype != 'float32' else 'bfloat16'
    precision = torch.autocast(
        device, getattr(torch, half), enabled=dtype != 'float32'
    )
    calls = []

    @torch.no_grad()
    @precision
    def whole():
        model(image, samples, mode='predict')

    @torch.no_grad()
    @precision
    def upsampling():
        for slot, maps in calls:
            slot(*maps)

    hooks = [
        module.register_forward_hook(
            lambda slot, maps, out: calls.append((slot, maps))
        )
        for module in model.modules()
        if isinstance(module, UpsampleSlot)
    ]
    whole()
    for hook in hooks:
        hook.remove()
    return whole, upsampling


def run_show(args):
    result = json.loads(args.file.read_text())
    plots.show(result, args.file.with_suffix('.png'))


# ---- command line -----------------------------------------------------------


def shape_of(text):
    if text in SHAPES:
        return SHAPES[text]
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){4}', text):
        raise argparse.ArgumentTypeError(
            f'expected one of {", ".join(SHAPES)} or NxCxExHxW such as '
            f'1x256x32x64x64, got {text}.'
        )
    return Shape(text, *map(int, text.split('x')))


def size_of(text):
    if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', text):
        raise argparse.ArgumentTypeError(
            f'expected HxW such as 512x512, got {text}.'
        )
    return text


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='subcommand', required=True)

    def add(name, run, passes):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument('--device', choices=['cpu', 'cuda'])
        command.add_argument(
            '--dtypes', nargs='+', choices=TOLERANCES, default=['float32']
        )
        command.add_argument(
            '--threads',
            nargs='+',
            type=int,
            default=[1],
            help='of a CPU; a run for each number',
        )
        command.add_argument('--rounds', type=int, default=7)
        command.add_argument(
            '--contestants',
            nargs='+',
            choices=LAYERS if name in ('layer', 'model') else OPERATORS,
            default=CONTESTANTS[name],
            metavar='NAME',
            help=f'by default {", ".join(CONTESTANTS[name])}',
        )
        command.add_argument(
            '--out', type=Path, default=Path('work_dirs/benchmark')
        )
        if passes:
            command.add_argument(
                '--passes', nargs='+', choices=PASSES, default=passes
            )
            command.add_argument(
                '--memory',
                action=argparse.BooleanOptionalAction,
                default=name != 'scaling',
            )
        return command

    for name in ('operator', 'layer'):
        command = add(name, run_operators, PASSES)
        command.add_argument(
            '--shapes',
            nargs='+',
            type=shape_of,
            default=[SHAPES['segformer']],
            metavar='SHAPE',
            help=f'{", ".join(SHAPES)}, or NxCxExHxW of the low-res map',
        )
        command.add_argument('--batch', type=int, help='in place of N')
    command = add('scaling', run_scaling, PASSES[:1])
    command.add_argument('--channels', type=int, default=64)
    command.add_argument('--max-side', type=int, default=1024)
    command = add('model', run_models, None)
    command.add_argument(
        '--models',
        nargs='+',
        choices=MODEL_CONFIGS,
        default=list(MODEL_CONFIGS),
    )
    command.add_argument('--size', type=size_of, help='of the image, HxW')
    command = commands.add_parser('show')
    command.set_defaults(run=run_show)
    command.add_argument('file', type=Path)

    args = parser.parse_args(argv)
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


def main(argv=None):
    args = parse_args(argv)
    if args.subcommand == 'show':
        args.run(args)
        return
    result = dict(
        subcommand=args.subcommand,
        device=args.device,
        environment=timing.environment(args.device),
        bandwidth=timing.copy_bandwidth() if args.device == 'cuda' else None,
        rows=args.run(args),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f'{args.subcommand}-{args.device}.json'
    path.write_text(json.dumps(result, indent=1))
    plots.show(result, path.with_suffix('.png'))
    print(f'\n{path}, {path.with_suffix(".png")}')


if __name__ == '__main__':
    timing.keep_memory()
    main()
