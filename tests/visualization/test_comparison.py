"""Figures of models side by side, from plain arrays."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from mmsapa.visualization import (
    Comparison,
    Detections,
    disagreement,
    draw_comparison,
    find_boxes,
    image_iou,
    match_detections,
)

from .helpers import bytes_of, texts

PALETTE = [(64, 64, 64), (86, 180, 233), (230, 159, 0)]
CLASSES = ('ground', 'disc', 'ring')
SIZES = [(128, 128), (37, 53), (3, 5), (1, 1), (31, 640), (500, 20)]


def scene(height=64, width=80, seed=0, truth=True, operators=3):
    """Ground truth of blocks, and predictions with noise in them."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    labels = np.indices((height, width)).sum(0) // 16 % 3
    predictions = {}
    for i in range(operators):
        noise = rng.random((height, width)) < 0.05 * i
        predictions[f'operator {i}'] = np.where(noise, 0, labels)
    return Comparison(image, predictions, labels if truth else None)


def detections(*boxes, masks=False):
    """Detections of x0, y0, x1, y1, label."""
    values = np.array(boxes, float).reshape(-1, 5)
    found = None
    if masks:
        found = np.zeros((len(values), 48, 64), bool)
        for mask, (x0, y0, x1, y1, _) in zip(found, values.astype(int)):
            mask[y0:y1, x0:x1] = True
    return Detections(values[:, :4], values[:, 4].astype(int), found)


def inches(figure):
    return tuple(figure.get_size_inches())


# ---- where predictions differ -----------------------------------------------


@pytest.mark.parametrize('corner', [(0, 0), (70, 90), (97, 13), (110, 140)])
def test_the_box_covers_what_differs(corner):
    top, left = corner
    a = np.zeros((120, 150), int)
    b = a.copy()
    b[top : top + 10, left : left + 9] = 1
    row = Comparison(np.zeros((120, 150, 3), np.uint8), dict(a=a, b=b))
    ((x, y, w, h),) = find_boxes(disagreement(row, 3), 1)
    assert x <= left and y <= top
    assert x + w >= min(150, left + 9) and y + h >= min(120, top + 10)


def test_what_differs_stands_in_the_middle_of_the_box():
    weights = np.zeros((100, 100))
    weights[40, 60] = 1
    assert find_boxes(weights, 3, side=21) == [(50, 30, 21, 21)]


def test_most_weight_comes_first():
    weights = np.zeros((100, 100))
    weights[20, 20], weights[80, 80], weights[20, 80] = 1, 3, 2
    assert [box[:2] for box in find_boxes(weights, 2, 11)] == [
        (75, 15),
        (75, 75),
    ]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('side', [None, 1, 7, 1000])
def test_boxes_lie_inside_and_apart_at_any_size(size, side):
    weights = np.random.default_rng(0).random(size)
    boxes = find_boxes(weights, 4, side)
    assert 1 <= len(boxes) <= 4
    taken = np.zeros(size, int)
    for x, y, w, h in boxes:
        assert x >= 0 and y >= 0 and w > 0 and h > 0
        assert x + w <= size[1] and y + h <= size[0]
        taken[y : y + h, x : x + w] += 1
    assert taken.max() == 1


def test_predictions_that_agree_have_no_box():
    assert find_boxes(np.zeros((50, 50)), 2) == []
    figure = draw_comparison([scene(operators=1)], PALETTE)
    assert sum(len(axis.images) for axis in figure.axes) == 3  # none enlarged


def test_a_single_prediction_is_compared_with_the_ground_truth():
    row = scene(operators=2)
    del row.predictions['operator 0']
    (wrong,) = row.predictions.values()
    assert ((disagreement(row, 3) > 0) == (wrong != row.ground_truth)).all()
    assert not disagreement(row._replace(ground_truth=None), 3).any()


def test_pairs_are_counted_where_the_ground_truth_counts():
    a, b, c = (np.full((8, 8), i) for i in (0, 0, 1))
    truth = np.zeros((8, 8), int)
    truth[:2] = 255
    row = Comparison(np.zeros((8, 8, 3), np.uint8), dict(a=a, b=b, c=c), truth)
    weights = disagreement(row, 2)
    assert not weights[:2].any()
    assert (weights[2:] == 2).all()
    assert (disagreement(row._replace(ground_truth=None), 2) == 2).all()


def test_a_detection_without_partner_weighs_one():
    large, small = (0, 0, 40, 40, 0), (50, 10, 54, 14, 1)
    row = Comparison(
        np.zeros((48, 64, 3), np.uint8),
        dict(a=detections(large, small), b=detections((1, 1, 40, 40, 0))),
    )
    weights = disagreement(row, 2)
    assert not weights[:, :50].any()
    assert weights.sum() == pytest.approx(1)
    ((x, y, w, h),) = find_boxes(weights, 2)
    assert x <= 50 and y <= 10 and x + w >= 54 and y + h >= 14


