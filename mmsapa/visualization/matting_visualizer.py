"""Pictures of mattes in validation and testing."""

import os.path as osp
from collections.abc import Sequence

import mmcv
import numpy as np
from mmengine.hooks import Hook

from ..registry import HOOKS, VISUALIZERS
from .matte_maps import gray
from .sample_visualizer import SampleVisualizer


@VISUALIZERS.register_module()
class MattingVisualizer(SampleVisualizer):
    """Draws image, trimap, true and predicted matte side by side.

    Mattes and trimaps are gray, white where the foreground covers all.
    Arguments are those of mmengine's Visualizer.
    """

    def draw_sample(self, name, image, data_sample, draw_gt):
        """Draw ``pred_alpha``, and perhaps ``trimap`` and ``gt_alpha``."""
        if data_sample is None or 'pred_alpha' not in data_sample:
            found = sorted(data_sample.keys()) if data_sample else None
            raise ValueError(
                'MattingVisualizer: expected a sample with pred_alpha, got '
                f'{found}; other models have visualizers in their libraries.'
            )
        keys = 'trimap', *(['gt_alpha'] if draw_gt else []), 'pred_alpha'
        maps = [
            gray(data_sample.get(key).data[0].cpu().numpy())
            for key in keys
            if key in data_sample
        ]
        if any(x.shape != image.shape for x in maps):
            raise ValueError(
                f'MattingVisualizer: expected maps of {name} at the size of '
                f'its image {list(image.shape[:2])}, got '
                f'{[list(x.shape[:2]) for x in maps]}.'
            )
        return np.concatenate([image, *maps], 1)


@HOOKS.register_module()
class MattingVisualizationHook(Hook):
    """Hands predictions of validation and test to the visualizer.

    ``tools/test.py`` sets the arguments by ``--show`` and ``--show-dir``.

    Args:
        draw (bool): Whether anything is drawn. Default: False.
        interval (int): Batches from one that is drawn to the next.
            Default: 50.
        show (bool): Show windows. Default: False.
        wait_time (float): Seconds that a window stays open. Default: 0.
    """

    def __init__(
        self,
        draw: bool = False,
        interval: int = 50,
        show: bool = False,
        wait_time: float = 0,
    ):
        self.draw = draw
        self.interval = interval
        self.show = show
        self.wait_time = wait_time

    def after_val_iter(
        self,
        runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Draw the batch, if its turn has come."""
        self._draw(runner, batch_idx, outputs, 'val')

    def after_test_iter(
        self,
        runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Draw the batch, if its turn has come."""
        self._draw(runner, batch_idx, outputs, 'test')

    def _draw(self, runner, batch_idx, outputs, mode):
        if not (
            self.draw and self.every_n_inner_iters(batch_idx, self.interval)
        ):
            return
        for sample in outputs:
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            runner.visualizer.add_datasample(
                f'{mode}_{osp.basename(sample.img_path)}',
                image,
                sample,
                show=self.show,
                wait_time=self.wait_time,
                step=runner.iter,
            )
