"""Tables and plots of what ``benchmark_upsamplers.py`` measured.

Each takes the result as it stands in the JSON file: ``subcommand``,
``environment``, ``bandwidth`` in bytes a second (of a GPU, else None) and
``rows``. A row has a ``candidate``, its case (``shape``, ``dtype``,
``threads``, ``passes``), and either ``seconds``, one number a round, or the
``reason`` why it was not timed.
"""

import itertools

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from prettytable import PrettyTable, TableStyle

from mmsapa.engine.timing import quartiles

# Distinct for the color-blind, and in print by their lightness.
COLORS = ['#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00']
BASELINES = ('bilinear', 'sapa', 'sapa-g')


def groups(rows, *fields):
    """Yield a title and the rows that have it, in the order they came in."""

    def title(row):
        return ', '.join(
            f'{row[field]} thread{"s" * (row[field] > 1)}'
            if field == 'threads'
            else row[field]
            for field in fields
        )

    for key in dict.fromkeys(map(title, rows)):
        yield key, [row for row in rows if title(row) == key]


def medians(rows, field='seconds'):
    """Median of each candidate that was timed."""
    return {
        row['candidate']: quartiles(row[field])[1]
        for row in rows
        if row.get(field)
    }


def number(x):
    """Three digits, without an exponent."""
    return f'{x:.0f}' if x >= 100 else f'{x:#.3g}'


# ---- tables -----------------------------------------------------------------


def markdown(result):
    """A table for each case and pass, without empty columns.

    Args:
        result (dict): As in the JSON file.

    Returns:
        str: Markdown, after a list of the environment.
    """
    parts = [
        f'- {name}: {value}'
        for name, value in result['environment'].items()
        if value is not None
    ]
    if result['bandwidth']:
        parts.append(f'- copy: {result["bandwidth"] / 1e9:.0f} GB/s')
    for title, rows in groups(
        result['rows'], 'shape', 'dtype', 'threads', 'passes'
    ):
        table = PrettyTable()
        table.set_style(TableStyle.MARKDOWN)
        times = medians(rows)
        lines = [_cells(row, times, result['bandwidth']) for row in rows]
        names = dict.fromkeys(itertools.chain(*lines))
        for name in sorted(names, key='note'.__eq__):  # that one last
            table.add_column(
                name,
                [line.get(name, '') for line in lines],
                align='l' if name in ('candidate', 'note') else 'r',
            )
        parts += [f'\n### {title}\n', table.get_string()]
    return '\n'.join(parts)


def _cells(row, times, bandwidth):
    """The cells of a row that are not empty, by column."""
    cells = {'candidate': row['candidate']}
    if 'reason' in row:
        return {**cells, 'note': row['reason'].replace('|', '/')}
    low, middle, high = quartiles(row['seconds'])
    cells['ms'] = number(middle * 1e3)
    cells['quartiles'] = f'{number(low * 1e3)} to {number(high * 1e3)}'
    for name in BASELINES:
        if name in times:
            cells[f'× {name}'] = number(middle / times[name])
    if bandwidth and 'floor_bytes' in row:
        cells['× floor'] = number(middle * bandwidth / row['floor_bytes'])
    if 'pixels' in row:
        cells['ns a pixel'] = number(middle * 1e9 / row['pixels'])
    if row.get('extra_bytes') is not None:
        cells['extra MB'] = f'{max(0, row["extra_bytes"]) / 1e6:.1f}'
    if row.get('upsampling_seconds'):
        part = quartiles(row['upsampling_seconds'])[1]
        cells['upsampling ms'] = number(part * 1e3)
        cells['share'] = f'{100 * part / middle:.1f} %'
    return cells


# ---- plots ------------------------------------------------------------------


def draw(result):
    """Draw lines of the scaling, bars of anything else.

    Args:
        result (dict): As in the JSON file.

    Returns:
        Figure: To be saved at 150 dpi.
    """
    scaling = result['subcommand'] == 'scaling'
    figure = (_draw_lines if scaling else _draw_bars)(result)
    handles = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels())
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc=f'outside {"right" if scaling else "upper"} center',
        ncols=1 if scaling else len(handles),
        frameon=False,
    )
    environment = result['environment']
    figure.supxlabel(
        f'{environment["machine"]}, torch {environment["torch"]}, '
        f'{environment["date"]}',
        fontsize=8,
        color='0.4',
    )
    return figure


def _draw_bars(result):
    """Bars for each case: models in ms, all else relative to bilinear."""
    models = result['subcommand'] == 'model'
    rows = [row for row in result['rows'] if 'seconds' in row]
    names = list(dict.fromkeys(row['candidate'] for row in rows))
    panels = list(groups(rows, 'shape', 'dtype', 'threads'))
    columns = max(1, min(3, len(panels)))
    lines = max(1, -(-len(panels) // columns))
    figure = Figure(
        (1 + 4.2 * columns, lines * (1 + 0.4 * len(names))),
        layout='constrained',
    )
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axis, (title, panel) in itertools.zip_longest(
        axes.flat, panels, fillvalue=('', [])
    ):
        axis.set_visible(bool(panel))
        passes = list(groups(panel, 'passes'))
        for i, (label, chosen) in enumerate(passes):
            times = medians(chosen)
            unit = 1e-3 if models else times.get('bilinear', float('nan'))
            height = 0.8 / len(passes)
            places = [names.index(x) + (i + 0.5) * height - 0.4 for x in times]
            values = [time / unit for time in times.values()]
            bars = axis.barh(
                places, values, height, color=COLORS[i], label=label
            )
            axis.bar_label(bars, map(number, values), padding=2, size=8)
            parts = medians(chosen, 'upsampling_seconds').values()
            if parts:
                parts = [part / unit for part in parts]
                axis.barh(
                    places,
                    parts,
                    height,
                    color=COLORS[1],
                    label='of which upsampling',
                )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel('ms' if models else 'time, × bilinear')
        if not models:
            axis.set_xscale('log')
            axis.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.axvline(1, color='0.5', linewidth=0.8, zorder=0)
        axis.margins(x=0.15)
        axis.spines[['top', 'right']].set_visible(False)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    return figure


def _draw_lines(result):
    """Lines of time per high-res pixel, for one map and for batches."""
    figure = Figure((12, 4.5), layout='constrained')
    axes = figure.subplots(1, 2, sharey=True)
    rows = [row for row in result['rows'] if 'seconds' in row]
    for axis, (series, panel) in zip(axes, groups(rows, 'series')):
        for (title, lines), style in zip(
            groups(panel, 'dtype', 'threads', 'passes'),
            itertools.cycle(['-', '--', ':', '-.']),
        ):
            for (name, line), color, marker in zip(
                groups(lines, 'candidate'),
                itertools.cycle(COLORS),
                itertools.cycle('osD^vX'),
            ):
                pixels = [row['pixels'] for row in line]
                times = [
                    1e9 * quartiles(row['seconds'])[1] / row['pixels']
                    for row in line
                ]
                axis.plot(
                    pixels,
                    times,
                    style,
                    marker=marker,
                    color=color,
                    label=f'{name}, {title}',
                )
        axis.set_title(series)
        axis.set(xscale='log', yscale='log', xlabel='high-res pixels')
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter(StrMethodFormatter('{x:,g}'))
            side.set_minor_formatter(NullFormatter())
        axis.grid(which='major', color='0.9')
        axis.spines[['top', 'right']].set_visible(False)
    axes[0].set_ylabel('ns a high-res pixel')
    return figure
