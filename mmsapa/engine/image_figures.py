"""What is measured of each test image, kept and compared by pairs."""

import os.path as osp

import numpy as np
import torch
from mmengine.hooks import Hook

from mmsapa.datasets.processes import complete_file
from mmsapa.engine.config import ConfigError
from mmsapa.evaluation.paired import (
    class_figures,
    mean_figure,
    paired_difference,
    parts_of,
)

# Figures that are compared by pairs, and whether higher is better. The first
# that a model has is its headline.
HIGHER_IS_BETTER = dict(
    mIoU=True,
    mBIoU=True,
    d1=True,
    abs_rel=False,
    rmse=False,
    dbe_acc=False,
    dbe_comp=False,
    SAD=False,
    MSE=False,
    Grad=False,
    Conn=False,
)


class ImageFigures(Hook):
    """Keeps the results of test images, which a metric drops after its sum.

    Args:
        kind (str): Of the model, as :func:`~mmsapa.engine.config.kind_of` has
            it. Metrics of a segmentor are an IoUMetric and a BoundaryIoU;
            another has one metric, with a list of figures of each image.
    """

    def __init__(self, kind):
        self.kind = kind

    def before_test(self, runner):
        """Begin without any."""
        dataset = runner.test_dataloader.dataset
        # By default an image belongs to no other.
        self.group_of = getattr(dataset, 'group_of', str)
        self.names, self.groups = [], []
        self.results = [[] for _ in runner.test_loop.evaluator.metrics]

    def after_test_iter(self, runner, batch_idx, data_batch, outputs):
        """Keep the results that are new."""
        for path in (sample.get('img_path', '') for sample in outputs):
            number = str(len(self.names))
            self.groups.append(self.group_of(path) if path else number)
            self.names.append(osp.basename(path))
        metrics = runner.test_loop.evaluator.metrics
        for kept, metric in zip(self.results, metrics):
            kept += metric.results[len(kept) :]

    def save(self, path, metrics):
        """Write what is kept as a compressed .npz file.

        Args:
            path (Path): File with an array [images, 2, classes] by the name
                of the figure, parts as in :mod:`mmsapa.evaluation.paired`;
                the numerators of IoUs are in percent. Of each image,
                ``images`` has the name and ``groups`` that of the images it
                belongs to, as the data set's ``group_of(img_path)`` has it.
            metrics (dict[str, float]): What the metrics made of them.
        """
        if self.kind == 'segmentor':
            parts = {
                name: np.stack([_counts(*result) for result in results])
                for name, results in zip(('mIoU', 'mBIoU'), self.results)
            }
        else:
            # An image has its figures in the order of the metric's.
            figures = np.array(self.results[0], float).T
            parts = dict(zip(metrics, map(parts_of, figures)))
        with complete_file(path, 'wb') as file:
            np.savez_compressed(
                file, images=self.names, groups=self.groups, **parts
            )


def _counts(intersection, union, *_):
    counts = torch.stack([100 * intersection.double(), union.double()])
    return counts.long().numpy()


def figures_by_class(path):
    """Read the IoU and boundary IoU of each class.

    Args:
        path (Path): Of :meth:`ImageFigures.save`, of a segmentor.

    Returns:
        dict[str, list[float]]: By ``mIoU`` and ``mBIoU``, in percent; None
        of a class in no mask.
    """
    parts = _read(path)
    return {
        name: _list(class_figures(parts[name]))
        for name in HIGHER_IS_BETTER
        if name in parts
    }


def compare_pairs(candidate, baseline):
    """Compare two upsamplers by pairs of the same seed and image.

    Images of a group are not independent, and are drawn together.

    Args:
        candidate (list[Path]): Of :meth:`ImageFigures.save`, one a seed.
        baseline (list[Path]): Those of the baseline, of the same seeds.

    Returns:
        dict[str, dict]: By figure its ``difference``, ``low`` and ``high``,
        of :func:`~mmsapa.evaluation.paired.paired_difference`, and in how
        many seeds the candidate is ``better``; of several classes as
        ``classes`` the ``low`` and ``high`` of each.

    Raises:
        ConfigError: The runs were not tested with the same images.
    """
    runs = [[_read(path) for path in paths] for paths in (candidate, baseline)]
    _check_images([*candidate, *baseline], [*runs[0], *runs[1]])
    groups = runs[0][0].get('groups')
    found = {}
    for name, higher in HIGHER_IS_BETTER.items():
        if name not in runs[0][0]:
            continue
        pair = [np.stack([run[name] for run in x]) for x in runs]
        gains = np.subtract(*map(mean_figure, pair))
        keys = 'difference', 'low', 'high'
        ends = paired_difference(*pair, groups=groups)
        found[name] = dict(zip(keys, _list(ends)))
        better = gains > 0 if higher else gains < 0
        found[name]['better'] = int(better.sum())
        if pair[0].shape[-1] > 1:
            _, *ends = paired_difference(*pair, by_class=True)
            found[name]['classes'] = dict(zip(keys[1:], map(_list, ends)))
    return found


def _check_images(paths, runs):
    """Raise if runs have other images; older files have no names of them."""
    for path, run in zip(paths, runs):
        names, expected = (x.get('images') for x in (run, runs[0]))
        counts = [len(next(iter(x.values()))) for x in (run, runs[0])]
        named = names is not None and expected is not None
        if counts[0] != counts[1] or named and (names != expected).any():
            raise ConfigError(
                f'{path}: expected the test images of {paths[0]}, got others; '
                'remove the folder of the one that is out of date, and run '
                'the same command.'
            )


def _read(path):
    with np.load(path) as file:
        return dict(file)


def _list(figures):
    """Round figures for a JSON file, which has null for NaN."""
    return [None if np.isnan(x) else float(f'{x:.6g}') for x in figures]
