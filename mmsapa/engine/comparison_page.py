"""The page of a controlled comparison: its tables, and what they are."""

import statistics

from prettytable import PrettyTable, TableStyle

from mmsapa.engine import timing

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


def render(result):
    """Write a comparison as Markdown: what was measured, and the tables.

    Args:
        result (dict): What comparison.json holds. Without ``baseline``,
            ``classes`` or learning rates, their tables and columns are left
            out.

    Returns:
        str: Of several lines, without a newline at the end.
    """
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
    rates = result.get('rates')
    table = _table(
        *('upsampler', *(head for _, head, _ in columns)),
        *('parameters', 'FLOPs, G', 'ms per image', 'peak memory, MB'),
        *['learning rate'] * bool(rates),
    )
    for row in result['rows']:
        low, median, high = 1e3 * timing.quartiles(row['seconds'])
        cells = (
            row['upsampler'],
            *(_mean_of(row, key, 1, digits) for key, _, digits in columns),
            f'{row["params"]:,}',
            f'{row["flops"] / 1e9:.3f}',
            f'{median:.1f} ({low:.1f} to {high:.1f})',
            _mean_of(row, 'peak_bytes', 1e6, 0),
            *[f'{row["rate"]:g}' for _ in range(bool(rates))],
        )
        table.add_row(cells)
    text = (
        f'{result["config"]}, {result["iterations"]} iterations. {spread}. '
        f'{NOTES[columns]} Parameters and FLOPs are counted as by '
        'get_flops.py, for an image of '
        f'{"x".join(map(str, result["size"]))} pixels; times are the median '
        f'and quartiles of its inference. Peak memory is the {memory}.'
        f'{_about_rates(result, columns[0][1])}\n'
        f'Measured on {made["date"]}, {made["machine"]}{threads}, '
        f'torch {made["torch"]}, mmsapa {made["commit"] or made["mmsapa"]}.'
        f'\n\n{table.get_string()}'
    )
    if 'baseline' in result:
        text += _differences(result, columns)
    if 'classes' in result:
        text += _classes(result)
    return text


def _table(*heads):
    table = PrettyTable(heads, align='r')
    table.set_style(TableStyle.MARKDOWN)
    table.align[heads[0]] = 'l'
    return table


def _about_rates(result, head):
    if not result.get('rates'):
        return ''
    rates = ', '.join(f'{rate:g}' for rate in result['rates'])
    return (
        f' The learning rate of each upsampler is that of {rates} with the '
        f'best {head} of the validation images, with seed '
        f'{result["seeds"][0]}; all figures are those of the test images.'
    )


def _differences(result, columns):
    """Write the table of differences from the baseline."""
    baseline, seeds = result['baseline'], len(result['seeds'])
    rows = [row for row in result['rows'] if 'paired' in row]
    names = rows[0]['paired']
    shown = [column for column in columns if column[0] in names]
    table = _table('upsampler', *(f'Δ {head}' for _, head, _ in shown))
    for row in rows:
        cells = [row['upsampler']]
        for key, _, digits in shown:
            pair = row['paired'][key]
            keys = 'difference', 'low', 'high'
            if pair['low'] is None:
                cells.append('-')
                continue
            mean, low, high = (f'{pair[x]:+.{digits}f}' for x in keys)
            better = f'{pair["better"]} of {seeds}'
            cells.append(f'{mean} ({low} to {high}), {better}')
        table.add_row(cells)
    others = '; one seed says nothing about others'
    if seeds > 1:
        others = (
            f", and of seeds, by Student's t distribution with {seeds - 1} "
            'degrees of freedom: few seeds make it wide'
        )
    return (
        f'\n\nPaired differences from {baseline}, with the same seeds and '
        'test images: mean, 95 % confidence interval, and in how many seeds '
        'the upsampler is better. The interval covers the choice of test '
        f'images, by a bootstrap over images{others} '
        '(mmsapa.evaluation.paired); images are taken to be independent, but '
        'for those of which the data set says that they belong together. '
        'Without 0 in it, the difference is significant at the 5 % level; '
        'where there is none, one interval in twenty is without 0 by chance.'
        f'\n\n{table.get_string()}'
    )


def _classes(result):
    """Write a table of classes for each figure."""
    text = (
        '\n\nFigures of each class are in percent'
        + ', means ± standard deviations' * (len(result['seeds']) > 1)
        + '; - stands for a class in no mask, be it of one seed alone.'
    )
    if 'baseline' in result:
        text += (
            ' * marks a figure whose paired difference from '
            f'{result["baseline"]} is significant at the 5 % level, as above.'
        )
    for key, head in ('mIoU', 'IoU'), ('mBIoU', 'boundary IoU'):
        table = _table(head, *(row['upsampler'] for row in result['rows']))
        for number, name in enumerate(result['classes']):
            cells = [_class_cell(row, key, number) for row in result['rows']]
            table.add_row([name, *cells])
        text += f'\n\n{table.get_string()}'
    return text


def _class_cell(row, key, number):
    figures = [run['classes'][key][number] for run in row['runs']]
    if None in figures:
        return '-'
    text = _spread_of(figures, 1)
    ends = row.get('paired', {}).get(key, {}).get('classes')
    if ends and ends['low'][number] is not None:
        low, high = ends['low'][number], ends['high'][number]
        text += '*' * (low > 0 or high < 0)
    return text


def _mean_of(row, key, unit, digits):
    """Mean over the seeds, ± standard deviation if there are several."""
    return _spread_of([run[key] / unit for run in row['runs']], digits)


def _spread_of(numbers, digits):
    text = f'{statistics.mean(numbers):.{digits}f}'
    if len(numbers) > 1:
        text += f' ± {statistics.stdev(numbers):.{digits}f}'
    return text
