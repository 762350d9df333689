"""Figures of mattes side by side, from plain arrays."""

import numpy as np
import pytest

from mmsapa.evaluation.matting_metric import matting_errors
from mmsapa.visualization import (
    Comparison,
    disagreement,
    draw_comparison,
    find_boxes,
)
from mmsapa.visualization.depth_maps import error_colors
from mmsapa.visualization.matte_maps import composite, cover

from .helpers import bytes_of, texts

GREEN = np.array([0, 128, 0], np.uint8)
FRONT, BEHIND = np.array([[200, 150, 40], [10, 90, 230]], np.float32)


def ramp(height=48, width=64, truth=True, operators=2, unknown=128):
    """Alpha from 0 to 1, known in the outer quarters; later ones are less."""
    alpha = np.linspace(-0.5, 1.5, width, dtype=np.float32).clip(0, 1)
    alpha = np.tile(alpha, (height, 1))
    trimap = np.full((height, width), unknown, np.uint8)
    trimap[alpha == 0], trimap[alpha == 1] = 0, 255
    inside = trimap == unknown
    predictions = {
        f'operator {i}': np.where(inside, (1 - 0.1 * i) * alpha, alpha)
        for i in range(operators)
    }
    share = alpha[..., None]
    image = (share * FRONT + (1 - share) * BEHIND + 0.5).astype(np.uint8)
    truth = alpha.copy() if truth else None
    return Comparison(image, predictions, truth, None, 'ramp', trimap)


def shown(figure):
    """Pixels of all maps of a figure, line by line."""
    axes = [axis for axis in figure.axes if axis.images]
    places = {axis: axis.get_position() for axis in axes}
    axes.sort(key=lambda x: (-round(places[x].y0, 3), places[x].x0))
    return [np.asarray(axis.images[0].get_array()) for axis in axes]


# ---- maps -------------------------------------------------------------------


def test_trimap_and_mattes_are_gray_and_cut_off_as_in_files():
    row = ramp()
    figure = draw_comparison([row], zooms=0)
    assert texts(figure)[:5] == [
        *('image', 'trimap', 'ground truth', 'operator 0', 'operator 1'),
    ]
    image, *maps = shown(figure)
    np.testing.assert_array_equal(image, row.image)
    expected = row.trimap, row.ground_truth, *row.predictions.values()
    for pixels, values in zip(maps, expected, strict=True):
        if values.dtype != np.uint8:
            values = np.floor(255 * values)
        np.testing.assert_array_equal(pixels, values[..., None].repeat(3, 2))


@pytest.mark.parametrize('unknown', [127, 128])
def test_scores_are_those_of_the_metric_and_the_least_is_bold(unknown):
    row = ramp(operators=3, unknown=unknown)
    # What the trimap knows does not count.
    row.ground_truth[:, -3:] = 0.5
    found = {
        text.get_text(): text.get_fontweight()
        for text in draw_comparison([row]).texts
        if 'SAD' in text.get_text()
    }
    sads = [
        matting_errors(np.uint8(255 * x), row.ground_truth, row.trimap)[0]
        for x in row.predictions.values()
    ]
    assert sads[1] > 0.05
    weights = 'bold', 'normal', 'normal'
    assert found == {f'SAD {x:.3f}': w for x, w in zip(sads, weights)}


# ---- where mattes differ, and how much --------------------------------------


def test_boxes_lie_where_unknown_alpha_differs_most():
    row = ramp()
    first, second = row.predictions.values()
    weights = disagreement(row, 0)
    np.testing.assert_allclose(weights, abs(first - second), atol=1e-6)
    second[:, :5] = 1
    assert not disagreement(row, 0)[:, :5].any()
    second[40:44, 30:34] = 1
    ((x, y, w, h),) = find_boxes(disagreement(row, 0), 1)
    assert x <= 30 and x + w >= 34 and y <= 40 and y + h >= 44
    # Image, trimap, truth and two operators, whole and enlarged.
    assert len(shown(draw_comparison([row], zooms=1))) == 5 * 2


@pytest.mark.parametrize('truth', [True, False])
def test_differences_are_those_of_unknown_alpha(truth):
    row = ramp(truth=truth, operators=3)
    if truth:
        row.ground_truth[:, -3:] = 0.5
    figure = draw_comparison([row], difference=True, zooms=0)
    title = 'error of alpha' if truth else 'difference of alpha'
    assert title in texts(figure)
    parts = 0.1 * np.arange(0 if truth else 1, 3)
    alpha = row.predictions['operator 0']
    for pixels, part in zip(shown(figure)[-len(parts) :], parts, strict=True):
        errors = part * alpha * (row.trimap == 128)
        expected = error_colors().to_rgba(errors, bytes=True)[..., :3]
        assert abs(pixels.astype(int) - expected).max() <= 2


