"""Depth boundary errors, after Koch et al. 2018."""

import math

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

# Pixels: standard deviation of the smoothing, and how far an edge may be.
SIGMA, REACH = math.sqrt(2), 10.0
# Heights of the steps that make edges, as shares of the range of depth: one
# starts at HIGH, and goes on down to LOW.
LOW, HIGH = 0.05, 0.1
# Canny's gradients are integers.
_UNITS = 1 << 14


def boundary_errors(
    pred: np.ndarray, true: np.ndarray, valid: np.ndarray
) -> tuple[float, float]:
    """Measure how far the edges of two depth maps are from each other.

    The depth boundary errors of `Evaluation of CNN-Based Single-Image Depth
    Estimation Methods <https://arxiv.org/abs/1805.01328>`_. Of both maps the
    edges are those of :func:`depth_edges`; the paper's true edges are
    annotated. Edges at pixels that are not valid do not count.

    - Accuracy is the mean distance from a predicted edge pixel to the
      closest true one, over the predicted edge pixels that have one within
      10 pixels. It is 10 if none has.
    - Completeness is the mean distance from a true edge pixel to the closest
      predicted one, where a distance above 10 pixels counts as 10.

    A map with few, sure edges has a good accuracy and a poor completeness, so
    both are needed.

    Args:
        pred (ndarray[H, W]): Predicted depth, finite.
        true (ndarray[H, W]): True depth.
        valid (ndarray[H, W]): Bool, where the true depth is known.

    Returns:
        tuple[float, float]: Accuracy and completeness in pixels, from 0 to
        10, lower is better; NaN if the true map has no edge.
    """
    pred_edges, true_edges = (
        depth_edges(depth, valid) & valid for depth in (pred, true)
    )
    if not true_edges.any():
        return math.nan, math.nan
    off = _distance_to(true_edges)[pred_edges]
    off = off[off <= REACH]
    missed = _distance_to(pred_edges)[true_edges]
    return (
        float(off.mean()) if off.size else REACH,
        float(np.minimum(missed, REACH).mean()),
    )


def depth_edges(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Find the edges of a depth map by Canny's method.

    Depth is normalized to [0, 1] by its least and largest valid value, and
    smoothed by a Gaussian of √2 pixels. Pixels that are not valid get the
    value of the closest one that is before. With s the slope, by Sobel's
    filter, in units of the range a pixel, an edge goes along the maxima of s
    where it exceeds 0.05 / (√2 √(2π)) and, somewhere on the edge, 0.1 / (√2
    √(2π)): a step of a tenth of the range has about that slope.

    Args:
        depth (ndarray[H, W]): Depth.
        valid (ndarray[H, W]): Bool, where it is known.

    Returns:
        ndarray[H, W]: Bool, lines of one pixel.
    """
    if not valid.any() or np.ptp(depth[valid]) == 0:
        return np.zeros(depth.shape, bool)
    low, high = depth[valid].min(), depth[valid].max()
    closest = distance_transform_edt(
        ~valid, return_distances=False, return_indices=True
    )
    filled = ((depth[tuple(closest)] - low) / (high - low)).astype(np.float32)
    smooth = cv2.GaussianBlur(filled, (0, 0), SIGMA)
    slopes = [
        # Sobel's filter sums up eight times the slope.
        cv2.Sobel(smooth, cv2.CV_32F, *order, scale=_UNITS / 8)
        .round()
        .astype(np.int16)
        for order in ((1, 0), (0, 1))
    ]
    slope = _UNITS / (SIGMA * math.sqrt(2 * math.pi))
    return cv2.Canny(*slopes, LOW * slope, HIGH * slope, L2gradient=True) > 0


def _distance_to(edges):
    """Distance of each pixel to the closest edge; infinite without one."""
    if not edges.any():
        return np.full(edges.shape, math.inf)
    return distance_transform_edt(~edges)
