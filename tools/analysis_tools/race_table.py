"""The table of a race, and what its figures are."""

import statistics

from prettytable import PrettyTable, TableStyle

from mmsapa.engine import timing


def preface(result):
    """What the figures are, and of what."""
    made = result['environment']
    seeds = result['seeds']
    spread = (
        'Figures are means ± standard deviations (n - 1) over the seeds '
        f'{", ".join(map(str, seeds))}'
        if len(seeds) > 1
        else f'Figures are those of seed {seeds[0]} alone'
    )
    memory = (
        "what PyTorch's tensors take on the GPU at most while it trains"
        if made['cuda']
        else 'the training process at most, resident, with interpreter and '
        'libraries'
    )
    threads = '' if made['cuda'] else ', one thread a run'
    size = 'x'.join(map(str, result['size']))
    return (
        f'{result["config"]}, {result["iterations"]} iterations. {spread}. '
        'Boundary IoU is mmsapa.BoundaryIoU (Cheng et al. 2021): the IoU of '
        'what is near the contours, summed over images and averaged over '
        'classes as mIoU is. Parameters and FLOPs are as get_flops.py counts '
        'them, times the median and quartiles of the inference of one image, '
        f'all for {size} pixels; memory is {memory}.\n'
        f'Measured on {made["date"]}, {made["machine"]}{threads}, '
        f'torch {made["torch"]}, mmsapa {made["commit"] or made["mmsapa"]}.'
    )


def table_of(result):
    table = PrettyTable()
    rows = result['rows']

    def add(head, cell, align='r'):
        table.add_column(head, [cell(row) for row in rows], align)

    def add_runs(head, key, unit, digits):
        add(
            head,
            lambda row: spread_of(
                [run[key] / unit for run in row['runs']], digits
            ),
        )

    add('upsampler', lambda row: row['upsampler'], 'l')
    add_runs('mIoU', 'mIoU', 1, 2)
    add_runs('boundary IoU', 'mBIoU', 1, 2)
    add('parameters', lambda row: f'{row["params"]:,}')
    add('FLOPs, G', lambda row: f'{row["flops"] / 1e9:.3f}')
    add('ms an image', time_cell)
    add_runs('peak memory, MB', 'peak_bytes', 1e6, 0)
    return table


def spread_of(numbers, digits):
    """Mean ± standard deviation, if there is more than one."""
    text = f'{statistics.mean(numbers):.{digits}f}'
    if len(numbers) > 1:
        text += f' ± {statistics.stdev(numbers):.{digits}f}'
    return text


def time_cell(row):
    low, median, high = 1e3 * timing.quartiles(row['seconds'])
    return f'{median:.1f} ({low:.1f} to {high:.1f})'


def render(result, form):
    table = table_of(result)
    if form == 'markdown':
        table.set_style(TableStyle.MARKDOWN)
    parts = [preface(result), '', table.get_string()]
    parts += [
        f'\n{folder} has no result: {why}'
        for folder, why in result['failed'].items()
    ]
    return '\n'.join(parts)
