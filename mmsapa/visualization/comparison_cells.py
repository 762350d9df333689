"""What fills the cells of a comparison's grid."""

import math

import numpy as np

from . import comparison_maps as maps
from .words import choose_fonts

# Inches and points of a figure that a README shows 900 pixels wide.
WIDTH, DPI = 9.0, 150
GAP = 0.06
NAME_SIZE, TEXT_SIZE = 9, 7.5


class Cells:
    """Writes texts, shows maps and adds legends.

    Who derives from it sets ``figure``, ``renderer``, its ``width`` and that
    of a ``column``, in inches, and ``detects``, for maps that have boxes of
    their own.
    """

    def text(self, x, y, text, size, **style):
        """Add a text to the figure, above a place in its middle."""
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
