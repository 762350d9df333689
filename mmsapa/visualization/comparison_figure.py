"""A figure of models side by side (the paper's supplement, Fig. S1)."""

import textwrap
from collections.abc import Sequence
from functools import partial

import numpy as np

from . import comparison_maps as maps
from . import depth_maps, matte_maps
from .comparison import Comparison, check_rows
from .comparison_cells import DPI, GAP, NAME_SIZE, TEXT_SIZE, WIDTH, Cells
from .words import class_names, drawable

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
    background: np.ndarray | None = None,
):
    """Draw images, ground truth, and a column for each model.

    Zoom boxes are enlarged below each map. They are the same in all columns:
    where predictions differ most, or where a single one is wrong. With
    ``difference`` another line shows where a model is right and wrong
    compared with the first one, or, without ground truth, where they differ.
    Depth maps of a row share their colors, by the logarithm, with a bar below
    them; differences are relative errors. Of mattes the trimap is drawn, too,
    differences are those of alpha, and with a ``background`` other lines show
    composites over it, of foreground colors that are estimated by each matte.

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
        background (np.ndarray, optional): New background of mattes, RGB,
            uint8: a color [3], or an image [H, W, 3], which is scaled to
            cover each image. Default: None, no composites.

    Returns:
        matplotlib.figure.Figure: Save it by its ``savefig``, at its own dpi.

    Raises:
        ValueError: If there are no rows, their models differ, shapes or
            types of a row do not fit, a box lies outside of its image, the
            figure becomes too high, classes and palette are not as many, or
            there is a background for what are no mattes.
    """
    if classes is not None and len(classes) != len(palette):
        raise ValueError(
            'draw_comparison: expected a color for each class, got '
            f'{len(classes)} classes and {len(palette)} colors.'
        )
    rows = check_rows(rows, len(palette), zooms)
    if background is not None and rows[0].kind != 'mattes':
        raise ValueError(
            'draw_comparison: expected mattes, for composites over a '
            f'background, got {rows[0].kind}; leave the background out.'
        )
    return _ComparisonFigure(
        rows, palette, classes, difference, width, depth_range, background
    ).draw()


