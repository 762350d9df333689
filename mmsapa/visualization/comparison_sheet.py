"""The sheet of operators side by side (the paper's supplement, Fig. S1)."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .comparison import (
    Comparison,
    Detections,
    disagreement,
    find_boxes,
    image_iou,
    is_class,
    match_detections,
)
from .words import choose_fonts, class_names, drawable, length

# Inches and points of a sheet that a README shows 900 pixels wide.
WIDTH, DPI = 9.0, 150
GAP, LINE = 0.06, 0.17
NAME_SIZE, TEXT_SIZE = 9, 7.5
# Lines of zoom boxes, and what parts them from any map: classes may have any
# colour, so boxes have none.
DASHES = (0, (2, 1.2))
BOX_STYLES = (
    ('white', 'black', '-'),
    ('black', 'white', DASHES),
    ('black', 'white', '-'),
    ('white', 'black', (0, (0.8, 1.2))),
)
# Differences, told apart by the colour-blind, and in print by lightness; none
# of them is a class of the demo's scenes.
SAME, WRONG, BETTER, WORSE = '#FFFFFF', '#D4D4D4', '#1A85FF', '#8B0A3D'
NOT_COUNTED = '#C8C8C8'
MAX_CLASSES = 16


def draw_comparison(
    rows: Sequence[Comparison],
    palette: Sequence[Sequence[int]],
    classes: Sequence[str] | None = None,
    zooms: int = 2,
    difference: bool = False,
    width: float = WIDTH,
):
    """Draw images, truth, and a column for each operator.

    Under each map stand its zoom boxes, enlarged; they are the same in all
    columns: where operators differ most, or a single one is wrong. With
    ``difference`` another line shows where an operator is right and wrong
    beside the first one, or, without truth, where it differs from that.

    Args:
        rows (Sequence[Comparison]): A row for each; all with the same
            operators in the same order.
        palette (Sequence[Sequence[int]]): RGB of each class, 0 to 255.
        classes (Sequence[str], optional): Their names, for the legend.
        zooms (int): How many boxes are chosen where a row brings none.
            Default: 2.
        difference (bool): Draw differences. Default: False.
        width (float): In inches. Default: 9, for text that can be read
            when the picture is 900 pixels wide.

    Returns:
        matplotlib.figure.Figure: To be saved by its ``savefig``, at its own
        dpi.

    Raises:
        ValueError: If there are no rows, their operators differ, shapes or
            types of a row do not fit, a box lies outside of its image, or
            classes and palette are not as many.
    """
    if classes is not None and len(classes) != len(palette):
        raise ValueError(
            'draw_comparison: expected a color for each class, got '
            f'{len(classes)} classes and {len(palette)} colors.'
        )
    rows = [_check(row, rows[0], len(palette)) for row in rows]
    if not rows:
        raise ValueError('draw_comparison: expected one row or more, got 0.')
    rows = [
        row
        if row.boxes is not None
        else row._replace(boxes=_choose_boxes(row, zooms, len(palette)))
        for row in rows
    ]
    return _Sheet(rows, palette, classes, difference, width).draw()


def _check(row, first, num_classes):
    """Answer a row that cannot be drawn in a sentence."""
    where = f'draw_comparison: {row.name or "a row"}: '
    names, expected = list(row.predictions), list(first.predictions)
    if not names or names != expected:
        raise ValueError(
            f'{where}expected predictions of '
            f'{", ".join(expected) or "an operator"}, got '
            f'{", ".join(names) or "none"}.'
        )
    if row.image.ndim != 3 or row.image.shape[2] != 3:
        raise ValueError(
            f'{where}expected an image [H, W, 3], got {list(row.image.shape)}.'
        )
    size = row.image.shape[:2]
    maps = dict(row.predictions)
    if row.truth is not None:
        maps['truth'] = row.truth
    for name, values in maps.items():
        if isinstance(values, Detections) != isinstance(
            first.predictions[expected[0]], Detections
        ):
            raise ValueError(
                f'{where}expected label maps or detections, got both; draw '
                'them apart.'
            )
        if isinstance(values, Detections):
            if np.any(values.labels >= num_classes):
                raise ValueError(
                    f'{where}expected labels below {num_classes}, the length '
                    f'of the palette, got {values.labels.max()} of {name}.'
                )
        elif values.shape != size:
            raise ValueError(
                f'{where}expected the label map of {name} at the size of the '
                f'image {list(size)}, got {list(values.shape)}.'
            )
        elif values.dtype.kind not in 'iub':
            raise ValueError(
                f'{where}expected integers in the label map of {name}, got '
                f'{values.dtype}.'
            )
    for x, y, w, h in row.boxes or ():
        if (
            min(x, y) < 0
            or min(w, h) < 1
            or x + w > size[1]
            or y + h > size[0]
        ):
            raise ValueError(
                f'{where}expected boxes x,y,w,h within {size[1]} x {size[0]} '
                f'pixels, got {x},{y},{w},{h}.'
            )
    return row


def _choose_boxes(row, zooms, num_classes):
    height, width = row.image.shape[:2]
    detects = isinstance(next(iter(row.predictions.values())), Detections)
    # An object is seen whole, the edge of a region need not be.
    side = max(8, round((height * width) ** 0.5 / 2.5)) if detects else None
    return find_boxes(disagreement(row, num_classes), zooms, side)


class _Mark(NamedTuple):
    """A rectangle on a map."""

    box: tuple  # x0, y0, x1, y1
    colour: str | tuple
    line: str | tuple = '-'


class _Map(NamedTuple):
    """What one place of the sheet shows."""

    pixels: np.ndarray
    marks: tuple = ()


class _Sheet:
    """Places maps and words, all in inches from the top left corner."""

    def __init__(self, rows, palette, classes, difference, width):
        self.rows, self.width = rows, width
        self.palette = np.array(palette, np.uint8)
        self.classes = None if classes is None else class_names(classes)
        self.operators = list(rows[0].predictions)
        self.names = list(map(drawable, self.operators))
        self.truths = any(row.truth is not None for row in rows)
        self.detects = isinstance(
            rows[0].predictions[self.operators[0]], Detections
        )
        # One alone differs from nothing but the truth.
        self.difference = difference and (
            self.truths or len(self.operators) > 1
        )
        columns = 1 + self.truths + len(self.operators)
        self.column = (width - GAP * (columns + 1)) / columns
        # Zooms are of one size in all rows, as far as their boxes allow.
        self.aspects = max(
            sum(w / h for _, _, w, h in row.boxes) for row in rows
        )
        # Of two operators without truth the difference itself says this.
        self.where_any_differ = not self.detects and (
            len(self.operators) + self.truths > 2
        )
        self.texts, self.axes = [], []

    def draw(self):
        from matplotlib.figure import Figure

        y = GAP + self.write_names()
        for row in self.rows:
            y = self.place_row(row, y) + 2 * GAP
        legends, y = self.plan_legends(y)
        if y * DPI >= 2**16:
            raise ValueError(
                'draw_comparison: expected a sheet less than '
                f'{2**16 // DPI} inches high, got {y:.0f}; draw fewer rows.'
            )
        figure = Figure(figsize=(self.width, y), dpi=DPI, facecolor='white')
        self.size = (self.width, y)
        for x, top, text, style in self.texts:
            # File names may have dollar signs, and are no formulas.
            figure.text(
                x / self.width, 1 - top / y, text, parse_math=False, **style
            )
        for place in self.axes:
            self.show(figure, *place)
        for top, handles, columns in legends:
            legend = figure.legend(
                handles=handles,
                loc='upper center',
                bbox_to_anchor=(0.5, 1 - top / y),
                ncols=columns,
                frameon=False,
                fontsize=TEXT_SIZE,
                borderpad=0,
                borderaxespad=0,
                handlelength=1.4,
                columnspacing=1.4,
                handletextpad=0.5,
            )
            for text in legend.get_texts():
                text.set_parse_math(False)
        choose_fonts(figure)
        return figure

    def left(self, column):
        return GAP + column * (self.column + GAP)

    def write(self, column, top, text, size=TEXT_SIZE, **style):
        longest = max(_length(line, size) for line in text.split('\n'))
        size *= min(1, self.column / max(GAP, longest))
        style = dict(ha='center', va='center', fontsize=size) | style
        x = self.left(column) + self.column / 2
        self.texts.append((x, top, text, style))

    def add(self, column, top, height, cell, boxes):
        self.axes.append(
            (self.left(column), top, self.column, height, cell, None, boxes)
        )

    def write_names(self):
        """The names of the columns; returns how high they stand."""
        names = ['image', *['truth'] * self.truths, *self.names]
        room = int(self.column / _length('n', NAME_SIZE))
        wrapped = [
            '\n'.join(textwrap.wrap(name, max(4, room))) for name in names
        ]
        height = LINE * 1.1 * max(name.count('\n') + 1 for name in wrapped)
        for column, name in enumerate(wrapped):
            self.write(column, GAP + height, name, NAME_SIZE, va='bottom')
        return height

    # ---- rows ----

    def place_row(self, row, y):
        """Place maps, zooms and differences; returns where the row ends."""
        height, width = row.image.shape[:2]
        shown = self.column * min(max(height / width, 0.15), 1.3)
        cells = [_Map(row.image)]
        if self.truths:
            cells.append(row.truth is not None and self.paint(row, row.truth))
        cells += [self.paint(row, p) for p in row.predictions.values()]
        first = 1 + self.truths

        room = int(self.column / _length('n', TEXT_SIZE))
        if row.name:
            name = drawable(row.name)
            if len(name) > room:  # its end tells files apart
                name = '…' + name[1 - room :]
            self.write(0, y + LINE / 2, name, color='0.35')
        if row.truth is not None:
            scores = [
                self.score(p, row.truth) for p in row.predictions.values()
            ]
            values = [value for value, _ in scores]
            best = max(values) if len({*values}) > 1 else None
            for i, (value, text) in enumerate(scores):
                weight = 'bold' if value == best else 'normal'
                self.write(first + i, y + LINE / 2, text, fontweight=weight)
        if row.truth is not None or row.name:
            y += LINE
        for column, cell in enumerate(cells):
            if cell:
                self.add(column, y, shown, cell, row.boxes)
        y += shown
        if row.boxes:
            y = self.place_zooms(row, cells, y + GAP)
        if self.difference:
            y = self.place_differences(row, y + GAP, shown)
        return y

    def place_zooms(self, row, cells, y):
        """Boxes of a height beside each other, as wide as the column."""
        aspects = [w / h for _, _, w, h in row.boxes]
        room = self.column - GAP * (len(aspects) - 1)
        height = min(room / self.aspects, self.column)
        spare = (room - height * sum(aspects)) / 2
        for column, cell in enumerate(cells):
            x = self.left(column) + spare
            for i, aspect in enumerate(aspects):
                if cell:
                    self.axes.append(
                        (x, y, height * aspect, height, cell, i, row.boxes)
                    )
                x += height * aspect + GAP
        return y + height

    def place_differences(self, row, y, shown):
        """Beside the first operator, and where there are any at all."""
        first = 1 + self.truths
        if self.where_any_differ:
            pairs = len(self.operators) * (len(self.operators) - 1) / 2
            share = disagreement(row, len(self.palette)) / pairs
            grey = np.uint8(255 * (1 - share))
            cell = _Map(grey[..., None].repeat(3, -1))
            self.add(first - 1, y, shown, cell, row.boxes)
        baseline = row.predictions[self.operators[0]]
        for i, prediction in enumerate(row.predictions.values()):
            if i == 0 and row.truth is None:
                continue
            compare = (
                self.compare_detections
                if self.detects
                else self.compare_labels
            )
            cell = compare(row, prediction, baseline)
            boxes = () if self.detects else row.boxes
            self.add(first + i, y, shown, cell, boxes)
        return y + shown

    # ---- what the maps show ----

    def paint(self, row, values):
        if not isinstance(values, Detections):
            return _Map(paint_labels(values, self.palette))
        # Paler, so that the boxes stand out.
        pixels = (row.image * 0.5 + 127).astype(np.uint8)
        colours = self.palette[values.labels]
        if values.masks is not None:
            for mask, colour in zip(values.masks, colours):
                mask = np.asarray(mask, bool)
                pixels[mask] = pixels[mask] * 0.4 + colour * 0.6
        marks = (
            _Mark(tuple(box), tuple(colour / 255))
            for box, colour in zip(values.bboxes.tolist(), colours)
        )
        return _Map(pixels, tuple(marks))

    def score(self, prediction, truth):
        """How good it is, as a number and in words."""
        if not self.detects:
            value = image_iou(prediction, truth, len(self.palette))
            known = not np.isnan(value)
            return value, f'mIoU {value:.1f}' if known else 'nothing counted'
        partners, free = match_detections(prediction, truth)
        found, false = (partners >= 0).sum(), (partners < 0).sum()
        value = 2 * found / max(1, len(partners) + len(free))
        return value, f'{found} of {len(free)} found, {false} false'

    def compare_labels(self, row, prediction, baseline):
        if row.truth is None:
            codes = np.where(prediction == baseline, 0, 2)
        else:
            right, was = (p == row.truth for p in (prediction, baseline))
            codes = np.select([right & was, right, was], [0, 2, 3], 1)
            codes[~is_class(row.truth, len(self.palette))] = 4
        return _Map(
            paint_labels(
                codes, [_rgb(c) for c in (SAME, WRONG, BETTER, WORSE)]
            )
        )

    def compare_detections(self, row, prediction, baseline):
        target = baseline if row.truth is None else row.truth
        partners, free = match_detections(prediction, target)
        marks = [
            _Mark(tuple(box), WORSE if partner < 0 else BETTER)
            for box, partner in zip(prediction.bboxes.tolist(), partners)
        ]
        marks += [
            _Mark(tuple(box), 'black', DASHES)
            for box in target.bboxes[free].tolist()
        ]
        grey = row.image.mean(-1, keepdims=True).repeat(3, -1)
        return _Map((grey * 0.35 + 165).astype(np.uint8), tuple(marks))

    # ---- legend ----

    def plan_legends(self, y):
        """The legends with their tops, and where the sheet ends."""
        legends = []
        for handles in (self.class_handles(), self.difference_handles()):
            if not handles:
                continue
            lengths = [
                0.4 + _length(handle.get_label(), TEXT_SIZE)
                for handle in handles
            ]
            # As few lines as fit; a legend is filled column by column.
            for lines in range(1, len(handles) + 1):
                starts = range(0, len(handles), lines)
                widths = [max(lengths[i : i + lines]) for i in starts]
                if sum(widths) < self.width:
                    break
            y += GAP
            legends.append((y, handles, len(widths)))
            y += lines * LINE
        return legends, y + GAP

    def class_handles(self):
        """Classes that are seen, those of the largest area first to stay."""
        from matplotlib.patches import Patch

        areas = np.zeros(len(self.palette))
        not_counted = False
        for row in self.rows:
            for values in [*row.predictions.values(), row.truth]:
                if values is None:
                    continue
                if isinstance(values, Detections):
                    areas += np.bincount(values.labels, minlength=len(areas))
                    continue
                counted = is_class(values, len(areas))
                not_counted |= not counted.all()
                areas += np.bincount(values[counted], minlength=len(areas))
        seen = np.argsort(-areas, kind='stable')[: (areas > 0).sum()]
        handles = []
        if self.classes is not None:
            handles = [
                Patch(
                    facecolor=self.palette[i] / 255,
                    edgecolor='0.5',
                    linewidth=0.4,
                    label=self.classes[i],
                )
                for i in sorted(seen[:MAX_CLASSES])
            ]
            if len(seen) > MAX_CLASSES:
                more = f'and {len(seen) - MAX_CLASSES} more'
                handles.append(Patch(alpha=0, label=more))
        if not_counted:
            handles.append(
                Patch(
                    facecolor=NOT_COUNTED,
                    edgecolor='white',
                    hatch='//////',
                    linewidth=0,
                    label='not counted',
                )
            )
        return handles

    def difference_handles(self):
        if not self.difference:
            return []
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        first = self.names[0]
        if self.detects:
            words = ('found', 'false', 'missed')
            if not self.truths:
                words = (
                    f'in {first} too',
                    f'not in {first}',
                    f'in {first} alone',
                )
            lines = ((BETTER, '-'), (WORSE, '-'), ('black', DASHES))
            return [
                Line2D([], [], color=c, linestyle=s, linewidth=1.4, label=word)
                for (c, s), word in zip(lines, words)
            ]
        names = {SAME: f'as {first}', BETTER: f'differs from {first}'}
        if len(self.operators) == 1:
            names = {SAME: 'right', WRONG: 'wrong'}
        elif self.truths:
            names = {
                SAME: 'right',
                WRONG: f'wrong as {first}',
                BETTER: f'right where {first} is wrong',
                WORSE: f'wrong where {first} is right',
            }
        if self.where_any_differ:
            names['black'] = 'operators differ'
        return [
            Patch(facecolor=c, edgecolor='0.5', linewidth=0.4, label=name)
            for c, name in names.items()
        ]

    # ---- matplotlib ----

    def show(self, figure, x, y, width, height, cell, zoom, boxes):
        """Show a map, or of it the box of number ``zoom``."""
        from matplotlib.patches import Rectangle

        whole, high = self.size
        axis = figure.add_axes(
            (x / whole, 1 - (y + height) / high, width / whole, height / high)
        )
        rows, columns = cell.pixels.shape[:2]
        left, top, w, h = (
            (0, 0, columns, rows) if zoom is None else boxes[zoom]
        )
        axis.imshow(
            cell.pixels[top : top + h, left : left + w],
            extent=(left - 0.5, left + w - 0.5, top + h - 0.5, top - 0.5),
            # Pixels stay pixels, and what is made smaller loses no lines.
            interpolation='nearest' if w < width * DPI else 'antialiased',
            aspect='equal' if zoom is None else 'auto',
        )
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(zoom is None)
        axis.spines[:].set(linewidth=0.4, color='0.5')
        axis.set(
            xlim=(left - 0.5, left + w - 0.5),
            ylim=(top + h - 0.5, top - 0.5),
        )
        for (x0, y0, x1, y1), colour, line in cell.marks:
            thick = 1.1 if zoom is None else 1.5
            for edge, wider in ((_halo(colour), 0.9), (colour, 0)):
                axis.add_patch(
                    Rectangle(
                        (x0 - 0.5, y0 - 0.5),
                        x1 - x0,
                        y1 - y0,
                        fill=False,
                        edgecolor=edge,
                        linestyle=line if not wider else '-',
                        linewidth=thick + wider,
                    )
                )
        for i, box in enumerate(boxes or ()):
            if zoom in (None, i):
                self.frame(axis, box, i)

    def frame(self, axis, box, number):
        """Draw a zoom box in the style of its number."""
        left, top, right, bottom = np.add((*box[:2], *box[:2]), -0.5) + (
            0, 0, *box[2:]
        )  # fmt: skip
        x = np.array([left, right, right, left, left])
        y = np.array([top, top, bottom, bottom, top])
        line, halo, dash = BOX_STYLES[number % len(BOX_STYLES)]
        if self.detects:
            # Its corners alone, for detections have boxes too.
            x, y = (_corners(values) for values in (x, y))
            dash = '-'
        for colour, style, thick in ((halo, '-', 2.2), (line, dash, 1.1)):
            axis.plot(
                x,
                y,
                color=colour,
                linestyle=style,
                linewidth=thick,
                solid_capstyle='projecting',
                solid_joinstyle='miter',
                clip_on=False,
                zorder=4,
            )


def _corners(values, part=0.2):
    """Of a coordinate along a closed outline, that near its corners."""
    steps = np.diff(values)
    pieces = [values[:-1], values[:-1] + part * steps, np.full(4, np.nan)]
    pieces += [values[1:] - part * steps]
    return np.append(np.stack(pieces, 1).ravel(), values[-1])


def paint_labels(
    labels: np.ndarray, palette: Sequence[Sequence[int]]
) -> np.ndarray:
    """Give every label its colour, and grey stripes to what has none.

    Args:
        labels (np.ndarray): Integers, [H, W].
        palette (Sequence[Sequence[int]]): RGB of each label, 0 to 255.

    Returns:
        np.ndarray: RGB, uint8, [H, W, 3].
    """
    palette = np.asarray(palette, np.uint8)
    counted = is_class(labels, len(palette))
    pixels = palette[np.where(counted, labels, 0)]
    y, x = np.indices(labels.shape)
    period = max(4, round(max(labels.shape) / 24))
    stripes = (x + y) % period < max(1, period // 4)
    grey = np.where(stripes[..., None], 255, _rgb(NOT_COUNTED))
    return np.where(counted[..., None], pixels, grey).astype(np.uint8)


def _rgb(colour):
    from matplotlib.colors import to_rgb

    return tuple(round(255 * part) for part in to_rgb(colour))


def _halo(colour):
    """Black around light colours, white around dark ones."""
    from matplotlib.colors import to_rgb

    light = np.dot(to_rgb(colour), (0.3, 0.6, 0.1)) > 0.35
    return 'black' if light else 'white'


def _length(text, size):
    """About how long a text is, in inches; words are set in DejaVu Sans."""
    return length(text) * size * 0.56 / 72
