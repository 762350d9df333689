"""Tables and plots of what ``benchmark_upsamplers.py`` measured."""

import itertools

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt  # noqa: E402
from measure import quartiles  # noqa: E402
from prettytable import PrettyTable, TableStyle  # noqa: E402

# Told apart by the colour-blind, and in print by their lightness.
COLOURS = ['#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00']
# What SAPA is in a table of layers or models.
SAPA = dict(layer='sapa-g', model='sapa-g')


def show(result, picture):
    """Print the tables and draw the plot.

    Args:
        result (dict): As in the JSON file.
        picture (Path): Where the plot goes.
    """
    print(markdown(result))
    draw = draw_scaling if result['subcommand'] == 'scaling' else draw_bars
    figure = draw(result)
    environment = result['environment']
    figure.supxlabel(
        f'{environment["machine"]}, torch {environment["torch"]}, '
        f'{environment["date"]}',
        fontsize=8,
        color='0.4',
    )
    figure.savefig(picture, dpi=150)
    plt.close(figure)


def groups(rows, *fields):
    """Rows that have the fields in common, in the order of their coming."""
    keys = list(dict.fromkeys(label(row, *fields) for row in rows))
    for key in keys:
        yield key, [row for row in rows if label(row, *fields) == key]


def label(row, *fields):
    """Words for what a row has in the fields."""
    shape = row['shape']
    if 'size' in shape:
        size = shape['size']
    else:
        size = 'x'.join(str(shape[name]) for name in 'ncehw')
    words = dict(
        shape=size if shape['name'] == size else f'{shape["name"]} {size}',
        dtype=row['dtype'],
        threads=f'{row["threads"]} thread{"s" * (row["threads"] > 1)}',
        passes=row['passes'],
    )
    return ', '.join(words[field] for field in fields)


def medians(rows):
    """Median seconds of each contestant that was timed."""
    return {
        row['contestant']: quartiles(row['seconds'])[1]
        for row in rows
        if 'seconds' in row
    }


def number(x):
    """Three digits, without an exponent."""
    return f'{x:.0f}' if x >= 100 else f'{x:#.3g}'


def markdown(result):
    """All rows as tables in Markdown.

    Args:
        result (dict): As in the JSON file.

    Returns:
        str: A table for each case and pass; without the columns that would
        be empty.
    """
    parts = [
        f'- {name}: {value}'
        for name, value in result['environment'].items()
        if value is not None
    ]
    if result['bandwidth']:
        parts.append(f'- copy: {result["bandwidth"] / 1e9:.0f} GB/s')
    fields = ['shape', 'dtype', 'passes']
    if result['device'] == 'cpu':
        fields.insert(2, 'threads')
    for title, rows in groups(result['rows'], *fields):
        table = PrettyTable()
        table.set_style(TableStyle.MARKDOWN)
        cells = [_cells(row, rows, result) for row in rows]
        for name in dict.fromkeys(itertools.chain(*cells)):
            column = [row.get(name, '') for row in cells]
            left = name in ('contestant', 'note')
            table.add_column(name, column, align='l' if left else 'r')
        parts += [f'\n### {title}\n', table.get_string()]
    return '\n'.join(parts)


def _cells(row, rows, result):
    """The cells of a row that have something in them, by column."""
    cells = {'contestant': row['contestant']}
    if 'seconds' not in row:
        # A column for all, after those with figures.
        return {**cells, 'note': row['reason'].replace('|', '/')}
    low, middle, high = quartiles(row['seconds'])
    cells['ms'] = number(middle * 1e3)
    cells['quartiles'] = f'{number(low * 1e3)} to {number(high * 1e3)}'
    times = medians(rows)
    for name in ('bilinear', SAPA.get(result['subcommand'], 'sapa')):
        if name in times:
            cells[f'× {name}'] = number(middle / times[name])
    if 'floor_bytes' in row:
        if result['bandwidth']:
            floor = row['floor_bytes'] / result['bandwidth']
            cells['× floor'] = number(middle / floor)
        cells['ns a pixel'] = number(middle * 1e9 / pixels(row))
    if row.get('extra_bytes') is not None:
        cells['extra MB'] = f'{max(0, row["extra_bytes"]) / 1e6:.1f}'
    if row.get('upsampling_seconds'):
        part = quartiles(row['upsampling_seconds'])[1]
        cells['upsampling ms'] = number(part * 1e3)
        cells['share'] = f'{100 * part / middle:.1f} %'
    return cells


