"""Errors of mattes, as Adobe's MATLAB code computes them."""

import logging
from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from ..matting.data_sample import is_unknown, to_bytes
from ..registry import METRICS
from .prediction_files import PredictionFiles

NAMES = ('SAD', 'MSE', 'Grad', 'Conn')
# Standard deviation of the Gaussian in Grad, and half of its size in pixels,
# beyond which it is below 0.01.
_SIGMA = 1.4
_HALF = int(
    np.ceil(_SIGMA * np.sqrt(-2 * np.log((2 * np.pi) ** 0.5 * _SIGMA / 100)))
)


@METRICS.register_module()
class MattingMetric(BaseMetric):
    """SAD, MSE, Grad and Conn of each image, then their mean over images.

    With p the predicted and g the true alpha in [0, 1], over the unknown
    region U of an image, where its trimap is neither 0 nor 255:

    - ``SAD``: Σ |p - g| / 1000
    - ``MSE``: Σ (p - g)² / number of pixels of U
    - ``Grad``: Σ (|∇p| - |∇g|)² / 1000, the gradients by derivatives of a
      Gaussian with σ = 1.4 of p and g, each stretched to [0, 1]
    - ``Conn``: Σ |φ(p) - φ(g)| / 1000, where φ is how far a pixel is
      connected to the largest region that both mattes share, as in
      :func:`connectivity`

    What is predicted is clipped, and cut off, not rounded, to steps of
    1 / 255, as in the files that the MATLAB code reads. Outside of U it is
    what the trimap says. An image without unknown pixels is left out.

    Figures of others differ. MMagic sums SAD and MSE over the whole image,
    rounds, and does not skip thresholds without a common region in Conn;
    GCA-Matting takes the background for a region in Conn, which makes it
    about 5 % lower; and the Python code that goes with A2U matting has
    another Gaussian, which makes Grad 4 to 5 % higher.

    In a config::

        val_evaluator = dict(type='mmsapa.MattingMetric')

    Args:
        collect_device (str): As in mmengine's BaseMetric. Default:
            ``'cpu'``.
        prefix (str, optional): As in mmengine's. Default: None.
        output_dir (str, optional): Folder that gets predictions as PNG files
            of 8 bits with the names of the images. Default: None.
        format_only (bool): Write predictions and measure nothing. Default:
            False.
        img_root (str, optional): Folder of the images, if they have the same
            names in several folders of it: predictions lie in ``output_dir``
            as they do in it. Default: None, all in one folder.

    Raises:
        ValueError: If ``format_only`` comes without ``output_dir``; or later
            if alpha, trimap and prediction differ in size, one is missing,
            or two predictions would be written to the same file.
    """

    def __init__(
        self,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        output_dir: str | None = None,
        format_only: bool = False,
        img_root: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if format_only and output_dir is None:
            raise ValueError(
                'MattingMetric: format_only writes predictions alone; name a '
                'folder for them in output_dir.'
            )
        self.output_dir, self.format_only = output_dir, format_only
        self._files = PredictionFiles(output_dir, img_root)

    def process(self, data_batch: dict, data_samples: Sequence[dict]):
        """Measure the images of a batch, and write what is predicted.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): ``pred_alpha``, ``gt_alpha`` and
                ``trimap``, of which ``data`` is a Tensor[1, H, W], as in
                :class:`~mmsapa.matting.MattingDataSample`; ``img_path``.
        """
        for sample in data_samples:
            keys = 'pred_alpha', 'trimap', 'gt_alpha'
            pred, trimap, true = (self._map_of(sample, key) for key in keys)
            pred = to_bytes(np.nan_to_num(pred, nan=0).clip(0, 1))
            pred[trimap == 0], pred[trimap == 255] = 0, 255
            if not self.format_only:
                self.results.append(matting_errors(pred, true, trimap))
            if self.output_dir is not None:
                self._files.write(sample['img_path'], pred)

    def _map_of(self, sample, key):
        if key not in sample:
            if key == 'gt_alpha' and self.format_only:
                return None
            raise ValueError(
                f'{sample.get("img_path")}: expected {key} to measure '
                'predictions, got none; load alpha and trimap in the test '
                'pipeline, or for alpha set format_only.'
            )
        data = sample[key]['data']
        size = tuple(sample['pred_alpha']['data'].shape[-2:])
        if tuple(data.shape[-2:]) != size:
            raise ValueError(
                f'{sample.get("img_path")}: expected {key} of the size of '
                f'the prediction, {size[1]} x {size[0]}, got '
                f'{data.shape[-1]} x {data.shape[-2]}; load it after the '
                'transforms that resize images.'
            )
        return data.reshape(size).float().cpu().numpy()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average the figures of all images.

        Args:
            results (list[list[float]]): Of each image.

        Returns:
            dict[str, float]: Means over the images that have unknown pixels;
            NaN if none has.
        """
        if self.format_only:
            print_log(f'predictions are in {self.output_dir}', 'current')
            return {}
        rows = np.array(results, float).reshape(-1, len(NAMES))
        left_out = np.isnan(rows).any(1)
        if left_out.any():
            print_log(
                f'{left_out.sum()} of {len(rows)} images have no unknown '
                'pixel in their trimap, and are left out.',
                'current',
                logging.WARNING,
            )
        rows = rows[~left_out]
        means = rows.mean(0) if len(rows) else np.full(len(NAMES), np.nan)
        metrics = dict(zip(NAMES, means.tolist()))
        heads = ''.join(f'{name:>10}' for name in metrics)
        line = ''.join(f'{value:10.4f}' for value in metrics.values())
        print_log(f'results:\n{heads}\n{line}', 'current')
        return metrics


def matting_errors(
    pred: np.ndarray, true: np.ndarray, trimap: np.ndarray
) -> list[float]:
    """Compare two mattes.

    Args:
        pred (ndarray): Prediction in steps of 1 / 255, uint8, [H, W].
        true (ndarray): True alpha in [0, 1], float32, [H, W].
        trimap (ndarray): uint8, [H, W]; what is neither 0 nor 255 counts.

    Returns:
        list[float]: SAD, MSE, Grad and Conn, as :class:`MattingMetric`
        explains; all NaN if no pixel counts.
    """
    unknown = is_unknown(trimap)
    count = np.count_nonzero(unknown)
    if not count:
        return [np.nan] * len(NAMES)
    # In float32, as in MATLAB: k / 255 and a threshold of the same value are
    # the same float there.
    pred = pred / np.float32(255)
    true = true.astype(np.float32)
    off = pred[unknown].astype(float) - true[unknown]
    slopes = [gradient(alpha)[unknown] for alpha in (pred, true)]
    links = [x[unknown].astype(float) for x in connectivity(pred, true)]
    return [
        float(abs(off).sum() / 1000),
        float((off**2).sum() / count),
        float(((slopes[0] - slopes[1]) ** 2).sum() / 1000),
        float(abs(links[0] - links[1]).sum() / 1000),
    ]


def gradient(alpha: np.ndarray) -> np.ndarray:
    """Return how steep a matte is.

    Args:
        alpha (ndarray): [H, W].

    Returns:
        ndarray: Length of the gradient of alpha, stretched to [0, 1] by its
        least and largest value, by derivatives of a Gaussian on 9×9 pixels
        whose squares sum to 1; the border is replicated. float64, [H, W].
    """
    alpha = alpha.astype(float)
    low, high = alpha.min(), alpha.max()
    # MATLAB leaves a constant as it is.
    if high > low:
        alpha = (alpha - low) / (high - low)
    x = np.arange(-_HALF, _HALF + 1)
    smooth = np.exp(-(x**2) / (2 * _SIGMA**2))
    steep = x * smooth
    smooth, steep = (v / np.linalg.norm(v) for v in (smooth, steep))
    along, across = (
        cv2.sepFilter2D(
            alpha, cv2.CV_64F, *kernels, borderType=cv2.BORDER_REPLICATE
        )
        for kernels in ((steep, smooth), (smooth, steep))
    )
    return np.hypot(along, across)


def connectivity(
    pred: np.ndarray, true: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each pixel is connected to what both mattes share.

    For each threshold t of 0.1, 0.2, … 1, Ω is the largest 4-connected
    region where both mattes are at least t; a t without any such pixel is
    skipped. l of a pixel is the last t - 0.1 before it is first outside of
    an Ω, and 1 if it never is. With d = alpha - l, φ = 1 - d where d is at
    least 0.15, else 1.

    Args:
        pred (ndarray): In [0, 1], float32, [H, W].
        true (ndarray): The same.

    Returns:
        tuple[ndarray, ndarray]: φ of both, float32, [H, W].
    """
    lower = np.minimum(pred, true)
    level = np.ones_like(lower)
    connected = np.ones(lower.shape, bool)
    steps = np.arange(11).astype(np.float32) / np.float32(10)
    for before, step in zip(steps, steps[1:]):
        both = lower >= step
        if not both.any():
            continue
        # Of regions of the same size MATLAB takes that which begins in the
        # first column.
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            np.ascontiguousarray(both.T, np.uint8), connectivity=4
        )
        largest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
        outside = connected & (labels.T != largest)
        level[outside] = before
        connected &= ~outside
    depths = (alpha - level for alpha in (pred, true))
    return tuple(1 - depth * (depth >= np.float32(0.15)) for depth in depths)
