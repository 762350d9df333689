"""What goes through a mattor beside the image."""

import numpy as np
from mmengine.structures import BaseDataElement
from torch import Tensor


class MattingDataSample(BaseDataElement):
    """Trimap, mattes and what they were composed of.

    Each is a :class:`mmengine.structures.PixelData` of one size, H, W:

    - ``trimap`` [1, H, W], uint8: 0 is background, 255 is foreground, all
      between is unknown.
    - ``gt_alpha`` [1, H, W], float32 from 0 to 1: the ground truth.
    - ``gt_fg``, ``gt_bg`` [3, H, W], float32 from 0 to 255: what the image
      was composed of, in its order of colors; in training alone.
    - ``pred_alpha`` [1, H, W], float32 from 0 to 1: a mattor's prediction.
    """


def is_unknown(trimap: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """The unknown region of a trimap: all that is neither 0 nor 255.

    Args:
        trimap (Tensor | ndarray): uint8, of any shape; files have 127, 128
            or others there.

    Returns:
        Tensor | ndarray: Bool, of the same shape.
    """
    return (trimap != 0) & (trimap != 255)


def to_bytes(alpha: np.ndarray) -> np.ndarray:
    """Cut alpha off to steps of 1 / 255, as files of mattes have it.

    Args:
        alpha (ndarray): From 0 to 1; uint8 stays as it is.

    Returns:
        ndarray: uint8, of the same shape.
    """
    return alpha if alpha.dtype == np.uint8 else np.uint8(255 * alpha)
