"""What goes through a mattor beside the image."""

from mmengine.structures import BaseDataElement


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
