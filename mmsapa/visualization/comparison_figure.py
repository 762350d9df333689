"""A figure of models side by side (the paper's supplement, Fig. S1)."""

import math
import textwrap
from collections.abc import Sequence
from functools import partial

import numpy as np

from . import comparison_maps as maps
from . import depth_maps
from .comparison import Comparison, Detections, check_rows, is_depth
from .words import choose_fonts, class_names, drawable

# Inches and points of a figure that a README shows 900 pixels wide.
WIDTH, DPI = 9.0, 150
GAP = 0.06
NAME_SIZE, TEXT_SIZE = 9, 7.5
BAR = 0.08  # of colors, its height
MAX_PIXELS = 2**16  # along a side, that matplotlib can save


def draw_comparison(
    rows: Sequence[Comparison],
    palette: Sequence[Sequence[int]] = (),
    classes: Sequence[str] | None = None,
    zooms: int = 2,
    difference: bool = False,
    width: float = WIDTH,
    depth_range: tuple[float, float] | None = None,
):
    """Draw images, ground truth, and a column for each model.

    Zoom boxes are enlarged below each map. They are the same in all columns:
    where predictions differ most, or where a single one is wrong. With
    ``difference`` another line shows where a model is right and wrong
    compared with the first one, or, without ground truth, where they differ.
    Depth maps of a row share their colors, by the logarithm, with a bar below
    them; differences are relative errors.

    Args:
        rows (Sequence[Comparison]): One for each image; all with the same
            models in the same order.
        palette (Sequence[Sequence[int]]): RGB of each class, 0 to 255; depth
            needs none.
        classes (Sequence[str], optional): Their names, for the legend.
        zooms (int): How many boxes are chosen where a row brings none.
            Default: 2.
        difference (bool): Draw differences. Default: False.
        width (float): In inches. Default: 9, for text that can be read
            when the picture is 900 pixels wide.
        depth_range (tuple[float, float], optional): Nearest and farthest
            depth in meters that have a color of their own. Default: those of
            each row's ground truth, or if it has none, of its predictions.

    Returns:
        matplotlib.figure.Figure: Save it by its ``savefig``, at its own dpi.

    Raises:
        ValueError: If there are no rows, their models differ, shapes or
            types of a row do not fit, a box lies outside of its image, the
            figure becomes too high, or classes and palette are not as many.
    """
    if classes is not None and len(classes) != len(palette):
        raise ValueError(
            'draw_comparison: expected a color for each class, got '
            f'{len(classes)} classes and {len(palette)} colors.'
        )
    rows = check_rows(rows, len(palette), zooms)
    return _ComparisonFigure(
        rows, palette, classes, difference, width, depth_range
    ).draw()


