"""What matting scenes are drawn with: a fine canvas, strands, colors."""

import cv2
import numpy as np

_SUPERSAMPLING = 4
# OpenCV takes coordinates in these fractions of a pixel.
_SHIFT = 4


class Canvas:
    """Colors and alpha of a foreground, four times finer than it will be."""

    def __init__(self, rng, size):
        self.size, self.side = size, size * _SUPERSAMPLING
        self.hue = draw_color(rng)
        shaded = (1 + 0.3 * clouds(rng, size, 4))[..., None] * self.hue
        shaded = shaded.clip(0, 255).astype(np.uint8)
        self.color = cv2.resize(shaded, (self.side, self.side))
        self.alpha = np.zeros((self.side, self.side), np.uint8)

    def fill(self, points, color=None):
        """Fill a polygon of points [N, 2], in shares of the side."""
        points = [self._fixed(points)]
        cv2.fillPoly(self.alpha, points, 255, cv2.LINE_AA, _SHIFT)
        if color is not None:
            cv2.fillPoly(self.color, points, color, cv2.LINE_AA, _SHIFT)

    def lines(self, points, width, color):
        """Draw along each of the points [L, N, 2], of one color.

        Their width, in pixels of the image, is half of it in the last third.
        """
        middle = 2 * points.shape[1] // 3
        for part, share in (
            (points[:, : middle + 1], 1),
            (points[:, middle:], 0.5),
        ):
            self.line(part, share * width, color)

    def line(self, points, width, color):
        """Draw along points [N, 2], or [L, N, 2], of one width."""
        points = self._fixed(points)
        points = [points] if points.ndim == 2 else [*points]
        width = max(1, round(width * _SUPERSAMPLING))
        for image, value in ((self.alpha, 255), (self.color, color)):
            cv2.polylines(
                image, points, False, value, width, cv2.LINE_AA, _SHIFT
            )

    def _fixed(self, points):
        points = np.asarray(points) * self.side * (1 << _SHIFT)
        return points.round().astype(np.int32)

    def reduce(self):
        """Return color and alpha at their own size.

        Returns:
            tuple[ndarray, ndarray]: BGR, uint8, [size, size, 3], the mean of
            what covers a pixel; uint8, [size, size].
        """
        shares = cv2.cvtColor(self.alpha, cv2.COLOR_GRAY2BGR)
        covered = cv2.multiply(
            self.color, shares, scale=1 / 255, dtype=cv2.CV_32F
        )
        alpha, color, covered = (
            cv2.resize(x, (self.size,) * 2, interpolation=cv2.INTER_AREA)
            for x in (self.alpha, self.color, covered)
        )
        seen = alpha > 0
        color[seen] = (255 * covered[seen] / alpha[seen, None]).clip(0, 255)
        return color, alpha


def strands(rng, roots, headings, lengths, curl, count=9):
    """Lines from roots [L, 2] on, [L, count, 2]; each turns by ``curl``."""
    bend = curl + rng.normal(0, 0.15, len(roots))
    turns = bend[:, None] * np.linspace(-0.5, 0.5, count - 1)
    steps = direction(headings[:, None] + turns).cumsum(1)
    steps *= lengths[:, None, None] / (count - 1)
    return np.concatenate([roots[:, None], roots[:, None] + steps], 1)


def along(line, shares):
    """Points at shares of a line's length, and the line's headings there."""
    places = shares * (len(line) - 1)
    whole = np.arange(len(line))
    points = np.stack([np.interp(places, whole, x) for x in line.T], 1)
    ahead = np.diff(line, axis=0)[places.astype(int).clip(0, len(line) - 2)]
    return points, np.arctan2(ahead[:, 1], ahead[:, 0])


def direction(angle):
    """Return the unit vector of an angle, [..., 2]."""
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def draw_color(rng, saturation=(40, 190)):
    """Draw a color, BGR, with a saturation of this range in 0 to 255."""
    low, high = saturation
    hsv = rng.uniform((0, low, 90), (180, high, 240)).astype(np.uint8)
    return cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2BGR)[0, 0].tolist()


def bright(color, factor=1):
    """Return a color times a factor, as OpenCV takes it."""
    return tuple((np.asarray(color, float) * factor).clip(0, 255).tolist())


def clouds(rng, side, octaves):
    """Noise of several scales, about from -1 to 1, [side, side]."""
    total = np.zeros((side, side), np.float32)
    for k in range(octaves):
        cells = rng.normal(0, 0.5 * 0.6**k, (3 << k,) * 2)
        total += cv2.resize(
            cells.astype(np.float32),
            (side, side),
            interpolation=cv2.INTER_CUBIC,
        )
    return total
