"""Parameters and FLOPs of the papers' models, ours beside the published.

    python tools/analysis_tools/published_tables.py
    python tools/analysis_tools/published_tables.py --models segformer-b1
    python tools/analysis_tools/published_tables.py --out FILE.md FILE.json

Each model of papers.py is built with each upsampler and counted, as
get_flops.py of MMSegmentation and MMDetection would: by mmengine's counter,
on one image. Neither data nor weights are needed. (MMSegmentation 1.2.2's own
get_flops.py stops at '"input_shape" and "inputs" cannot be both set', its
issue 3241; without input_shape it prints what stands here. MaskFormer and
Mask2Former it does not know how to call.)

The counter reads a trace, and PyTorch traces no convolution on the meta
device: hence the model runs on the CPU, once for every row.
"""

import argparse
import importlib
import json
import re
import warnings
from decimal import Decimal
from pathlib import Path

import mmcv
import mmcv.ops  # registers carafe
import mmengine
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from papers import MODELS as PAPERS
from papers import Slots
from prettytable import PrettyTable, TableStyle
from tqdm import tqdm

import mmsapa
from mmsapa.evaluation.complexity import count
from mmsapa.upsamplers import UpsampleSlot
from mmsapa.upsamplers.presets import PRESETS

ROOT = Path(__file__).parents[2]
FORMATS = {'text': '.txt', 'markdown': '.md', 'json': '.json'}
# Published figures: their unit as a power of ten, and ours that they are held
# against, the last of which counts as they do.
COLUMNS = {'params': (6, ['params']), 'flops': (9, ['flops', 'products'])}
PREFIXES = {6: 'M', 9: 'G'}
TITLES = dict(params='parameters', flops='FLOPs')
HEADS = dict(
    params=('parameters', 'more', 'agrees'),
    flops=('get_flops.py, G', 'more', 'agrees'),
    products=('products, G', 'more products', 'products agree'),
)
PREFACE = """\
# Published figures and ours

Parameters are all of a model's; FLOPs are multiply-accumulates. get_flops.py
is what MMSegmentation's and MMDetection's tool of that name prints: it takes a
layer norm for 5 a number, batch norm for 2, bilinear interpolation for 4 and
nearest for 1. Products are the FLOPs without these, as the papers have them.
"More" is the difference to the baseline. A published figure agrees if ours is
within half a unit of its last digit; otherwise ours less theirs is shown.
MMSegmentation's tool takes neither MaskFormer nor Mask2Former; they are
counted by the same counter. The published figures are the papers', all others
are counted here."""


# ---- counts -----------------------------------------------------------------


def build(paper, name):
    """Build a model with an upsampler, or its upsamplers by themselves.

    Args:
        paper (Model | Slots): Which.
        name (str): The upsampler's.

    Returns:
        nn.Module: In evaluation mode.

    Raises:
        KeyError: If there is no such upsampler.
        ValueError: If it is not for these channels.
    """
    if isinstance(paper, Slots):
        return torch.nn.ModuleList(
            UpsampleSlot(PRESETS[name], x, guide)
            for guide, x in paper.channels
        )
    cfg = Config.fromfile(ROOT / 'configs' / paper.config)
    part = cfg.model
    for key in paper.slot.split('.'):
        part = part[key]
    part.upsample_cfg = PRESETS[name]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    return revert_sync_batchnorm(model).eval()


# ---- agreement --------------------------------------------------------------


def difference(ours, published, unit):
    """Hold a count against a published figure.

    Args:
        ours (int): Counted.
        published (str): As printed, such as ``'13.74'`` or ``'+.1'``.
        unit (int): Power of ten that it is printed in.

    Returns:
        str: ``'yes'`` within half a unit of the last published digit, else
        ours less theirs, with a sign.
    """
    theirs = Decimal(published)
    off = Decimal(ours).scaleb(-unit) - theirs
    if abs(off) <= Decimal(5).scaleb(theirs.as_tuple().exponent - 1):
        return 'yes'
    return f'{off:+.3f}'


