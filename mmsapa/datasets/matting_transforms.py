"""A2U matting's augmentation: from foreground and background to an image.

In order::

    train_pipeline = [
        dict(type='mmsapa.LoadForeground'),
        dict(type='mmsapa.LoadAlpha'),
        dict(type='mmsapa.LoadBackground'),
        dict(type='mmsapa.CompositeForeground', prob=0.5),
        dict(type='mmsapa.RandomSquareResize', size=640, prob=0.25),
        dict(type='mmsapa.RandomMattingAffine'),
        dict(type='mmsapa.RandomForegroundFlip', prob=0.5),
        dict(type='mmsapa.GenerateTrimap', kernel_size=(1, 29)),
        dict(type='mmsapa.CropAroundUnknown', crop_size=512),
        dict(type='mmsapa.JitterForeground'),
        dict(type='mmsapa.CompositeImage'),
        dict(type='mmsapa.PackMattingInputs'),
    ]

A test image is not changed::

    test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmsapa.LoadTrimap'),
        dict(type='mmsapa.LoadAlpha'),
        dict(type='mmsapa.PackMattingInputs'),
    ]

Keys between the steps are ``fg``, BGR from 0 to 255, uint8 or float32,
[H, W, 3]; ``alpha``, float32 from 0 to 1, [H, W]; ``trimap``, uint8, [H, W];
and ``bg``, as ``fg`` but of its own size until it is cropped. All randomness
is NumPy's global generator, which
:class:`~mmsapa.datasets.composition1k.Composition1kDataset` seeds.
"""

import math

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmsapa.matting.data_sample import is_unknown
from mmsapa.registry import TRANSFORMS

from .foreground_transforms import resize_nearest

# Alpha this close to 0 or 1 is known.
_CLOSE = 1e-5
_MAPS = ('fg', 'alpha', 'trimap')


def make_trimap(
    alpha: np.ndarray, foreground_size: int, background_size: int
) -> np.ndarray:
    """Make a trimap from alpha.

    Args:
        alpha (ndarray): From 0 to 1, [H, W].
        foreground_size (int): Diameter in pixels of the ellipse by which
            what is foreground (alpha 1) is eroded.
        background_size (int): The same of the background (alpha 0).

    Returns:
        ndarray: uint8, [H, W]: 0, 255, and 128 between them.
    """
    trimap = np.full(alpha.shape, 128, np.uint8)
    for known, size, value in (
        (alpha >= 1 - _CLOSE, foreground_size, 255),
        (alpha <= _CLOSE, background_size, 0),
    ):
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        trimap[cv2.erode(known.view(np.uint8), ellipse) > 0] = value
    return trimap


def enlarge_to_cover(image: np.ndarray, height: int, width: int):
    """Enlarge an image, bicubically, until it covers a size.

    Args:
        image (ndarray): [h, w, 3].
        height (int): Of what it must cover.
        width (int): The same.

    Returns:
        ndarray: The image itself if it is large enough; else its sides are
        rounded up.
    """
    h, w = image.shape[:2]
    ratio = max(height / h, width / w)
    if ratio <= 1:
        return image
    size = math.ceil(w * ratio), math.ceil(h * ratio)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


@TRANSFORMS.register_module()
class GenerateTrimap(BaseTransform):
    """Make a trimap by erosions of a random size.

    Required keys: ``alpha``. Added: ``trimap``, as of :func:`make_trimap`.

    Args:
        kernel_size (tuple[int, int]): Least and largest diameter of the
            ellipses in pixels. Foreground and background each get one of
            their own. Default: (1, 29).

    Raises:
        ValueError: If it is no range of positive numbers.
    """

    def __init__(self, kernel_size: tuple[int, int] = (1, 29)):
        low, high = kernel_size
        if not 1 <= low <= high:
            raise ValueError(
                'GenerateTrimap: expected kernel_size to be a range of '
                f'positive numbers, such as (1, 29), got {kernel_size}.'
            )
        self.kernel_size = low, high

    @cache_randomness
    def draw(self) -> tuple[int, int]:
        """Draw the sizes for foreground and background."""
        low, high = self.kernel_size
        return tuple(np.random.randint(low, high + 1, 2).tolist())

    def transform(self, results: dict) -> dict:
        """Erode."""
        results['trimap'] = make_trimap(results['alpha'], *self.draw())
        return results

    def __repr__(self):
        return f'GenerateTrimap(kernel_size={self.kernel_size})'


@TRANSFORMS.register_module()
class CropAroundUnknown(BaseTransform):
    """Cut a square around a random pixel of the unknown region.

    The pixel is at least half a square from every border. With fewer than
    ten of these the square lies anywhere, and without any unknown pixel the
    whole is resized to the square. Before, what is not larger than the square
    is enlarged, nearest, until its shorter side is 1.1 times the square's.
    The background, enlarged if it is smaller, is cut at the same place.

    Required keys: ``fg``, ``alpha``, ``trimap``, ``bg``.

    Args:
        crop_size (int): Side of the square in pixels. Default: 512.
    """

    def __init__(self, crop_size: int = 512):
        self.crop_size = crop_size

    @cache_randomness
    def draw(self, trimap: np.ndarray) -> tuple[int, int]:
        """Draw the first row and column of the square."""
        size, half = self.crop_size, self.crop_size // 2
        height, width = (side - size + 1 for side in trimap.shape)
        centers = trimap[half : half + height, half : half + width]
        centers = np.flatnonzero(is_unknown(centers))
        if len(centers) < 10:
            return np.random.randint(height), np.random.randint(width)
        return divmod(int(np.random.choice(centers)), width)

    def transform(self, results: dict) -> dict:
        """Cut all maps and the background."""
        size = self.crop_size
        height, width = results['trimap'].shape
        if not is_unknown(results['trimap']).any():
            height = width = size
        elif min(height, width) <= size:
            factor = 1.1 * size / min(height, width)
            height, width = (round(x * factor) for x in (height, width))
        for key in _MAPS:
            results[key] = resize_nearest(results[key], height, width)
        results['bg'] = enlarge_to_cover(results['bg'], height, width)
        top, left = self.draw(results['trimap'])
        for key in (*_MAPS, 'bg'):
            results[key] = results[key][
                top : top + size, left : left + size
            ].copy()
        return results

    def __repr__(self):
        return f'CropAroundUnknown(crop_size={self.crop_size})'


@TRANSFORMS.register_module()
class CompositeImage(BaseTransform):
    """Put the foreground before the background, without rounding.

    Required keys: ``fg``, ``alpha``, ``bg``, of one size. Added: ``img``,
    αF + (1 - α)B, float32 from 0 to 255, [H, W, 3], and ``img_shape``.
    """

    def transform(self, results: dict) -> dict:
        """Composite."""
        alpha = results['alpha'][..., None]
        fg, bg = (results[k].astype(np.float32) for k in ('fg', 'bg'))
        results['img'] = alpha * fg + (1 - alpha) * bg
        results['img_shape'] = alpha.shape[:2]
        return results
