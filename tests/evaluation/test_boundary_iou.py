import re

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.evaluator import Evaluator  # noqa: E402
from mmseg.evaluation import IoUMetric  # noqa: E402
from mmseg.registry import METRICS  # noqa: E402

from mmsapa.evaluation import BoundaryIoU  # noqa: E402

from ..helpers import (  # noqa: E402
    COMMON,
    QUICK,
    call,
    log_of,
    make_data,
    save_weights,
    write_config,
)

EVALUATOR = """
test_evaluator = dict(_delete_=True, type='mmsapa.BoundaryIoU')
"""


def figures(*images, classes=2, metric=BoundaryIoU, **kwargs):
    """Metrics of pairs of prediction and ground truth."""
    metric = metric(**kwargs)
    metric.dataset_meta = dict(classes=[f'c{i}' for i in range(classes)])
    metric.process(
        {},
        [
            dict(
                pred_sem_seg=dict(data=torch.as_tensor(pred)[None]),
                gt_sem_seg=dict(data=torch.as_tensor(true)[None]),
            )
            for pred, true in images
        ],
    )
    return metric.evaluate(len(images))


def square(side, start, stop):
    labels = np.zeros((side, side), np.int64)
    labels[start:stop, start:stop] = 1
    return labels


def counts(pred, true, classes=2, **kwargs):
    found = BoundaryIoU(**kwargs).intersect_and_union(
        torch.as_tensor(pred), torch.as_tensor(true), classes, 255
    )
    return [count.tolist() for count in found]


def test_counts_by_hand():
    """Squares of 6 and of 4 pixels in an image of 8, d = 1.

    The square's ring has 20 or 12 pixels. The ground is a ring of one pixel,
    28, or of two, 48, all of which are near the border or the square.
    """
    true, pred = square(8, 1, 7), square(8, 2, 6)
    both, either, p, g = counts(pred, true)
    assert (g, p) == ([28, 20], [48, 12])
    assert (both, either) == ([28, 0], [48, 32])
    assert figures((pred, true)) == dict(mBIoU=round(100 * 28 / 48 / 2, 2))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_binary_segmentors_predict_floats(dtype):
    """As by hand above: 28 of 48 pixels, and 0 of 32."""
    true, pred = square(8, 1, 7), square(8, 2, 6)
    pred = torch.as_tensor(pred).to(dtype)
    mean = 100 * (28 / 48 + 0) / 2
    assert figures((pred, true)) == dict(mBIoU=round(mean, 2))


def test_a_single_class_is_label_1():
    """Rings of 20 and 16 pixels share 5 of the top row and 4 below it."""
    true, pred = square(8, 1, 7), square(8, 1, 6)
    true[0, 0] = 255
    both, either, p, g = counts(pred.astype(np.float32), true, classes=1)
    assert (g, p, both, either) == ([20], [16], [9], [27])
    pair = pred.astype(np.float32), true
    assert figures(pair, classes=1) == dict(mBIoU=round(100 * 9 / 27, 2))


def test_distance_is_that_of_the_diagonal():
    """0.02 x 113 is 2 pixels, and the ring of a square of 40 has 304."""
    true = square(80, 20, 60)
    assert counts(true, true)[0][1] == 40**2 - 36**2
    assert counts(true, true, dilation_ratio=0.05)[0][1] == 40**2 - 28**2
    # So long a distance has everything near a contour: it is IoU.
    pred = square(80, 22, 60)
    everywhere = figures((pred, true), dilation_ratio=1)['mBIoU']
    iou = figures((pred, true), metric=IoUMetric)['mIoU']
    assert everywhere == pytest.approx(iou, abs=0.01)


def by_the_definition(labels, ignored, distance):
    """One class after another, as in the authors' code."""
    near = np.zeros(labels.shape, bool)
    for label in np.unique(labels):
        mask = (labels == label) & ~ignored
        padded = np.pad(mask.astype(np.uint8), 1)
        left = cv2.erode(padded, np.ones((3, 3)), iterations=distance)
        near |= mask & (left[1:-1, 1:-1] == 0)
    return near