# ---- composites -------------------------------------------------------------


def test_a_composite_has_little_of_the_old_background():
    row = ramp()
    alpha = row.ground_truth
    pixels = composite(row.image, alpha, cover(GREEN, row.image))
    share = alpha[..., None]
    expected = share * FRONT + (1 - share) * GREEN
    plain = share * row.image + (1 - share) * GREEN
    assert abs(plain - expected).max() > 45
    assert abs(pixels - expected).max() < 18
    np.testing.assert_array_equal(pixels[alpha == 1], row.image[alpha == 1])
    assert (pixels[alpha == 0] == GREEN).all()


def test_composites_are_drawn_by_each_matte():
    row = ramp()
    figure = draw_comparison([row], background=GREEN, zooms=0)
    assert 'new background' in texts(figure)
    # Below image, trimap, truth and two mattes.
    behind, *maps = shown(figure)[5:]
    assert (behind == GREEN).all()
    mattes = row.ground_truth, *row.predictions.values()
    for pixels, alpha in zip(maps, mattes, strict=True):
        expected = composite(row.image, alpha, behind)
        np.testing.assert_array_equal(pixels, expected)
    # They are enlarged, and the background is not.
    figure = draw_comparison([row], background=GREEN, zooms=1)
    assert len(shown(figure)) == 5 * 2 + 4 + 3


@pytest.mark.parametrize('size', [(9, 7), (40, 300), (301, 20), (48, 64)])
def test_a_background_covers_images_of_any_size(size):
    image = np.zeros((48, 64, 3), np.uint8)
    picture = np.zeros((*size, 3), np.uint8)
    picture[:, size[1] // 2 :] = 255
    behind = cover(picture, image)
    assert behind.shape == image.shape
    # Its middle stays in the middle, within a pixel of the picture.
    edge = (behind[..., 0] > 127).argmax(1) - 32
    assert abs(edge).max() <= max(1, 64 / size[1])


# ---- the figure -------------------------------------------------------------


@pytest.mark.parametrize(('truth', 'operators'), [(True, 2), (False, 1)])
def test_nothing_is_cut_or_lies_on_another(truth, operators):
    rows = [
        ramp(*size, truth=truth, operators=operators)
        for size in ((31, 200), (120, 20))
    ]
    figure = draw_comparison(rows, difference=True, background=GREEN)
    figure.draw_without_rendering()
    unit = figure.transFigure.inverted()
    maps = [axis.get_position() for axis in figure.axes]
    bars = [axis for axis in figure.axes if axis.get_xticks().size]
    labels = [text for axis in bars for text in axis.get_xticklabels()]
    words = [
        text.get_window_extent().transformed(unit)
        for text in (*figure.texts, *labels)
    ]
    assert len(bars) == (2 if truth else 0)
    for i, place in enumerate(maps + words):
        assert -1e-3 < place.x0 < place.x1 < 1 + 1e-3
        assert 0 < place.y0 < place.y1 < 1
        assert not any(place.overlaps(other) for other in (maps + words)[:i])


def test_the_same_mattes_give_the_same_bytes_and_stay_as_they_are():
    row, copy = ramp(operators=1), ramp(operators=1)
    options = dict(difference=True, background=row.image[::2])
    first, second = (
        bytes_of(draw_comparison([row], **options)) for _ in range(2)
    )
    assert first == second
    for a, b in (
        (row.image, copy.image),
        (row.trimap, copy.trimap),
        (row.ground_truth, copy.ground_truth),
        *zip(row.predictions.values(), copy.predictions.values()),
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(trimap=None), 'ramp: expected trimaps in all rows or in none'),
        (
            dict(trimap=np.zeros((48, 60), np.uint8)),
            r'a trimap of uint8 at .* \[48, 64\], got uint8, \[48, 60\]',
        ),
        (dict(trimap=np.zeros((48, 64))), 'got float64'),
        (
            dict(ground_truth=np.ones((40, 64))),
            r'the matte of the ground truth at .*\[48, 64\], got \[40, 64\]',
        ),
        (dict(ground_truth=np.ones((48, 64), int)), 'floats in the matte of'),
        (dict(ground_truth=np.full((48, 64), 255.0)), 'got 255.0 to 255.0'),
        (
            dict(ground_truth=np.full((48, 64), np.nan)),
            'from 0 to 1 in the matte of the ground truth, got nan',
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        draw_comparison([ramp(), ramp()._replace(**change)])


def test_only_mattes_have_another_background():
    labels = np.zeros((8, 8), int)
    row = Comparison(np.zeros((8, 8, 3), np.uint8), dict(a=labels))
    with pytest.raises(ValueError, match='expected mattes, .* got labels'):
        draw_comparison([row], [(0, 0, 0)], background=GREEN)
