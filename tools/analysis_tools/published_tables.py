"""Parameters and FLOPs of the papers' models, beside the published figures.

    python tools/analysis_tools/published_tables.py
    python tools/analysis_tools/published_tables.py --models segformer-b1
    python tools/analysis_tools/published_tables.py --out FILE.md FILE.json
    python tools/analysis_tools/published_tables.py --counts FILE.json

Builds each model of docs/tables/papers.yml with each upsampler and counts it
on one image, as get_flops.py does. Needs neither data nor weights. The models
run on the CPU, because PyTorch traces no convolution on the meta device.
--counts takes the counts of an earlier run.
"""

import argparse
import json
import warnings
from decimal import Decimal
from importlib import import_module
from pathlib import Path

import yaml
from prettytable import PrettyTable, TableStyle
from tqdm import tqdm

from mmsapa.engine.config import read_config
from mmsapa.engine.inference import build_model
from mmsapa.evaluation.complexity import count
from mmsapa.upsamplers.presets import PRESETS

ROOT = Path(__file__).parents[2]
PAPERS = yaml.safe_load((ROOT / 'docs/tables/papers.yml').read_text())
LIBRARIES = ('mmsapa', 'torch', 'mmengine', 'mmcv', 'mmseg', 'mmdet')
# Published figures: title, unit as a power of ten and its prefix, and the
# counts to compare, the last of which are counted as the papers do.
COLUMNS = dict(
    params=('parameters', 6, 'M', ['params']),
    flops=('FLOPs', 9, 'G', ['flops', 'products']),
)
# Heads of a count, of its difference to the baseline's, and of agreement.
HEADS = dict(
    params=('parameters', 'more', 'agrees'),
    flops=('get_flops.py, G', 'more', 'agrees'),
    products=('products, G', 'more products', 'products agree'),
)
PREFACE = """\
# Published figures and ours

Parameter and FLOP counts verify the placement of every layer. Of {published}
published figures, {agree} agree with ours, {explained} more with what a note
adds to ours, and {unexplained} differ for reasons that we do not know.

FLOPs are multiply-accumulates for one image. "get_flops.py" is what the tool
of that name prints: mmengine counts 5 for each number of a layer norm, 2 of a
batch norm, 4 of bilinear and 1 of nearest interpolation. "Products" leaves
these out, as the papers do. "More" is the difference to the baseline. A
published figure agrees if ours is within half a unit of its last digit;
otherwise ours minus theirs is shown. The published figures are the papers';
all others were counted here.

Counted with {versions}."""


# ---- counts -----------------------------------------------------------------


def build(paper, name):
    """Build a model.

    Args:
        paper (dict): Entry of papers.yml.
        name (str): The upsampler, a key of PRESETS.

    Returns:
        nn.Module: In evaluation mode.

    Raises:
        KeyError: If no such upsampler is registered.
        ConfigError: If the upsampler does not take these channels; its cause
            says why.
    """
    cfg = read_config(ROOT / 'configs' / paper['config'])
    part = cfg.model
    for key in paper['slot'].split('.'):
        part = part[key]
    part.upsample_cfg = PRESETS[name]
    return build_model(cfg)


def count_models(models, upsamplers):
    """Count models, each with its baseline first.

    Args:
        models (list[str]): Keys of PAPERS.
        upsamplers (list[str]): Keys of PRESETS.

    Returns:
        dict: ``versions`` of the libraries, and ``models``: for each model
        and upsampler the counts, or the ``reason`` why there are none.
    """
    versions = {name: import_module(name).__version__ for name in LIBRARIES}
    rows = {
        model: dict.fromkeys([PAPERS[model]['baseline'], *upsamplers])
        for model in models
    }
    with tqdm(total=sum(map(len, rows.values()))) as bar:
        for model, names in rows.items():
            paper = PAPERS[model]
            size = tuple(paper['size'])
            for name in names:
                bar.set_description(f'{model} {name}')
                try:
                    counts = count(build(paper, name), size)
                except (KeyError, ValueError) as error:
                    # Without the path of the config, which is before it.
                    counts = dict(reason=(error.__cause__ or error).args[0])
                kept = ('params', 'flops', 'products', 'reason')
                names[name] = {k: counts[k] for k in kept if k in counts}
                bar.update()
    return dict(versions=versions, models=rows)


# ---- the page ---------------------------------------------------------------


def difference(ours, published, unit):
    """Compare a count with a published figure.

    Args:
        ours (int): Counted.
        published (str): As printed, such as '13.74' or '+.1'.
        unit (int): Power of ten that it is printed in.

    Returns:
        str: 'yes' within half a unit of the last published digit; otherwise
        ours minus theirs, with a sign.
    """
    theirs = Decimal(published)
    off = Decimal(ours).scaleb(-unit) - theirs
    if abs(off) <= Decimal(5).scaleb(theirs.as_tuple().exponent - 1):
        return 'yes'
    return f'{off:+.3f}'


