"""The figure of SAPA layers during training and testing."""

from collections.abc import Sequence
from contextlib import ExitStack

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..registry import HOOKS
from .recorder import find_stages, record
from .sapa_figure import (
    check_channel,
    check_points,
    draw_sapa_figure,
    to_array,
)


@HOOKS.register_module()
class SAPAVisualizationHook(Hook):
    """Writes the figure of :func:`draw_sapa_figure` at an interval.

    It observes the iterations of the loop and changes nothing in model, data
    or random numbers; an error in a figure is logged, and training goes on.
    The figure shows the first image of the batch. It goes to the runner's
    visualizer and so to all of its backends: image files in the work dir,
    TensorBoard, and whatever else the config names.

        custom_hooks = [
            dict(type='mmsapa.SAPAVisualizationHook', interval=1000)]

    Args:
        interval (int): Iterations from one figure to the next in training;
            in validation and testing, batches, from the first one on.
            Default: 500.
        stages (Sequence[str] | str, optional): Names of SAPA layers, or parts
            of them. Default: all.
        points (Sequence[tuple[int, int]]): As in :func:`draw_sapa_figure`.
        channel (int, optional): As in :func:`draw_sapa_figure`.
        modes (Sequence[str]): Where figures are drawn, of ``'train'``,
            ``'val'`` and ``'test'``. Default: all three.

    Raises:
        ValueError: If the interval is not positive, a mode unknown, or there
            are too many points; when running starts, if the model has no such
            stages or channel, or is compiled.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 500,
        stages: Sequence[str] | str | None = None,
        points: Sequence[tuple[int, int]] = (),
        channel: int | None = None,
        modes: Sequence[str] = ('train', 'val', 'test'),
    ):
        if interval < 1 or not set(modes) <= {'train', 'val', 'test'}:
            raise ValueError(
                'SAPAVisualizationHook: expected interval >= 1 and modes of '
                f'train, val and test, got {interval} and {list(modes)}.'
            )
        check_points(points)
        self.interval = interval
        self.stages = stages
        self.points = points
        self.channel = channel
        self.modes = modes
        self._watch = self._recording = None

    def before_run(self, runner):
        """Find the stages, so that a mistake is raised before training."""
        layers = find_stages(_unwrapped(runner.model), self.stages).values()
        check_channel(
            self.channel,
            min(min(x.in_channels, x.guide_channels) for x in layers),
        )
        if runner.cfg.get('compile'):
            raise ValueError(
                'SAPAVisualizationHook: expected a model that is run as it '
                'is, got compile=True in the config, which lets nobody watch; '
                'remove one of them.'
            )

    @master_only
    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
        due = runner.iter + 1 if mode == 'train' else batch_idx
        if mode in self.modes and due % self.interval == 0:
            self._watch = ExitStack()
            self._recording = self._watch.enter_context(
                record(_unwrapped(runner.model), self.stages)
            )

    @master_only
    def _after_iter(
        self, runner, batch_idx, data_batch=None, outputs=None, mode='train'
    ):
        if self._watch is None:
            return
        name, step = f'sapa_{mode}', runner.iter
        if mode == 'train':
            step += 1  # the iteration is not counted yet
        else:
            name += f'_{batch_idx}'
        watch, self._watch = self._watch, None
        try:
            watch.close()
            figure = draw_sapa_figure(
                self._recording, self.points, self.channel
            )
            runner.visualizer.add_image(name, to_array(figure), step)
        except Exception as error:
            # A picture is not worth a training of days.
            runner.logger.warning(
                f'{name}, {step}: skipped the figure: {error}'
            )
        finally:
            self._recording = None


def _unwrapped(model):
    return model.module if is_model_wrapper(model) else model