def judge(paper, rows, size):
    """Add to each row of a model what was published and whether it agrees.

    Args:
        paper (Model | Slots): Which.
        rows (list[dict]): Its counts, the baseline's first.
        size (tuple[int, int], optional): Of the image.
    """
    counted = {row['upsampler']: row for row in rows if 'reason' not in row}
    base = counted.get(paper.baseline)
    for row in counted.values():
        row.update(published={}, agrees={}, notes=[])
        if base and row is not base:
            row['more'] = {
                key: row[key] - base[key]
                for key in ('params', 'flops', 'products')
                if key in row
            }
    for name, row in counted.items():
        for column, (unit, keys) in COLUMNS.items():
            published = getattr(paper, column, {}).get(name)
            held = row if name == paper.baseline else row.get('more')
            # FLOPs are those of an image of the published size.
            if column == 'flops' and size != getattr(paper, 'size', None):
                published = None
            if not published or held is None:
                continue
            row['published'][column] = published
            for key in keys:
                row['agrees'][key] = difference(held[key], published, unit)
            if row['agrees'][keys[-1]] != 'yes':
                row['notes'] += [
                    explain(reason, paper, counted, held[keys[-1]])
                    for reason in paper.reasons
                    if (reason.upsampler, reason.column) == (name, column)
                ]


def explain(reason, paper, counted, ours):
    """A reason in words, and whether our figures bear it out."""
    unit, keys = COLUMNS[reason.column]
    published = getattr(paper, reason.column)[reason.upsampler]
    words = f'{TITLES[reason.column]}: {reason.text}'
    if reason.like:
        if reason.like not in counted:
            return f'{words}, which is not counted here.'
        ours = counted[reason.like]['more'][keys[-1]]
    ours += reason.adds
    sign = '+' * published.startswith('+')
    agrees = difference(ours, published, unit) == 'yes'
    return (
        f'{words} {ours / 10**unit:{sign}.3f} {PREFIXES[unit]}, which '
        f'{"agrees" if agrees else "does not agree either"}.'
    )


# ---- tables -----------------------------------------------------------------


def tables(result, style):
    """The tables of all models.

    Args:
        result (dict): As in the JSON file.
        style (TableStyle): Of prettytable.

    Returns:
        str: Text or Markdown.
    """
    versions = ', '.join(
        f'{name} {version}' for name, version in result['versions'].items()
    )
    parts = [PREFACE, f'\nCounted with {versions}.']
    for model in result['models']:
        size = model['size'] and 'x'.join(map(str, model['size']))
        parts.append(
            f'\n## {model["title"]}, '
            + (size or 'the upsamplers by themselves')
        )
        for column in COLUMNS:
            if column == 'params' or size:
                table = table_of(model['rows'], column)
                table.set_style(style)
                parts += ['', table.get_string()]
        notes = [model['remark']] if model['remark'] else []
        for row in model['rows']:
            name = row['upsampler']
            if 'reason' in row:
                notes.append(f'{name}: {row["reason"]}')
            else:
                notes += [f'{name}, {note}' for note in row['notes']]
        if notes:
            parts += ['', *(f'- {note}' for note in notes)]
    return '\n'.join(parts)


def table_of(rows, column):
    """The table of one kind of published figures."""
    unit, keys = COLUMNS[column]
    table = PrettyTable()
    table.add_column('upsampler', [row['upsampler'] for row in rows], 'l')

    def add(head, cell):
        cells = ['' if 'reason' in row else cell(row) for row in rows]
        table.add_column(head, cells, 'r')

    def add_counts(key):
        head, more, agrees = HEADS[key]
        add(head, lambda row: figure(row[key], unit))
        add(more, lambda row: figure(row.get('more', {}).get(key), unit, '+'))
        add(agrees, lambda row: row['agrees'].get(key, ''))

    add(
        f'published, {PREFIXES[unit]}',
        lambda row: row['published'].get(column, ''),
    )
    for key in keys:
        add_counts(key)
    return table