def test_detections_are_paired_by_class_and_iou():
    a = detections((0, 0, 10, 10, 0), (0, 0, 10, 12, 0), (20, 20, 30, 30, 1))
    b = detections((0, 0, 10, 12, 0), (20, 20, 30, 30, 2), (0, 0, 10, 9, 0))
    partners, free = match_detections(a, b)
    assert partners.tolist() == [2, 0, -1]
    assert free.tolist() == [False, True, False]
    partners, free = match_detections(detections(), b)
    assert partners.tolist() == [] and free.all()
    # IoU is 5 / 10.
    half = detections((0, 0, 10, 10, 0)), detections((0, 0, 10, 5, 0))
    assert match_detections(*half)[0].tolist() == [0]
    assert match_detections(*half, iou=0.51)[0].tolist() == [-1]


def test_iou_is_that_of_mmsegmentation():
    metric = pytest.importorskip('mmseg.evaluation').IoUMetric
    row = scene(seed=1)
    truth = row.ground_truth.copy()
    truth[:5] = 255
    for prediction in row.predictions.values():
        areas = metric.intersect_and_union(
            torch.tensor(prediction), torch.tensor(truth), 5, 255
        )
        ious = areas[0] / areas[1]
        expected = 100 * float(ious[~ious.isnan()].mean())
        assert image_iou(prediction, truth, 5) == pytest.approx(expected)
    assert np.isnan(image_iou(truth, np.full_like(truth, 255), 5))


# ---- the figure -------------------------------------------------------------


@pytest.mark.parametrize('truth', [True, False])
def test_images_of_many_sizes_share_a_figure(truth):
    rows = [scene(*size, truth=truth and size[0] > 3) for size in SIZES]
    figure = draw_comparison(rows, PALETTE, CLASSES, 3, difference=True)
    assert bytes_of(figure)
    # What is shown lies within the figure, and nothing lies on another.
    places = [axis.get_position() for axis in figure.axes]
    for i, place in enumerate(places):
        assert 0 < place.x0 < place.x1 < 1 and 0 < place.y0 < place.y1 < 1
        assert not any(place.overlaps(other) for other in places[:i])


def test_the_same_arrays_give_the_same_bytes():
    first, second = (
        bytes_of(draw_comparison([scene()], PALETTE, CLASSES, difference=True))
        for _ in range(2)
    )
    assert first == second


def test_nothing_that_comes_in_is_changed():
    row = scene()
    arrays = [row.image, row.ground_truth, *row.predictions.values()]
    copies = [array.copy() for array in arrays]
    draw_comparison([row], PALETTE, CLASSES, difference=True)
    for array, copy in zip(arrays, copies):
        np.testing.assert_array_equal(array, copy)


def zooms_of(figure):
    """Regions that are shown enlarged, of the image's column."""
    regions = set()
    for axis in figure.axes:
        (x0, x1), (y1, y0) = axis.get_xlim(), axis.get_ylim()
        if (x0, y0) != (-0.5, -0.5):
            regions.add((x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0))
    return sorted(regions)


def test_given_boxes_are_enlarged_in_every_column():
    boxes = [(5, 6, 20, 10), (30, 31, 7, 9)]
    figure = draw_comparison([scene()._replace(boxes=boxes)], PALETTE)
    assert zooms_of(figure) == boxes
    # Image, truth and three operators, whole and twice enlarged.
    assert len(figure.axes) == 5 * 3
    assert not zooms_of(draw_comparison([scene()], PALETTE, zooms=0))


def test_words_say_what_is_seen():
    row = scene()._replace(name='a/b')
    row.ground_truth[:3] = 255
    figure = draw_comparison([row], PALETTE, CLASSES, difference=True)
    score = image_iou(row.predictions['operator 1'], row.ground_truth, 3)
    for words in (
        *('image', 'ground truth', 'operator 0', 'operator 2', 'a/b'),
        *('mIoU 100.0', 'models differ'),
        *(f'mIoU {score:.1f}', *CLASSES, 'not counted', 'right'),
        'wrong where operator 0 is right',
    ):
        assert words in texts(figure)
    plain = draw_comparison(
        [row._replace(ground_truth=None)], PALETTE, CLASSES
    )
    assert not {'ground truth', 'not counted', 'right'} & set(texts(plain))