@pytest.mark.parametrize('ratio', [0.001, 0.05, 0.1])
def test_all_classes_at_once_are_one_after_another(ratio):
    rng = np.random.default_rng(0)
    # Patches of 12 pixels, some labels as high as they go.
    true, pred = rng.choice([0, 1, 2, 149, 255], (2, 5, 4)).repeat(12, 1)
    true, pred = true.repeat(12, 1), pred.repeat(12, 1) % 150
    pred[rng.random(pred.shape) < 0.01] = 3
    both, _, p, g = counts(pred, true, 150, dilation_ratio=ratio)
    distance = max(1, round(ratio * np.hypot(60, 48)))
    ignored = true == 255
    near_p = by_the_definition(pred, ignored, distance)
    near_g = by_the_definition(true, ignored, distance)
    for label in (0, 1, 2, 3, 149):
        in_p = near_p & (pred == label)
        in_g = near_g & (true == label)
        assert p[label] == in_p.sum()
        assert g[label] == in_g.sum()
        assert both[label] == (in_p & in_g).sum()


def test_what_is_right_has_100_whatever_is_ignored():
    true = np.arange(400).reshape(20, 20) // 40 % 4
    assert figures((true, true), classes=4) == dict(mBIoU=100)
    pred = true.copy()
    true[5:12, 3:9] = 255
    pred[5:12, 3:9] = 3
    assert figures((pred, true), classes=4) == dict(mBIoU=100)


def test_a_boundary_off_its_place_costs_more_than_in_iou():
    pair = square(100, 22, 82), square(100, 20, 80)
    assert figures(pair)['mBIoU'] < figures(pair, metric=IoUMetric)['mIoU'] / 2


def test_a_class_that_is_nowhere_is_left_out():
    pair = square(8, 1, 7), square(8, 1, 7)
    assert figures(pair, classes=9) == dict(mBIoU=100)
    assert figures(pair, classes=4, nan_to_num=0) == dict(mBIoU=50)


def test_images_are_summed_before_the_division():
    """28 of 48 and 28 of 28 are 56 of 76; 0 of 32 and 20 of 20."""
    true, pred = square(8, 1, 7), square(8, 2, 6)
    mean = 100 * (56 / 76 + 20 / 52) / 2
    assert figures((pred, true), (true, true)) == dict(mBIoU=round(mean, 2))


def test_bad_arguments_are_named():
    for ratio in (0, -0.02, float('nan')):
        with pytest.raises(ValueError, match=f'such as 0.02, got {ratio}'):
            BoundaryIoU(dilation_ratio=ratio)
    with pytest.raises(TypeError, match='got dilation too'):
        BoundaryIoU(dilation=0.02)
    # As a config inherits them from an IoUMetric.
    with pytest.raises(TypeError, match='got iou_metrics, beta too.*_delete_'):
        BoundaryIoU(iou_metrics=['mIoU'], beta=2)


def test_a_config_names_it_beside_others(scope):
    scope('mmseg')
    names = 'IoUMetric', 'mmsapa.BoundaryIoU'
    evaluator = Evaluator([dict(type=name) for name in names])
    kinds = [type(metric) for metric in evaluator.metrics]
    assert kinds == [IoUMetric, BoundaryIoU]
    assert METRICS.get('mmsapa.BoundaryIoU') is BoundaryIoU


def test_the_tools_report_it(monkeypatch, tmp_path):
    root = make_data(tmp_path, 'seg', train=2)
    config = write_config(
        tmp_path / 'config.py', 'seg', root, COMMON + QUICK + EVALUATOR
    )
    save_weights(tmp_path / 'untrained.pth', config)
    call(
        monkeypatch,
        *('test', config, tmp_path / 'untrained.pth'),
        *('--out', tmp_path / 'out', '--work-dir', tmp_path / 'work'),
    )
    log = log_of(tmp_path / 'work')
    assert re.search(r'\| Class +\| BIoU', log.replace('  ', ' '))
    assert re.search(r'mBIoU: \d', log)
    assert len([*(tmp_path / 'out').iterdir()]) == 2