class _ComparisonFigure(Cells):
    """Collects lines of known height, then puts them into a grid."""

    def __init__(
        self,
        rows,
        palette,
        classes,
        difference,
        width,
        depth_range,
        background,
    ):
        self.rows, self.width, self.depth_range = rows, width, depth_range
        self.background = background
        self.palette = np.array(palette, np.uint8)
        self.classes = None if classes is None else class_names(classes)
        self.names = list(map(drawable, rows[0].predictions))
        self.known = any(row.ground_truth is not None for row in rows)
        self.kind = rows[0].kind
        self.detects = self.kind == 'detections'
        # Differences have a bar of colors, and no legend.
        self.graded = self.kind in ('depth', 'mattes')
        # Column of the ground truth, or if there is none, of the first model.
        self.first = 1 + (self.kind == 'mattes')
        compared = len(self.names) + self.known
        # A single model differs from nothing but the ground truth.
        self.difference = difference and compared > 1
        # Of two models without ground truth the difference itself says this.
        self.where_any_differ = self.kind == 'labels' and compared > 2
        self.columns = self.first + compared
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
        if self.difference and not self.graded:
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
        names = ['image', 'trimap'][: self.first]
        names += [*['ground truth'] * self.known, *self.names]
        names = [
            '\n'.join(textwrap.wrap(name, self.room(name, NAME_SIZE)))
            for name in names
        ]
        height = max(self.measure(name, NAME_SIZE).height for name in names)
        write = partial(self.write, size=NAME_SIZE)
        cells = {i: partial(write, name) for i, name in enumerate(names)}
        self.lines.append((height / DPI, cells))

    def add_row(self, row):
        """Add texts, maps, zooms, differences and composites of an image."""
        start = self.first + self.known
        predictions = dict(enumerate(row.predictions.values(), start))
        shown = predictions
        if row.ground_truth is not None:
            shown = {self.first: row.ground_truth, **predictions}
        self.add_texts(row, predictions)
        palette = self.palette
        if self.kind == 'depth':
            limits = self.depth_range or depth_maps.depth_range(row)
            palette = depth_maps.depth_colors(*limits)
        painted = {
            i: maps.paint(row, values, palette) for i, values in shown.items()
        }
        painted[0] = maps.Map(row.image)
        if row.trimap is not None:
            painted[1] = maps.Map(matte_maps.gray(row.trimap))
        self.add_maps(row, painted, row.boxes)
        self.add_zooms(row, painted)
        if self.kind == 'depth':
            ticks = depth_maps.depth_ticks(*limits)
            self.add_bar('depth', palette, ticks, 1)
        if self.difference:
            self.add_differences(row)
        if self.background is not None:
            self.add_composites(row, shown)
        self.lines.append((GAP, {}))

    def add_texts(self, row, predictions):
        """Add the name of an image, and how good predictions are."""
        texts = {}
        if row.name:
            name = drawable(row.name)
            room = self.room(name, TEXT_SIZE)
            if len(name) > room:  # its end tells files apart
                name = '…' + name[1 - room :]
            texts[0] = partial(self.write, name, color='0.35')
        if row.ground_truth is not None:
            scores = {
                i: maps.score(row, prediction, len(self.palette))
                for i, prediction in predictions.items()
            }
            values = {value for value, _ in scores.values()}
            values = {value for value in values if not np.isnan(value)}
            best = max(values) if len(values) > 1 else None
            for i, (value, text) in scores.items():
                weight = 'bold' if value == best else 'normal'
                texts[i] = partial(self.write, text, fontweight=weight)
        if texts:
            self.lines.append((TEXT_SIZE / 72, texts))

    def add_differences(self, row):
        """Add what differs, with a bar of its colors if it has degrees."""
        painted = self.differences(row)
        self.add_maps(row, painted, () if self.detects else row.boxes)
        if self.graded and painted:
            known = row.ground_truth is not None
            title = 'error' if known else 'difference'
            if self.kind == 'depth':
                title, ticks = f'relative {title}', depth_maps.error_ticks()
            else:
                title, ticks = f'{title} of alpha', matte_maps.error_ticks()
            colors = depth_maps.error_colors()
            self.add_bar(title, colors, ticks, min(painted))

    def add_composites(self, row, mattes):
        """Add the new background and composites over it."""
        behind = matte_maps.cover(self.background, row.image)
        painted = {
            i: maps.Map(matte_maps.composite(row.image, alpha, behind))
            for i, alpha in mattes.items()
        }
        text = partial(self.write, 'new background', color='0.35')
        self.lines.append((TEXT_SIZE / 72, {1: text}))
        self.add_maps(row, painted, row.boxes)
        _, cells = self.lines[-1]
        cells[1] = partial(self.show, maps.Map(behind), ())
        self.add_zooms(row, painted)

    def differences(self, row):
        """Maps by column: against the first model, and where any differ."""
        painted, count = {}, len(self.palette)
        start = self.first + self.known
        if self.where_any_differ:
            painted[start - 1] = maps.paint_disagreement(row, count)
        baseline, *_ = row.predictions.values()
        for i, prediction in enumerate(row.predictions.values()):
            if i > 0 or row.ground_truth is not None:
                painted[start + i] = maps.paint_difference(
                    row, prediction, baseline, count
                )
        return painted

    def add_maps(self, row, painted, boxes):
        high, wide = row.image.shape[:2]
        height = self.column * min(max(high / wide, 0.15), 1.3)
        parts = painted.items()
        cells = {i: partial(self.show, x, boxes) for i, x in parts}
        self.lines.append((height, cells))

    def add_zooms(self, row, painted):
        if row.boxes:
            room = self.column - GAP * (len(row.boxes) - 1)
            height = min(room / self.aspects, self.column)
            parts = painted.items()
            cells = {i: partial(self.zoom, x, row.boxes) for i, x in parts}
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