@pytest.mark.parametrize('operators', [1, 2, 8])
def test_words_are_neither_cut_nor_overlap(operators):
    names = [
        'IndexNet_depthwise_m2o_with_context',
        'SAPA-B, trained for longer than the others',
        *map(str, range(6)),
    ]
    row = scene(operators=operators)
    predictions = dict(zip(names, row.predictions.values()))
    path = 'images/validation/munster_000000_000019_leftImg8bit' * 3
    row = row._replace(predictions=predictions, name=path)
    classes = [f'{name}, and what else is of this class' for name in CLASSES]
    figure = draw_comparison([row] * 2, PALETTE, classes, difference=True)
    words = [text for x in figure.legends for text in x.texts] + figure.texts
    figure.draw_without_rendering()
    places = [
        text.get_window_extent().transformed(figure.transFigure.inverted())
        for text in words
    ]
    maps = [axis.get_position() for axis in figure.axes]
    for i, place in enumerate(places):
        assert -1e-3 < place.x0 < place.x1 < 1 + 1e-3, words[i].get_text()
        assert 0 < place.y0 < place.y1 < 1, words[i].get_text()
        for other in maps + places[:i]:
            assert not place.overlaps(other), words[i].get_text()


def test_of_many_classes_the_largest_are_named():
    labels = np.arange(64 * 64).reshape(64, 64) // 40 % 100
    row = Comparison(np.zeros((64, 64, 3), np.uint8), dict(a=labels))
    names = [f'class {i}' for i in range(100)]
    palette = np.random.default_rng(0).integers(0, 256, (100, 3))
    figure = draw_comparison([row], palette, names)
    assert len(texts(figure)) == 2 + 16 + 1
    assert texts(figure)[-1] == 'and 84 more'


@pytest.mark.parametrize('masks', [False, True])
@pytest.mark.parametrize('truth', [False, True])
def test_detections_are_drawn(masks, truth):
    image = np.full((48, 64, 3), 99, np.uint8)
    there = [(5, 5, 25, 30, 0), (30, 10, 60, 40, 1)]
    row = Comparison(
        image,
        dict(
            a=detections(*there[:1], (40, 5, 63, 20, 2), masks=masks),
            b=detections(*there, masks=masks),
            none=detections(masks=masks),
        ),
        detections(*there, masks=masks) if truth else None,
    )
    figure = draw_comparison([row], PALETTE, CLASSES, difference=True)
    assert bytes_of(figure)
    assert zooms_of(figure)
    if truth:
        assert '1 of 2 found, 1 false' in texts(figure)
        assert '0 of 2 found, 0 false' in texts(figure)
        assert {'found', 'false', 'missed'} <= set(texts(figure))
    else:
        assert 'in a alone' in texts(figure)


def test_names_are_no_formulas():
    row = scene(operators=2)._replace(name='$a_$b_')
    figure = draw_comparison([row], PALETTE, ['$x', 'y$', '$'])
    assert '$a_$b_' in texts(figure)
    assert bytes_of(figure)


def test_a_figure_is_of_masks_or_of_detections():
    masks = scene(48, 64, operators=2)
    boxes = masks._replace(
        predictions={name: detections() for name in masks.predictions},
        ground_truth=None,
    )
    with pytest.raises(ValueError, match='label maps or detections, got both'):
        draw_comparison([masks, boxes], PALETTE)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(predictions={}), 'expected predictions of .*, got none'),
        (dict(predictions=dict(a=np.zeros((64, 80), int))), 'got a'),
        (dict(image=np.zeros((64, 80), np.uint8)), r'\[H, W, 3\], got \[64'),
        (
            dict(ground_truth=np.zeros((60, 80), int)),
            r'of the ground truth .*\[64, 80\], got',
        ),
        (
            dict(ground_truth=np.zeros((64, 80))),
            'integers .* of the ground truth, got float64',
        ),
        (
            dict(ground_truth=detections()),
            'label maps or detections, got both',
        ),
        (dict(boxes=[(70, 0, 11, 5)]), 'within 80 x 64 .* 70,0,11,5'),
        (dict(boxes=[(-1, 0, 5, 5)]), 'within'),
        (dict(boxes=[(1, 0, 0, 5)]), 'within'),
    ],
)
def test_what_cannot_be_drawn_is_said(change, words):
    with pytest.raises(ValueError, match=words):
        draw_comparison([scene(), scene()._replace(**change)], PALETTE)


def test_figures_without_rows_or_without_end_are_refused():
    with pytest.raises(ValueError, match='one row or more, got 0'):
        draw_comparison([], PALETTE)
    with pytest.raises(ValueError, match='2 classes and 3 colors'):
        draw_comparison([scene()], PALETTE, CLASSES[:2])
    with pytest.raises(ValueError, match='inches high.*fewer rows'):
        draw_comparison([scene(8, 8)] * 300, PALETTE)
    row = Comparison(
        np.zeros((48, 64, 3), np.uint8), dict(a=detections((1, 1, 5, 5, 3)))
    )
    with pytest.raises(ValueError, match='labels below 3.*got 3 of a'):
        draw_comparison([row], PALETTE)


def test_it_is_imported_without_the_libraries():
    code = (
        'import sys, mmsapa.visualization\n'
        "heavy = {'mmseg', 'mmdet', 'matplotlib'} & sys.modules.keys()\n"
        'assert not heavy, heavy'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