def figure(count, unit, sign=''):
    """Parameters in full, FLOPs in G."""
    if count is None:
        return ''
    if unit == 6:
        return f'{count:{sign},}'
    return f'{count / 10**unit:{sign}.3f}'


def render(result, form):
    if form == 'json':
        return json.dumps(result, indent=1)
    markdown = form == 'markdown'
    return tables(
        result, TableStyle.MARKDOWN if markdown else TableStyle.DEFAULT
    )


# ---- command line -----------------------------------------------------------


def run(models, upsamplers, size=None):
    """Count and compare.

    Args:
        models (list[str]): Names in papers.MODELS.
        upsamplers (list[str]): Names in PRESETS.
        size (tuple[int, int], optional): Of the image. Default: the
            published one.

    Returns:
        dict: Versions, and for each model its rows.
    """
    result = dict(versions=versions(), models=[])
    names = {
        # Everything is compared with the baseline.
        model: dict.fromkeys([PAPERS[model].baseline, *upsamplers])
        for model in models
    }
    bar = tqdm(total=sum(map(len, names.values())))
    for model in names:
        paper, rows = PAPERS[model], []
        alone = isinstance(paper, Slots)
        used = None if alone else size or paper.size
        for name in names[model]:
            bar.set_description(f'{model} {name}')
            try:
                module = build(paper, name)
            except (KeyError, ValueError) as error:
                counts = dict(reason=str(error.args[0]))
            else:
                counts = count(module, used)
            rows.append(dict(upsampler=name, **counts))
            bar.update()
        judge(paper, rows, used)
        result['models'].append(
            dict(
                model=model,
                title=paper.title,
                config=None if alone else paper.config,
                size=used,
                remark=paper.remark if alone or used == paper.size else '',
                rows=rows,
            )
        )
    bar.close()
    return result


def versions():
    found = {
        m.__name__: m.__version__ for m in (mmsapa, torch, mmengine, mmcv)
    }
    for name in ('mmseg', 'mmdet'):
        found[name] = importlib.import_module(name).__version__
    return found


def one_of(names):
    def name(text):
        if text not in names:
            raise argparse.ArgumentTypeError(
                f'expected one of {", ".join(names)}, got {text}.'
            )
        return text

    return name


def size_of(text):
    if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', text):
        raise argparse.ArgumentTypeError(
            f'expected HxW such as 512x512, got {text}.'
        )
    return tuple(map(int, text.split('x')))


def file_of(text):
    if Path(text).suffix not in FORMATS.values():
        raise argparse.ArgumentTypeError(
            f'expected a file that ends in {", ".join(FORMATS.values())}, '
            f'got {text}.'
        )
    return Path(text)


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for what, names in (('models', PAPERS), ('upsamplers', PRESETS)):
        parser.add_argument(
            f'--{what}',
            nargs='+',
            type=one_of(names),
            default=list(names),
            metavar='NAME',
            help=', '.join(names),
        )
    parser.add_argument(
        '--size',
        type=size_of,
        help='of the image, HxW, in place of the published one',
    )
    parser.add_argument(
        '--format', choices=FORMATS, default='text', help='of what is printed'
    )
    parser.add_argument(
        '--out',
        nargs='+',
        type=file_of,
        default=[],
        metavar='FILE',
        help=f'files to write too: {", ".join(FORMATS.values())}',
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    # The libraries' asides would tear the progress bar.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    result = run(args.models, args.upsamplers, args.size)
    print(render(result, args.format))
    forms = {suffix: form for form, suffix in FORMATS.items()}
    for path in args.out:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(result, forms[path.suffix]) + '\n')


if __name__ == '__main__':
    main()
