"""The pixels, marks and scores of figures of models side by side."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mmsapa.visualization import Comparison, Detections, draw_comparison
from mmsapa.visualization import comparison_maps as maps

PALETTE = np.array([(64, 64, 64), (86, 180, 233), (230, 159, 0)], np.uint8)
TRUTH = np.array([[0, 1], [2, 255]])


def color(name):
    return [round(255 * x) for x in to_rgb(name)]


def labels(**predictions):
    """A row of 2 x 2 pixels, the last of which does not count."""
    image = np.zeros((2, 2, 3), np.uint8)
    predictions = {k: np.array(v) for k, v in predictions.items()}
    return Comparison(image, predictions, TRUTH)


def boxes(*values, masks=None):
    values = np.array(values, float).reshape(-1, 5)
    return Detections(values[:, :4], values[:, 4].astype(int), masks)


def bold(figure, word):
    """Whether each score is bold, in the order of the columns."""
    found = [text for text in figure.texts if word in text.get_text()]
    return [text.get_fontweight() == 'bold' for text in found]


def test_a_label_has_its_color_and_what_does_not_count_is_gray():
    (first, second), (third, none) = maps.paint_labels(TRUTH, PALETTE).tolist()
    assert [first, second, third] == PALETTE.tolist()
    assert none in ([255] * 3, color(maps.NOT_COUNTED))


def test_a_difference_shows_who_is_right():
    row = labels(ours=[[0, 1], [0, 0]], theirs=[[0, 0], [2, 1]])
    ours, theirs = row.predictions.values()
    ((same, better), (worse, none)) = maps.paint_difference(
        row, ours, theirs, 3
    ).pixels.tolist()
    assert same == color(maps.SAME)
    assert better == color(maps.BETTER)
    assert worse == color(maps.WORSE)
    assert none in ([255] * 3, color(maps.NOT_COUNTED))
    wrong = np.ones((2, 2), int)
    painted = maps.paint_difference(row, wrong, wrong, 3).pixels
    assert painted[0, 0].tolist() == color(maps.WRONG)


def test_pixels_are_darker_the_more_models_differ():
    row = labels(a=[[0, 0], [0, 0]], b=[[0, 1], [1, 1]], c=[[0, 1], [2, 2]])
    pixels = maps.paint_disagreement(row, 3).pixels[..., 0]
    assert pixels[0, 0] == 255 == pixels[1, 1]  # where none counts
    assert pixels[1, 0] == 0 < pixels[0, 1] < 255


def test_found_false_and_missed_boxes_have_marks_of_their_own():
    truth = boxes((0, 0, 10, 10, 0), (20, 20, 30, 30, 1))
    found = boxes((0, 0, 10, 9, 0), (40, 40, 50, 50, 1))
    image = np.zeros((60, 60, 3), np.uint8)
    row = Comparison(image, dict(a=found), truth)
    marks = maps.paint_difference(row, found, found, 2).marks
    assert [(mark.box, mark.color) for mark in marks] == [
        ([0, 0, 10, 9], maps.BETTER),
        ([40, 40, 50, 50], maps.WORSE),
        ([20, 20, 30, 30], 'black'),
    ]


def test_masks_have_the_color_of_their_class():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 1, 2] = True
    found = boxes((2, 1, 3, 2, 1), masks=mask)
    row = Comparison(np.zeros((4, 4, 3), np.uint8), dict(a=found))
    pixels = maps.paint(row, found, PALETTE).pixels
    np.testing.assert_allclose(
        pixels[1, 2], 127 * 0.4 + PALETTE[1] * 0.6, atol=1
    )
    assert pixels[0, 0].tolist() == [127] * 3


def test_the_best_score_is_bold():
    row = labels(worse=[[0, 0], [0, 0]], best=TRUTH, none=[[1, 2], [1, 1]])
    assert bold(draw_comparison([row], PALETTE), 'mIoU') == [0, 1, 0]


@pytest.mark.parametrize('order', [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_prediction_without_a_score_leaves_the_mark_to_the_best(
    order, monkeypatch
):
    scores = {0: float('nan'), 1: 0.5, 2: 0.1}
    row = labels(**{f'model {i}': np.full((2, 2), i) for i in order})
    monkeypatch.setattr(
        maps,
        'score',
        lambda row, values, count: (scores[values[0, 0]], 'score'),
    )
    expected = [i == 1 for i in order]
    assert bold(draw_comparison([row], PALETTE), 'score') == expected


def test_depth_that_is_missing_counts_as_an_error():
    truth = np.full((8, 8), 2.0, np.float32)
    good, bad = truth * 1.05, truth * 0
    bad[0, 0] = 2
    row = Comparison(np.zeros((8, 8, 3), np.uint8), dict(a=good, b=bad), truth)
    figure = draw_comparison([row])
    assert bold(figure, 'AbsRel') == [1, 0]
    assert maps.score(row, bad, 0)[1] == 'AbsRel 0.984'
    assert maps.score(row, bad * np.nan, 0)[1] == 'AbsRel 0.999'


def test_where_there_is_nothing_to_find_finding_nothing_is_best():
    none, false = boxes(), boxes((0, 0, 9, 9, 0), (9, 9, 20, 20, 0))
    image = np.zeros((32, 32, 3), np.uint8)
    row = Comparison(image, dict(false=false, none=none), boxes())
    figure = draw_comparison([row], PALETTE)
    assert bold(figure, 'found') == [0, 1]


def test_label_maps_need_a_palette():
    row = labels(a=TRUTH)
    with pytest.raises(ValueError, match='expected a palette'):
        draw_comparison([row])