class _ComparisonFigure:
    """Collects lines of known height, then puts them into a grid."""

    def __init__(self, rows, palette, classes, difference, width, depth_range):
        self.rows, self.width, self.depth_range = rows, width, depth_range
        self.palette = np.array(palette, np.uint8)
        self.classes = None if classes is None else class_names(classes)
        self.names = list(map(drawable, rows[0].predictions))
        self.known = any(row.ground_truth is not None for row in rows)
        prediction = next(iter(rows[0].predictions.values()))
        self.detects = isinstance(prediction, Detections)
        self.depth = is_depth(prediction)
        compared = len(self.names) + self.known
        # A single model differs from nothing but the ground truth.
        self.difference = difference and compared > 1
        # Of two models without ground truth the difference itself says this.
        self.where_any_differ = (
            not self.detects and not self.depth and compared > 2
        )
        self.columns = 1 + compared
        self.column = (width - GAP * (self.columns + 1)) / self.columns
        # Zooms have one height in all rows, as far as their boxes allow.
        self.aspects = max(
            sum(w / h for *_, w, h in row.boxes) for row in rows
        )
        # Height in inches, and by column what fills a cell.
        self.lines = []

    def draw(self):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # Texts are measured before the height is known.
        self.figure = Figure((self.width, 1), DPI, facecolor='white')
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()
        self.add_names()
        for row in self.rows:
            self.add_row(row)
        legends = [maps.class_handles(self.rows, self.palette, self.classes)]
        if self.difference and not self.depth:
            legends.append(
                maps.difference_handles(
                    self.names, self.known, self.detects, self.where_any_differ
                )
            )
        legends = [self.add_legend(handles) for handles in legends if handles]
        heights, contents = zip(*self.lines)
        below = sum(height + 1.5 * GAP for _, height in legends) + GAP / 2
        height = sum(heights) + GAP * len(heights) + below
        if height * DPI >= MAX_PIXELS:
            raise ValueError(
                'draw_comparison: expected a figure less than '
                f'{MAX_PIXELS // DPI} inches high, got {height:.0f}; draw '
                'fewer rows.'
            )
        self.figure.set_size_inches(self.width, height)
        x, y = GAP / self.width, GAP / height
        sides = dict(left=x, right=1 - x, bottom=below / height, top=1 - y)
        grid = self.figure.add_gridspec(
            len(heights),
            self.columns,
            **sides,
            wspace=GAP / self.column,
            hspace=GAP * len(heights) / sum(heights),
            height_ratios=heights,
        )
        for line, cells in enumerate(contents):
            for column, fill in cells.items():
                fill(grid[line, column])
        for legend, high in legends:
            below -= high + 1.5 * GAP
            legend.set_bbox_to_anchor((0.5, below / height + y / 2))
        return self.figure

    # ---- lines of the grid ----

    def add_names(self):
        names = ['image', *['ground truth'] * self.known, *self.names]
        names = [
            '\n'.join(textwrap.wrap(name, self.room(name, NAME_SIZE)))
            for name in names
        ]
        height = max(self.measure(name, NAME_SIZE).height for name in names)
        write = partial(self.write, size=NAME_SIZE)
        cells = {i: partial(write, name) for i, name in enumerate(names)}
        self.lines.append((height / DPI, cells))

    def add_row(self, row):
        """Add texts, maps, zooms and differences of an image."""
        count = len(self.palette)
        predictions = dict(enumerate(row.predictions.values(), 1 + self.known))
        texts, shown = {}, predictions
        if row.name:
            name = drawable(row.name)
            room = self.room(name, TEXT_SIZE)
            if len(name) > room:  # its end tells files apart
                name = '…' + name[1 - room :]
            texts[0] = partial(self.write, name, color='0.35')
        if row.ground_truth is not None:
            shown = {1: row.ground_truth, **predictions}
            scores = {
                i: maps.score(prediction, row.ground_truth, count)
                for i, prediction in predictions.items()
            }
            values = [value for value, _ in scores.values()]
            best = max(values) if len({*values}) > 1 else None
            for i, (value, text) in scores.items():
                weight = 'bold' if value == best else 'normal'
                texts[i] = partial(self.write, text, fontweight=weight)
        if texts:
            self.lines.append((TEXT_SIZE / 72, texts))
        palette = self.palette
        if self.depth:
            limits = self.depth_range or depth_maps.depth_range(row)
            palette = depth_maps.depth_colors(*limits)
        painted = {
            i: maps.paint(row.image, values, palette)
            for i, values in shown.items()
        }
        painted[0] = maps.Map(row.image)
        high, wide = row.image.shape[:2]
        height = self.column * min(max(high / wide, 0.15), 1.3)
        self.add_maps(self.show, height, painted, row.boxes)
        if row.boxes:
            room = self.column - GAP * (len(row.boxes) - 1)
            zoomed = min(room / self.aspects, self.column)
            self.add_maps(self.zoom, zoomed, painted, row.boxes)
        if self.depth:
            ticks = depth_maps.depth_ticks(*limits)
            self.add_bar('depth', palette, ticks, 1)
        if self.difference:
            boxes = () if self.detects else row.boxes
            painted = self.differences(row)
            self.add_maps(self.show, height, painted, boxes)
            if self.depth and painted:
                known = row.ground_truth is not None
                title = f'relative {"error" if known else "difference"}'
                bar = depth_maps.error_colors(), depth_maps.error_ticks()
                self.add_bar(title, *bar, min(painted))
        self.lines.append((GAP, {}))

    def differences(self, row):
        """Maps by column: against the first model, and where any differ."""
        painted, count = {}, len(self.palette)
        if self.where_any_differ:
            painted[self.known] = maps.paint_disagreement(row, count)
        baseline, *_ = row.predictions.values()
        for i, prediction in enumerate(row.predictions.values()):
            if i > 0 or row.ground_truth is not None:
                painted[1 + self.known + i] = maps.paint_difference(
                    row, prediction, baseline, count
                )
        return painted

    def add_maps(self, show, height, painted, boxes):
        cells = {i: partial(show, part, boxes) for i, part in painted.items()}
        self.lines.append((height, cells))

    def add_bar(self, title, colors, ticks, first):
        """Add a bar of colors below the maps from a column on."""

        def draw(cell):
            cells = cell.get_gridspec()[cell.rowspan.start, first:]
            place = cells.get_position(self.figure)
            high = BAR / self.figure.get_figheight()
            axis = place.x0, place.y1 - high, place.width, high
            depth_maps.draw_bar(self.figure, axis, colors, ticks, TEXT_SIZE)

        cells = {first - 1: partial(self.write, title), first: draw}
        self.lines.append((BAR + 1.5 * TEXT_SIZE / 72, cells))

    # ---- texts ----

    def text(self, x, y, text, size, **style):
        # File names may have dollar signs, and are no formulas.
        style |= dict(ha='center', va='bottom', parse_math=False)
        artist = self.figure.text(x, y, text, fontsize=size, **style)
        choose_fonts(artist)
        return artist

    def measure(self, text, size):
        """Extent of a text, in pixels."""
        artist = self.text(0, 0, text, size)
        extent = artist.get_window_extent(self.renderer)
        artist.remove()
        return extent

    def room(self, text, size):
        """How many letters, as wide as those of a text, a column holds."""
        width = max(1, self.measure(text, size).width)
        return max(4, math.ceil(len(text) * self.column * DPI / width))

    def write(self, text, cell, size=TEXT_SIZE, **style):
        """Write at the bottom of a cell, smaller if it is too wide."""
        place = cell.get_position(self.figure)
        x = (place.x0 + place.x1) / 2
        artist = self.text(x, place.y0, text, size, **style)
        width = max(1, artist.get_window_extent(self.renderer).width)
        artist.set_fontsize(size * min(1, self.column * DPI / width))

    # ---- legends ----

    def add_legend(self, handles):
        """Add a legend in as few lines as fit; return it and its height."""
        for lines in range(1, len(handles) + 1):
            columns = math.ceil(len(handles) / lines)
            legend = self.figure.legend(
                handles=handles,
                ncols=columns,
                fontsize=TEXT_SIZE,
                **maps.LEGEND,
            )
            for text in legend.get_texts():
                text.set_parse_math(False)
            choose_fonts(legend)
            box = legend.get_window_extent(self.renderer)
            if columns == 1 or box.width <= (self.width - 2 * GAP) * DPI:
                return legend, box.height / DPI
            legend.remove()

    # ---- maps ----

    def show(self, part, boxes, cell):
        """Show a map with the frames of its zoom boxes."""
        height, width = part.pixels.shape[:2]
        axis = self.show_box(part, (0, 0, width, height), cell, 1.1)
        axis.spines[:].set(linewidth=0.4, color='0.5', visible=True)
        for number, box in enumerate(boxes):
            self.frame(axis, box, number)

    def zoom(self, part, boxes, cell):
        """Show zoom boxes side by side."""
        room = self.column - GAP * (len(boxes) - 1)
        cells = cell.subgridspec(
            1,
            len(boxes),
            width_ratios=[w / h for *_, w, h in boxes],
            wspace=GAP * len(boxes) / room,
        )
        for number, box in enumerate(boxes):
            axis = self.show_box(part, box, cells[number], 1.5)
            self.frame(axis, box, number)

    def show_box(self, part, box, cell, linewidth):
        """Show a box of a map; return its axes."""
        from matplotlib.patches import Rectangle

        axis = self.figure.add_subplot(cell)
        x, y, w, h = box
        limits = (x - 0.5, x + w - 0.5, y + h - 0.5, y - 0.5)
        pixels = axis.get_position().width * self.width * DPI
        axis.imshow(
            part.pixels[y : y + h, x : x + w],
            extent=limits,
            # Pixels stay pixels, and what is made smaller loses no lines.
            interpolation='nearest' if w < pixels else 'antialiased',
        )
        axis.set(xticks=[], yticks=[], xlim=limits[:2], ylim=limits[2:])
        axis.spines[:].set_visible(False)
        for (x0, y0, x1, y1), color, line in part.marks:
            style = dict(fill=False, edgecolor=color, linestyle=line)
            style |= maps.outlined(linewidth, maps.contrast(color), 0.9)
            corner = x0 - 0.5, y0 - 0.5
            axis.add_patch(Rectangle(corner, x1 - x0, y1 - y0, **style))
        return axis

    def frame(self, axis, box, number):
        """Draw a zoom box in the style of its number."""
        left, top, w, h = box
        x = left - 0.5 + w * np.array([0, 1, 1, 0, 0])
        y = top - 0.5 + h * np.array([0, 0, 1, 1, 0])
        color, halo, line = maps.BOX_STYLES[number % len(maps.BOX_STYLES)]
        if self.detects:
            # Its corners alone, for detections have boxes too.
            x, y, line = maps.corners(x), maps.corners(y), '-'
        style = dict(color=color, linestyle=line, clip_on=False, zorder=4)
        style |= dict(solid_capstyle='projecting', solid_joinstyle='miter')
        axis.plot(x, y, **style, **maps.outlined(1.1, halo, 1.1))
