"""Test-time augmentation for depth."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from ..registry import MODELS


@MODELS.register_module()
class DepthTTAModel(BaseTTAModel):
    """Averages the depths that are predicted for several views of an image.

    ``tools/test.py --tta`` puts it around the model, with the config's
    ``tta_pipeline``. MMSegmentation's DepthEstimator has turned back what it
    predicts for a flipped view, by ``flip`` and ``flip_direction`` of the
    metainfo.
    """

    def merge_preds(
        self, data_samples_list: list[Sequence[SegDataSample]]
    ) -> list[SegDataSample]:
        """Average over the views.

        Args:
            data_samples_list (list[Sequence[SegDataSample]]): Of each image
                its views, with ``pred_depth_map``, [1, H, W], in meters.

        Returns:
            list[SegDataSample]: The first view of each image, with the mean.
        """
        merged = []
        for views in data_samples_list:
            depths = torch.stack([view.pred_depth_map.data for view in views])
            views[0].pred_depth_map = PixelData(data=depths.mean(0))
            merged.append(views[0])
        return merged
