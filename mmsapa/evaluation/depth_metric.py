"""Errors of monocular depth estimation, as BTS measures them."""

import logging
from collections import OrderedDict
from collections.abc import Sequence

import mmseg.evaluation
import numpy as np
from mmengine.logging import print_log
from prettytable import PrettyTable

from ..registry import METRICS
from .depth_boundaries import boundary_errors
from .prediction_files import PredictionFiles

CROPS = (None, 'eigen', 'garg')


@METRICS.register_module()
class DepthMetric(mmseg.evaluation.DepthMetric):
    """Depth errors of each image, then their mean over images.

    In place of MMSegmentation's, it clips what is predicted, so that one 0
    does not make all figures infinite; crops images of any size; leaves out
    images without a valid pixel; and keeps a few numbers of each image, not
    its pixels.

    With y the true and p the predicted depth in meters, over the valid
    pixels of an image:

    - ``d1``, ``d2``, ``d3``: share with max(y / p, p / y) < 1.25ⁿ
    - ``abs_rel``: mean |y - p| / y; ``sq_rel``: mean (y - p)² / y
    - ``rmse``: √ mean (y - p)²; ``rmse_log``: √ mean (ln y - ln p)²
    - ``log10``: mean |log₁₀ y - log₁₀ p|
    - ``silog``: 100 √(mean e² - (mean e)²) with e = ln p - ln y

    A pixel is valid if its true depth is above ``min_depth_eval``, below
    ``max_depth_eval`` and in the crop. What is predicted is clipped to these
    limits; NaN counts as the lower one.

    In a config::

        val_evaluator = dict(type='mmsapa.DepthMetric', crop_type='eigen')

    Args:
        depth_metrics (list[str], optional): Which to report. Default: all of
            the above.
        min_depth_eval (float): Meters. Default: 1e-3.
        max_depth_eval (float): Meters. Default: 10, that of NYU Depth v2;
            KITTI's is 80.
        crop_type (str, optional): As for :func:`crop_region`. Default: None,
            the whole image.
        depth_scale_factor (float): Steps a meter of PNG files. Default: 1000,
            for millimeters.
        collect_device (str): As in MMSegmentation's. Default: ``'cpu'``.
        output_dir (str, optional): Folder that gets what is predicted, not
            clipped, as PNG files of 16 bits with the names of the images; 0
            where that is NaN. Default: None.
        format_only (bool): Write predictions and measure nothing. Default:
            False.
        prefix (str, optional): As in MMSegmentation's. Default: None.
        img_root (str, optional): Folder of the images, if they have the same
            names in several folders of it: predictions lie in ``output_dir``
            as they do in it. Default: None, all in one folder.
        boundaries (bool): Whether to report ``dbe_acc`` and ``dbe_comp``, the
            depth boundary errors of
            :func:`~mmsapa.evaluation.depth_boundaries.boundary_errors`, over
            the images that have a true edge. Default: False.

    Raises:
        ValueError: If an argument is none of these; or later if a prediction
            does not have the size of the ground truth, there is none, or two
            would be written to the same file.
    """

    def __init__(
        self,
        depth_metrics: Sequence[str] | None = None,
        min_depth_eval: float = 1e-3,
        max_depth_eval: float = 10.0,
        crop_type: str | None = None,
        depth_scale_factor: float = 1000.0,
        collect_device: str = 'cpu',
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        img_root: str | None = None,
        boundaries: bool = False,
    ):
        super().__init__(
            min_depth_eval=min_depth_eval,
            max_depth_eval=max_depth_eval,
            depth_scale_factor=depth_scale_factor,
            collect_device=collect_device,
            output_dir=output_dir,
            format_only=format_only,
            prefix=prefix,
        )
        names = tuple(depth_metrics or self.METRICS)
        if unknown := [name for name in names if name not in self.METRICS]:
            raise ValueError(
                'DepthMetric: expected depth_metrics to be of '
                f'{", ".join(self.METRICS)}, got {", ".join(unknown)}.'
            )
        if not 0 < min_depth_eval < max_depth_eval:
            raise ValueError(
                'DepthMetric: expected 0 < min_depth_eval < max_depth_eval, '
                f'got {min_depth_eval} and {max_depth_eval}.'
            )
        if crop_type not in CROPS:
            raise ValueError(
                f'DepthMetric: expected crop_type to be one of {CROPS}, got '
                f'{crop_type!r}.'
            )
        if format_only and output_dir is None:
            raise ValueError(
                'DepthMetric: format_only writes predictions alone; name a '
                'folder for them in output_dir.'
            )
        self.metrics, self.crop_type = names, crop_type
        self.boundaries = boundaries
        self._files = PredictionFiles(output_dir, img_root)

    def process(self, data_batch: dict, data_samples: Sequence[dict]):
        """Measure the images of a batch, and write what is predicted.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): ``pred_depth_map`` and
                ``gt_depth_map``, of which ``data`` is a Tensor[1, H, W] in
                meters; ``img_path``.
        """
        for sample in data_samples:
            pred = _depth_of(sample, 'pred_depth_map')
            if not self.format_only:
                self.results.append(self._measure(sample, pred))
            if self.output_dir is not None:
                self._files.write(sample['img_path'], self._steps(pred))

    def _measure(self, sample, pred):
        """All figures of one image, NaN if it has no valid pixel."""
        path = sample.get('img_path')
        if 'gt_depth_map' not in sample:
            raise ValueError(
                f'{path}: expected a gt_depth_map to measure predictions by, '
                'got none; load it in the test pipeline, or set format_only.'
            )
        true = _depth_of(sample, 'gt_depth_map')
        if pred.shape != true.shape:
            raise ValueError(
                f'{path}: expected a prediction of the size of the ground '
                f'truth, {true.shape[1]} x {true.shape[0]}, got '
                f'{pred.shape[1]} x {pred.shape[0]}; load depth maps after '
                'the transforms that resize images.'
            )
        lowest, highest = self.min_depth_eval, self.max_depth_eval
        region = crop_region(true.shape, self.crop_type)
        valid = np.zeros(true.shape, bool)
        valid[region] = (true[region] > lowest) & (true[region] < highest)
        pred = np.nan_to_num(pred, nan=lowest, posinf=highest, neginf=lowest)
        pred = pred.clip(lowest, highest)
        if not valid.any():
            return [np.nan] * (len(self.METRICS) + 2 * self.boundaries)
        figures = depth_errors(pred[valid], true[valid])
        row = [figures[name] for name in self.METRICS]
        if self.boundaries:
            row += boundary_errors(pred, true, valid)
        return row

    def _steps(self, pred):
        """Steps of ``depth_scale_factor`` that 16 bits have room for."""
        steps = np.nan_to_num(pred * self.depth_scale_factor, nan=0)
        steps = steps.clip(0, np.iinfo(np.uint16).max)
        return steps.round().astype(np.uint16)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average the figures of all images.

        Args:
            results (list[list[float]]): Of each image.

        Returns:
            dict[str, float]: Means over the images that have the figure; NaN
            if none has.
        """
        if self.format_only:
            print_log(f'predictions are in {self.output_dir}', 'current')
            return OrderedDict()
        names = [*self.METRICS, *['dbe_acc', 'dbe_comp'] * self.boundaries]
        columns = np.array(results, float).reshape(-1, len(names)).T
        self._report_left_out(np.isnan(columns[0]))
        means = {}
        for name, column in zip(names, columns):
            known = column[~np.isnan(column)]
            means[name] = float(known.mean()) if known.size else np.nan
        chosen = [*self.metrics, *names[len(self.METRICS) :]]
        metrics = OrderedDict((name, means[name]) for name in chosen)
        table = PrettyTable()
        for name, value in metrics.items():
            table.add_column(name, [f'{value:.4f}'])
        print_log(f'results:\n{table}', 'current')
        return metrics

    def _report_left_out(self, left_out):
        if not left_out.any():
            return
        where = f' in the {self.crop_type} crop' if self.crop_type else ''
        reason = (
            f'true depth between {self.min_depth_eval:g} and '
            f'{self.max_depth_eval:g} m{where}'
        )
        count = left_out.sum()
        if not left_out.all():
            print_log(
                f'{count} of {left_out.size} images have no {reason}, and '
                'are left out.',
                'current',
            )
            return
        print_log(
            f'DepthMetric: expected {reason}, got none in any of {count} '
            'images, so that all figures are NaN; check '
            'depth_rescale_factor of the transform that loads depth maps.',
            'current',
            logging.WARNING,
        )


def crop_region(
    size: tuple[int, int], crop_type: str | None
) -> tuple[slice, slice]:
    """Return the rows and columns in which depth is measured.

    Args:
        size (tuple[int, int]): H and W of the image.
        crop_type (str, optional): ``'eigen'``, rows 45 to 470 and columns 41
            to 600 of 480x640, and of another size the same shares of it,
            rounded; ``'garg'``, KITTI's, rows from 0.40810811 to 0.99189189
            and columns from 0.03594771 to 0.96405229 of the size, rounded
            down; None, all.

    Returns:
        tuple[slice, slice]: Rows and columns.
    """
    height, width = size
    if crop_type == 'eigen':
        rows = (round(height * row / 480) for row in (45, 471))
        columns = (round(width * column / 640) for column in (41, 601))
    elif crop_type == 'garg':
        rows = (int(height * x) for x in (0.40810811, 0.99189189))
        columns = (int(width * x) for x in (0.03594771, 0.96405229))
    else:
        rows, columns = (0, height), (0, width)
    return slice(*rows), slice(*columns)


def depth_errors(pred: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Compare depths pixel by pixel.

    Args:
        pred (ndarray): Predicted depth in meters, above 0 and finite.
        true (ndarray): True depth of the same pixels.

    Returns:
        dict[str, float]: The figures that :class:`DepthMetric` explains.
    """
    ratio = np.maximum(true / pred, pred / true)
    off, logs = pred - true, np.log(pred) - np.log(true)
    return dict(
        d1=np.mean(ratio < 1.25),
        d2=np.mean(ratio < 1.25**2),
        d3=np.mean(ratio < 1.25**3),
        abs_rel=np.mean(abs(off) / true),
        sq_rel=np.mean(off**2 / true),
        rmse=np.mean(off**2) ** 0.5,
        rmse_log=np.mean(logs**2) ** 0.5,
        log10=np.mean(abs(logs)) / np.log(10),
        # The square root of their variance.
        silog=100 * np.std(logs),
    )


def _depth_of(sample, key):
    data = sample[key]['data']
    return data.reshape(data.shape[-2:]).double().cpu().numpy()