def held(paper, rows, name, key):
    """What stands against a published figure.

    Returns:
        int: The baseline's total; what any other upsampler adds to it.
    """
    base = 0 if name == paper['baseline'] else rows[paper['baseline']][key]
    return rows[name][key] - base


def table(paper, rows, column):
    """The Markdown table of params or flops, without empty columns."""
    _, unit, prefix, keys = COLUMNS[column]
    form, scale = (',.0f', 1) if column == 'params' else ('.3f', 10**unit)
    lines = []
    for name, row in rows.items():
        published = paper.get(column, {}).get(name)
        lines.append({'upsampler': name, f'published, {prefix}': published})
        for key in keys if 'reason' not in row else []:
            ours = held(paper, rows, name, key)
            cells = [f'{row[key] / scale:{form}}', None, None]
            if name != paper['baseline']:
                cells[1] = f'{ours / scale:+{form}}'
            if published:
                cells[2] = difference(ours, published, unit)
            lines[-1].update(zip(HEADS[key], cells))
    result = PrettyTable()
    result.set_style(TableStyle.MARKDOWN)
    for head in lines[0]:
        cells = [line.get(head) or '' for line in lines]
        if any(cells):
            align = 'l' if head == 'upsampler' else 'r'
            result.add_column(head, cells, align)
    return result.get_string()


def explanations(paper, rows):
    """What stands below a model's tables, a line each."""
    if 'remark' in paper:
        yield paper['remark']
    for name, row in rows.items():
        if 'reason' in row:
            yield f'{name}: {row["reason"]}'
    for note in paper.get('notes', ()):
        name, column = note['upsampler'], note['column']
        if name not in rows:
            continue
        title, unit, prefix, keys = COLUMNS[column]
        total = held(paper, rows, name, keys[-1]) + note['adds']
        sign = '' if name == paper['baseline'] else '+'
        total = f'{total / 10**unit:{sign}.3f} {prefix}'
        yield f'{name}, {title}: {note["text"]} {total}.'


def tally(result):
    """Count the published figures, by whether they agree with ours."""
    models = [
        (PAPERS[model], rows) for model, rows in result['models'].items()
    ]
    verdicts = [
        difference(held(paper, rows, name, keys[-1]), published, unit)
        for paper, rows in models
        for column, (_, unit, _, keys) in COLUMNS.items()
        for name, published in paper.get(column, {}).items()
        if name in rows
    ]
    explained = sum(
        note['upsampler'] in rows
        for paper, rows in models
        for note in paper.get('notes', ())
    )
    agree = verdicts.count('yes')
    return dict(
        published=len(verdicts),
        agree=agree,
        explained=explained,
        unexplained=len(verdicts) - agree - explained,
    )


def page(result):
    """Render counts beside the published figures.

    Args:
        result (dict): As :func:`count_models` returns it.

    Returns:
        str: Markdown.
    """
    versions = ', '.join(f'{k} {v}' for k, v in result['versions'].items())
    parts = [PREFACE.format(versions=versions, **tally(result))]
    for model, rows in result['models'].items():
        paper = PAPERS[model]
        size = 'x'.join(map(str, paper['size']))
        parts.append(f'\n## {paper["title"]}, {size}')
        for column in COLUMNS:
            parts += ['', table(paper, rows, column)]
        lines = [f'- {line}' for line in explanations(paper, rows)]
        parts += ['', *lines] if lines else []
    return '\n'.join(parts)


# ---- command line -----------------------------------------------------------


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # No paper has a prior.
    upsamplers = [name for name in PRESETS if 'prior' not in PRESETS[name]]
    for what, names in (('models', PAPERS), ('upsamplers', upsamplers)):
        parser.add_argument(
            f'--{what}',
            nargs='+',
            choices=names,
            # No paper has max unpooling in these models.
            default=[name for name in names if name != 'max-unpool'],
            metavar='NAME',
            help=', '.join(names),
        )
    parser.add_argument(
        '--counts', type=Path, help='JSON of an earlier run to render'
    )
    parser.add_argument(
        '--out',
        nargs='+',
        type=Path,
        default=[],
        metavar='FILE',
        help='files to write too: .md, the page; .json, the counts',
    )
    args = parser.parse_args()
    for path in args.out:
        if path.suffix not in ('.md', '.json'):
            parser.error(f'--out: expected FILE.md or FILE.json, got {path}.')
    return args


def main():
    args = parse_args()
    # The libraries' warnings would tear the progress bar.
    warnings.filterwarnings('ignore', module='mm(cv|engine|det|seg)')
    if args.counts:
        result = json.loads(args.counts.read_text())
    else:
        result = count_models(args.models, args.upsamplers)
    text = page(result)
    print(text)
    for path in args.out:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_json = path.suffix == '.json'
        content = json.dumps(result, indent=1) if is_json else text
        path.write_text(f'{content}\n')


if __name__ == '__main__':
    main()
