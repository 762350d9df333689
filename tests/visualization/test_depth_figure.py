"""Figures of depth maps side by side, from plain arrays."""

import numpy as np
import pytest

from mmsapa.visualization import (
    Comparison,
    comparison_maps,
    depth_maps,
    disagreement,
    draw_comparison,
    find_boxes,
)

from .helpers import bytes_of, texts

STRIPES = {(255, 255, 255), (200, 200, 200)}


def room(height=64, width=80, truth=True, operators=2):
    """A wall at 4 m, a plate at 1 m before it, and no depth at its left."""
    depth = np.full((height, width), 4, np.float32)
    depth[height // 4 : height // 2, width // 4 : width // 2] = 1
    predictions = {
        f'operator {i}': depth * np.float32(1 + 0.1 * i)
        for i in range(operators)
    }
    true = depth.copy()
    true[:, : width // 8] = 0
    image = np.zeros((height, width, 3), np.uint8)
    return Comparison(image, predictions, true if truth else None)


def painted(figure, column=0):
    """Pixels of the maps that a figure shows whole, by column."""
    axes = [axis for axis in figure.axes if axis.images]
    x0 = sorted({round(axis.get_position().x0, 3) for axis in axes})[column]
    return next(
        np.asarray(axis.images[0].get_array())
        for axis in axes
        if round(axis.get_position().x0, 3) == x0
    )


def colors(pixels):
    return {tuple(color) for color in pixels.reshape(-1, 3).tolist()}


# ---- colors -----------------------------------------------------------------


def test_a_color_means_one_depth_in_all_columns_of_a_row():
    row = room()
    other = dict(b=row.predictions['operator 0'], c=2 * row.ground_truth)
    figure = draw_comparison([row._replace(predictions=other)], zooms=0)
    truth, b, c = (painted(figure, i) for i in (1, 2, 3))
    seen = row.ground_truth > 0
    np.testing.assert_array_equal(truth[seen], b[seen])
    # Beyond the range of the ground truth, 8 m look like its 4 m.
    assert tuple(c[-1, -1]) == tuple(truth[-1, -1])
    assert tuple(c[20, 25]) != tuple(truth[20, 25])


def test_the_range_may_be_the_same_for_all_figures():
    near, far = room(), room()
    far = far._replace(
        predictions={k: 2 * x for k, x in far.predictions.items()},
        ground_truth=2 * far.ground_truth,
    )
    first, second = (
        painted(draw_comparison([row], zooms=0, depth_range=(0.5, 10)), 1)
        for row in (near, far)
    )
    assert not colors(first) - STRIPES & colors(second)
    first, second = (
        painted(draw_comparison([row], zooms=0), 1) for row in (near, far)
    )
    np.testing.assert_array_equal(first, second)


def test_colors_go_by_the_logarithm_and_near_is_light():
    scale = depth_maps.depth_colors(1, 16)
    depths = np.array([[1.0, 4.0, 16.0]])
    pixels = comparison_maps.paint_values(depths, depths > 0, scale)
    middle = scale.get_cmap()(0.5, bytes=True)[:3]
    assert tuple(pixels[0, 1]) == tuple(middle)
    light = pixels[0].sum(-1).astype(int)
    assert light[0] > light[1] > light[2]


def test_what_has_no_depth_is_striped():
    row = room()
    row.predictions['operator 1'][-1] = np.nan, *[np.inf] * 78, -1
    figure = draw_comparison([row], zooms=0)
    assert 'no depth' in texts(figure)
    truth, wrong = painted(figure, 1), painted(figure, 3)
    assert colors(truth[:, :10]) == STRIPES
    assert colors(wrong[-1:]) <= STRIPES
    assert not colors(truth[:, 10:]) & STRIPES
    whole = room(truth=False)
    assert 'no depth' not in texts(draw_comparison([whole]))


# ---- where depths differ, and how much --------------------------------------


def test_depths_differ_by_their_logarithms_where_they_are_known():
    row = room()
    weights = disagreement(row, 0)
    assert not weights[:, :10].any()
    np.testing.assert_allclose(weights[:, 10:], np.log(1.1), rtol=1e-5)
    row.predictions['operator 1'][5, 50] = 0
    assert disagreement(row, 0)[5, 50] == 0


def test_boxes_lie_where_depths_differ_most():
    row = room()
    row.predictions['operator 1'][40:44, 60:64] *= 3
    ((x, y, w, h),) = find_boxes(disagreement(row, 0), 1)
    assert x <= 60 and x + w >= 64 and y <= 40 and y + h >= 44
    figure = draw_comparison([row], zooms=1)
    # Image, truth and two operators, whole and enlarged.
    assert sum(len(axis.images) for axis in figure.axes) == 4 * 2


def test_scores_are_relative_errors_and_the_least_is_bold():
    row = room(operators=3)
    figure = draw_comparison([row])
    found = {
        text.get_text(): text.get_fontweight()
        for text in figure.texts
        if 'AbsRel' in text.get_text()
    }
    assert found == {
        'AbsRel 0.000': 'bold',
        'AbsRel 0.100': 'normal',
        'AbsRel 0.200': 'normal',
    }
    row.ground_truth[:] = 0
    assert 'nothing counted' in texts(draw_comparison([row]))


@pytest.mark.parametrize('truth', [True, False])
def test_differences_are_relative_errors(truth):
    row = room(truth=truth, operators=3)
    figure = draw_comparison([row], difference=True, zooms=0)
    title = 'relative error' if truth else 'relative difference'
    assert title in texts(figure)
    scale = depth_maps.error_colors()
    shown = [
        np.asarray(axis.images[0].get_array())
        for axis in figure.axes
        if axis.images
    ][-3 if truth else -2 :]
    errors = (0, 0.1, 0.2) if truth else (0.1, 0.2)
    for pixels, error in zip(shown, errors, strict=True):
        expected = scale.to_rgba(error, bytes=True)[:3]
        off = pixels[:, 10:].astype(int) - np.array(expected, int)
        assert abs(off).max() <= 1


# ---- the figure -------------------------------------------------------------


def test_labels_of_the_bar_say_near_and_far():
    assert list(depth_maps.depth_ticks(0.7, 9.4).values()) == [
        *('0.7 m', '1 m', '2 m', '5 m', '9.4 m'),
    ]
    ends = [*depth_maps.depth_ticks(1.5, 80).values()]
    assert ends[0] == '1.5 m' and ends[-1] == '80 m'
    for limits in (1.0, 1.01), (1e-3, 655.0):
        ticks = [*depth_maps.depth_ticks(*limits)]
        assert len(ticks) <= 11 and ticks == sorted(ticks)


@pytest.mark.parametrize('truth', [True, False])
@pytest.mark.parametrize('operators', [1, 6])
def test_nothing_is_cut_or_lies_on_another(truth, operators):
    rows = [
        room(*size, truth=truth, operators=operators)
        for size in ((31, 300), (200, 20))
    ]
    figure = draw_comparison(rows, difference=True)
    figure.draw_without_rendering()
    unit = figure.transFigure.inverted()
    maps = [axis.get_position() for axis in figure.axes]
    bars = [axis for axis in figure.axes if axis.get_xticks().size]
    labels = [text for axis in bars for text in axis.get_xticklabels()]
    words = [
        text.get_window_extent().transformed(unit)
        for text in (*figure.texts, *labels)
    ]
    assert len(bars) == len(rows) * (2 if truth or operators > 1 else 1)
    for i, place in enumerate(maps + words):
        assert -1e-3 < place.x0 < place.x1 < 1 + 1e-3
        assert 0 < place.y0 < place.y1 < 1
        assert not any(place.overlaps(other) for other in (maps + words)[:i])


def test_the_same_depths_give_the_same_bytes_and_stay_as_they_are():
    row = room()
    copies = [x.copy() for x in (row.ground_truth, *row.predictions.values())]
    first, second = (
        bytes_of(draw_comparison([row], difference=True)) for _ in range(2)
    )
    assert first == second
    for copy, depth in zip(
        copies, (row.ground_truth, *row.predictions.values())
    ):
        np.testing.assert_array_equal(copy, depth)


def test_a_row_without_truth_may_stand_below_one_with_it():
    rows = [room(operators=1), room(truth=False, operators=1)]
    figure = draw_comparison(rows, difference=True, zooms=0)
    # Of the second row image and prediction.
    assert sum(len(axis.images) for axis in figure.axes) == 4 + 2


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(ground_truth=np.ones((64, 80), int)), 'floats in the depth map'),
        (dict(ground_truth=np.ones((60, 80))), r'the depth map of the .*\[64'),
    ],
)
def test_what_cannot_be_drawn_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        draw_comparison([room()._replace(**change)])