def pixels(row):
    """High-res pixels of a row's case."""
    shape = row['shape']
    return shape['n'] * shape['h'] * shape['w'] * 4


def draw_bars(result):
    """Bars of time relative to bilinear, a panel for each case."""
    models = result['subcommand'] == 'model'
    panels = list(groups(result['rows'], 'shape', 'dtype', 'threads'))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    names = list(dict.fromkeys(r['contestant'] for r in result['rows']))
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(1 + 4.2 * columns, lines * (1.3 + 0.4 * len(names))),
        sharey=True,
        squeeze=False,
        layout='constrained',
    )
    for axis, (title, panel) in zip(axes.flat, panels):
        passes = list(groups(panel, 'passes'))
        for i, (what, rows) in enumerate(passes):
            times = medians(rows)
            if not models and 'bilinear' not in times:
                continue
            unit = 1e-3 if models else times['bilinear']
            height = 0.8 / len(passes)
            places = [
                names.index(name) + (i + 0.5) * height - 0.4 for name in times
            ]
            values = [time / unit for time in times.values()]
            bars = axis.barh(
                places, values, height, color=COLOURS[i], label=what
            )
            axis.bar_label(
                bars, [number(value) for value in values], padding=2, size=8
            )
            if models:
                parts = [
                    quartiles(row['upsampling_seconds'])[1] / unit
                    for row in rows
                    if row.get('upsampling_seconds')
                ]
                axis.barh(
                    places, parts, height, color=COLOURS[1], label='upsampling'
                )
        axis.set_title(title, fontsize=9)
        if models:
            axis.set_xlabel('ms')
        else:
            axis.set_xscale('log')
            axis.axvline(1, color='0.5', linewidth=0.8)
            axis.set_xlabel('time, × bilinear')
        axis.margins(x=0.15)
        axis.spines[['top', 'right']].set_visible(False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def draw_scaling(result):
    """Lines of time a high-res pixel, for one map and for batches."""
    panels = dict(side='one map, growing', batch='batch of maps, growing')
    figure, axes = plt.subplots(
        1, 2, figsize=(10, 4), sharey=True, layout='constrained'
    )
    names = list(dict.fromkeys(r['contestant'] for r in result['rows']))
    styles = itertools.cycle(['-', '--', ':', '-.'])
    styles = {
        key: next(styles)
        for key, _ in groups(result['rows'], 'dtype', 'threads', 'passes')
    }
    for axis, (panel, title) in zip(axes, panels.items()):
        chosen = [r for r in result['rows'] if r['shape']['name'] == panel]
        for key, rows in groups(chosen, 'dtype', 'threads', 'passes'):
            for name, colour, marker in zip(
                names, itertools.cycle(COLOURS), itertools.cycle('osD^vX')
            ):
                points = [
                    (pixels(row), quartiles(row['seconds'])[1])
                    for row in rows
                    if row['contestant'] == name and 'seconds' in row
                ]
                axis.plot(
                    [count for count, _ in points],
                    [time * 1e9 / count for count, time in points],
                    styles[key],
                    marker=marker,
                    color=colour,
                    label=f'{name}, {key}',
                )
        shape = chosen[0]['shape']
        axis.set_title(f'{title}; C = {shape["c"]}, E = {shape["e"]}')
        axis.set(xscale='log', yscale='log', xlabel='high-res pixels')
        axis.grid(which='major', color='0.9')
        axis.spines[['top', 'right']].set_visible(False)
    axes[0].set_ylabel('ns a high-res pixel')
    axes[1].legend(fontsize=8, frameon=False)
    return figure
