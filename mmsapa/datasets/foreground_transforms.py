"""A2U matting's augmentation of foregrounds and their alpha.

The steps of a pipeline are in :mod:`mmsapa.datasets.matting_transforms`.
"""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmsapa.registry import TRANSFORMS

from .matting_loading import check_size, load_alpha, read_colors


def resize_nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image or a map to a size, without mixing pixels."""
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)


def _check_prob(name, prob):
    if not 0 <= prob <= 1:
        raise ValueError(f'{name}: expected prob from 0 to 1, got {prob}.')


class _Sometimes(BaseTransform):
    """A step that is left out at random."""

    def __init__(self, prob):
        _check_prob(type(self).__name__, prob)
        self.prob = prob

    @cache_randomness
    def happens(self) -> bool:
        """Draw whether the step is taken."""
        return np.random.rand() < self.prob

    def __repr__(self):
        settings = ', '.join(f'{k}={v}' for k, v in vars(self).items())
        return f'{type(self).__name__}({settings})'


@TRANSFORMS.register_module()
class CompositeForeground(_Sometimes):
    """Put a foreground before another one.

    With the other's F₂ and α₂, resized to the first's, α = 1 - (1 - α₁)
    (1 - α₂) and F = (F₁ α₁ + F₂ (1 - α₁) α₂) / (α + 1e-5). Where that α would
    be 1 in every pixel, the first is left alone.

    Required keys: ``fg``, ``alpha``; ``other``, a dict of the ``fg_path`` and
    ``alpha_path`` of the other, which are loaded here.

    Args:
        prob (float): How often. Default: 0.5.

    Raises:
        ValueError: If ``prob`` is no probability.
        ConfigError: If a file cannot be read, or their sizes differ.
    """

    def __init__(self, prob: float = 0.5):
        super().__init__(prob)

    def transform(self, results: dict) -> dict:
        """Composite, and make ``fg`` float32."""
        if not self.happens():
            return results
        size = results['alpha'].shape
        paths = results['other']
        fg = read_colors(paths['fg_path'])
        alpha = load_alpha(paths['alpha_path'])
        check_size(paths['alpha_path'], alpha, fg.shape, paths['fg_path'])
        behind = (1 - results['alpha']) * resize_nearest(alpha, *size)
        if (results['alpha'] + behind).min() >= 1:
            return results
        # It divides by the sum of both weights, which is α, and 1e-5.
        results['fg'] = cv2.blendLinear(
            results['fg'].astype(np.float32),
            resize_nearest(fg, *size).astype(np.float32),
            results['alpha'],
            behind,
        )
        results['alpha'] = results['alpha'] + behind
        return results


@TRANSFORMS.register_module()
class RandomSquareResize(_Sometimes):
    """Resize a foreground to a square, whatever its aspect is; nearest.

    Required keys: ``fg``, ``alpha``.

    Args:
        size (int): Side in pixels. Default: 640.
        prob (float): How often. Default: 0.25.

    Raises:
        ValueError: If ``prob`` is no probability.
    """

    def __init__(self, size: int = 640, prob: float = 0.25):
        super().__init__(prob)
        self.size = size

    def transform(self, results: dict) -> dict:
        """Resize."""
        if self.happens():
            for key in ('fg', 'alpha'):
                results[key] = resize_nearest(
                    results[key], self.size, self.size
                )
        return results


@TRANSFORMS.register_module()
class RandomMattingAffine(BaseTransform):
    """Turn, shear, scale and mirror a foreground about its center; nearest.

    Outside of it ``fg`` and ``alpha`` are 0. The size stays.

    Required keys: ``fg``, ``alpha``.

    Args:
        degrees (float): It is turned by U(-degrees, degrees). Default: 30.
        scale (tuple[float, float]): Range of the factors of width and
            height, each drawn by itself. Default: (0.8, 1.25).
        shear (float): It is sheared horizontally by U(-shear, shear) degrees.
            Default: 10.
        flip_prob (float): How often width and height are each mirrored.
            Default: 0.5.
        turn_from (int): Smaller foregrounds are not turned: pixels of the
            longer side. Default: 1024.

    Raises:
        ValueError: If an argument is none of these.
    """

    def __init__(
        self,
        degrees: float = 30,
        scale: tuple[float, float] = (0.8, 1.25),
        shear: float = 10,
        flip_prob: float = 0.5,
        turn_from: int = 1024,
    ):
        _check_prob('RandomMattingAffine', flip_prob)
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(
                'RandomMattingAffine: expected scale to be a range of '
                f'positive numbers, such as (0.8, 1.25), got {scale}.'
            )
        self.degrees, self.scale, self.shear = degrees, tuple(scale), shear
        self.flip_prob, self.turn_from = flip_prob, turn_from

    @cache_randomness
    def draw(self, height: int, width: int) -> np.ndarray:
        """Draw the matrix [2, 3] from old to new pixels."""
        degrees = self.degrees if max(height, width) >= self.turn_from else 0
        angle = np.radians(np.random.uniform(-degrees, degrees))
        shear = np.radians(np.random.uniform(-self.shear, self.shear))
        scale = np.random.uniform(*self.scale, 2)
        scale[np.random.rand(2) < self.flip_prob] *= -1
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        linear = turn @ [[1, np.tan(shear)], [0, 1]] @ np.diag(scale)
        center = np.array([width - 1, height - 1]) / 2
        return np.column_stack([linear, center - linear @ center])

    def transform(self, results: dict) -> dict:
        """Transform both maps alike."""
        height, width = results['alpha'].shape
        matrix = self.draw(height, width)
        for key in ('fg', 'alpha'):
            results[key] = cv2.warpAffine(
                results[key],
                matrix,
                (width, height),
                flags=cv2.INTER_NEAREST,
            )
        return results

    def __repr__(self):
        return (
            f'RandomMattingAffine(degrees={self.degrees}, scale={self.scale}, '
            f'shear={self.shear}, flip_prob={self.flip_prob}, '
            f'turn_from={self.turn_from})'
        )


@TRANSFORMS.register_module()
class RandomForegroundFlip(_Sometimes):
    """Mirror a foreground, left to right.

    Required keys: ``fg``, ``alpha``.

    Args:
        prob (float): How often. Default: 0.5.

    Raises:
        ValueError: If ``prob`` is no probability.
    """

    def __init__(self, prob: float = 0.5):
        super().__init__(prob)

    def transform(self, results: dict) -> dict:
        """Mirror."""
        if self.happens():
            for key in ('fg', 'alpha'):
                results[key] = cv2.flip(results[key], 1)
        return results


@TRANSFORMS.register_module()
class JitterForeground(BaseTransform):
    """Change hue, saturation and value of a foreground.

    Hue turns by a whole number of degrees from -hue to hue - 1. Saturation
    grows by U(-a, a) with a = (1.1 - its mean) / 10, the mean over the pixels
    with alpha above 0; what leaves [0, 1] is folded back at the border. Value
    likewise. Where alpha is 0 everywhere, nothing is changed.

    Required keys: ``fg``, ``alpha``.

    Args:
        hue (int): Degrees. Default: 40.
    """

    def __init__(self, hue: int = 40):
        self.hue = hue

    @cache_randomness
    def draw(self) -> tuple[int, np.ndarray]:
        """Draw the turn, and shares from -1 to 1 of the two changes."""
        return np.random.randint(-self.hue, self.hue), np.random.uniform(
            -1, 1, 2
        )

    def transform(self, results: dict) -> dict:
        """Change the colors, and make ``fg`` float32."""
        visible = results['alpha'] > 0
        if not visible.any():
            return results
        hsv = cv2.cvtColor(
            results['fg'].astype(np.float32) / 255, cv2.COLOR_BGR2HSV
        )
        turn, shares = self.draw()
        hsv[..., 0] = (hsv[..., 0] + turn) % 360
        for channel, share in enumerate(shares, 1):
            values = hsv[..., channel]
            values = values + share * (1.1 - values[visible].mean()) / 10
            hsv[..., channel] = 1 - abs(1 - abs(values))
        results['fg'] = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        return results

    def __repr__(self):
        return f'JitterForeground(hue={self.hue})'
