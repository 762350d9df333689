"""Pictures of depth in training and testing, all in the same colors."""

from ..registry import VISUALIZERS
from .comparison import Comparison
from .comparison_figure import DPI, WIDTH, draw_comparison
from .sample_visualizer import SampleVisualizer
from .sapa_figure import to_array


@VISUALIZERS.register_module()
class DepthVisualizer(SampleVisualizer):
    """Draws image, true and predicted depth side by side.

    In place of MMSegmentation's, which scales every depth map by itself: here
    a color means the same depth in every picture, so that they can be
    compared. What has no depth is striped.

        visualizer = dict(type='mmsapa.DepthVisualizer', max_depth=10)

    Args:
        name (str): Of this instance, as in mmengine's Visualizer.
        *args: As there.
        min_depth (float): In meters; what is nearer looks the same. Default:
            0.5.
        max_depth (float): In meters; what is farther looks the same. Default:
            10, for NYU Depth v2.
        **kwargs: As in mmengine's Visualizer.

    Raises:
        ValueError: If ``min_depth`` is not above 0 and below ``max_depth``.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        *args,
        min_depth: float = 0.5,
        max_depth: float = 10.0,
        **kwargs,
    ):
        if not 0 < min_depth < max_depth:
            raise ValueError(
                'DepthVisualizer: expected 0 < min_depth < max_depth, got '
                f'{min_depth} and {max_depth}.'
            )
        super().__init__(name, *args, **kwargs)
        self.depth_range = min_depth, max_depth

    def draw_sample(self, name, image, data_sample, draw_gt):
        """Draw depth: ``pred_depth_map``, and perhaps ``gt_depth_map``."""
        prediction = _depth_map(data_sample, 'pred_depth_map')
        if prediction is None:
            raise ValueError(
                'DepthVisualizer: expected a sample with pred_depth_map, got '
                f'{data_sample and ", ".join(data_sample.keys())}; other '
                'models have visualizers in their libraries.'
            )
        truth = _depth_map(data_sample, 'gt_depth_map') if draw_gt else None
        row = Comparison(image, dict(prediction=prediction), truth, boxes=())
        # No column has fewer pixels than the image.
        columns = 2 + (truth is not None)
        width = max(WIDTH, 1.05 * columns * image.shape[1] / DPI)
        figure = draw_comparison(
            [row], width=width, depth_range=self.depth_range
        )
        return to_array(figure)


def _depth_map(data_sample, key):
    found = None if data_sample is None else data_sample.get(key)
    return None if found is None else found.data[0].float().cpu().numpy()
