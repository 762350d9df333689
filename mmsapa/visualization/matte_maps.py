"""Mattes in gray, their errors, and composites over a new background."""

import cv2
import numpy as np

from mmsapa.matting.data_sample import is_unknown, to_bytes

from .depth_maps import MOST_ERROR

# Of the windows that foreground colors are averaged in, in pixels: a wide one
# first, for what is far from all that is opaque.
_WINDOWS = 181, 13


def gray(values: np.ndarray) -> np.ndarray:
    """Paint a matte or a trimap, white where the foreground covers all.

    Args:
        values (np.ndarray): Alpha from 0 to 1, or a trimap, uint8; [H, W].

    Returns:
        np.ndarray: RGB, uint8, [H, W, 3].
    """
    return to_bytes(values)[..., None].repeat(3, 2)


def alpha_error(
    alpha: np.ndarray, true: np.ndarray, trimap: np.ndarray
) -> np.ndarray:
    """Error of each pixel, |p - g|, where the trimap does not know it.

    Args:
        alpha (np.ndarray): From 0 to 1, [H, W].
        true (np.ndarray): From 0 to 1, [H, W].
        trimap (np.ndarray): uint8, [H, W].

    Returns:
        np.ndarray: float64, [H, W]; 0 where it does.
    """
    return abs(alpha.astype(float) - true) * is_unknown(trimap)


def sad(alpha: np.ndarray, true: np.ndarray, trimap: np.ndarray) -> float:
    """Sum of absolute differences, as MattingMetric has it.

    Args:
        alpha (np.ndarray): From 0 to 1, [H, W].
        true (np.ndarray): From 0 to 1, [H, W].
        trimap (np.ndarray): uint8, [H, W].

    Returns:
        float: In thousands of pixels.
    """
    return alpha_error(to_bytes(alpha) / 255, true, trimap).sum() / 1000


def error_ticks() -> dict[float, str]:
    """Labels of a bar of :func:`depth_maps.error_colors`, by their place."""
    half, most = MOST_ERROR / 2, MOST_ERROR
    return {0: '0', half: f'{half}', most: f'{most} and more'}


def cover(background: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Make a background of an image's size.

    Args:
        background (np.ndarray): RGB, uint8: a color [3], or an image
            [h, w, 3], whose middle is taken, scaled to cover the whole.
        image (np.ndarray): [H, W, 3].

    Returns:
        np.ndarray: RGB, uint8, [H, W, 3].
    """
    if background.ndim == 1:
        return np.broadcast_to(background, image.shape)
    size, (high, wide) = background.shape[:2], image.shape[:2]
    scale = max(high / size[0], wide / size[1])
    size = max(high, round(size[0] * scale)), max(wide, round(size[1] * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(background, size[::-1], interpolation=way)
    top, left = (size[0] - high) // 2, (size[1] - wide) // 2
    return scaled[top : top + high, left : left + wide]


def composite(
    image: np.ndarray, alpha: np.ndarray, background: np.ndarray
) -> np.ndarray:
    """Put the foreground of an image before another background.

    Args:
        image (np.ndarray): RGB, uint8, [H, W, 3].
        alpha (np.ndarray): From 0 to 1, [H, W].
        background (np.ndarray): RGB, uint8, [H, W, 3].

    Returns:
        np.ndarray: RGB, uint8, [H, W, 3]: alpha * F + (1 - alpha) * B, F of
        :func:`estimate_foreground`.
    """
    share = alpha.astype(np.float32)[..., None]
    colors = estimate_foreground(image, alpha)
    return np.uint8(share * colors + (1 - share) * background + 0.5)


def estimate_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the colors of a foreground, without those behind it.

    The mean colors of foreground and background around a pixel, weighted by
    alpha, are corrected by what their composite lacks of the image, as in
    `Approximate Fast Foreground Colour Estimation
    <https://doi.org/10.1109/ICIP42928.2021.9506164>`_: in a wide window,
    then in a narrow one.

    Args:
        image (np.ndarray): RGB, uint8, [H, W, 3].
        alpha (np.ndarray): From 0 to 1, [H, W].

    Returns:
        np.ndarray: RGB, float32 from 0 to 255, [H, W, 3].
    """
    image = image.astype(np.float32)
    share = alpha.astype(np.float32)[..., None]
    front = behind = image
    for window in _WINDOWS:
        front = _mean(front, share, window)
        behind = _mean(behind, 1 - share, window)
        lacking = image - share * front - (1 - share) * behind
        front = (front + share * lacking).clip(0, 255)
    return front


def _mean(colors, weights, window):
    """Mean color in a window around each pixel."""
    sums = cv2.blur(colors * weights, (window, window))
    total = cv2.blur(weights, (window, window))[..., None]
    return sums / (total + 1e-5)
