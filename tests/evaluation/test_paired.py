import numpy as np
import pytest
from scipy import stats

from mmsapa.evaluation.paired import (
    class_figures,
    mean_figure,
    paired_difference,
    parts_of,
)


def counts(*figures, images=40, union=1000):
    """Counts of one class with an IoU, in percent, of each seed and image."""
    spread = np.random.default_rng(1).integers(-20, 20, images)
    return np.stack(
        [
            [[[union * (figure + x)], [union]] for x in spread]
            for figure in figures
        ]
    )


def test_a_figure_is_made_of_sums_over_images_as_an_iou_is():
    parts = np.array(
        [
            [[100, 300, 0], [4, 10, 0]],
            [[0, 200, 0], [1, 10, 0]],
        ]
    )
    assert class_figures(parts).tolist()[:2] == [20, 25]
    assert np.isnan(class_figures(parts)[2])
    assert mean_figure(parts) == 22.5


def test_images_without_a_figure_do_not_count_in_a_mean():
    parts = parts_of(np.array([1, np.nan, 4.0]))
    assert parts.shape == (3, 2, 1)
    assert mean_figure(parts) == 2.5
    assert np.isnan(mean_figure(parts_of(np.array([np.nan]))))


def test_models_that_do_not_differ_have_no_difference():
    same = [counts(40, 50, 60)] * 2
    assert paired_difference(*same).tolist() == [0, 0, 0]


@pytest.mark.parametrize('seeds', [1, 3])
def test_a_gain_in_every_image_leaves_out_0(seeds):
    base = 40, 50, 60
    worse = counts(*base[:seeds])
    better = counts(*(x + 1 + x / 100 for x in base[:seeds]))
    difference, low, high = paired_difference(better, worse)
    assert difference == pytest.approx(1.4 if seeds == 1 else 1.5)
    assert 0 < low <= difference <= high < 3
    less, *ends = paired_difference(worse, better)
    assert less == -difference and ends[1] < 0


def test_seeds_that_disagree_include_0():
    difference, low, high = paired_difference(
        counts(42, 49, 63), counts(40, 50, 60)
    )
    assert difference == pytest.approx(4 / 3)
    assert low < 0 < difference < high


def test_with_images_alike_the_interval_is_that_of_the_t_test():
    gains = np.array([1.0, 2.5, 3.0, 1.5])
    base = np.array([40, 50, 60, 45])
    _, *ends = paired_difference(counts(*(base + gains)), counts(*base))
    expected = stats.ttest_1samp(gains, 0).confidence_interval()
    assert ends == pytest.approx([*expected], abs=0.02)


def test_with_one_seed_the_interval_is_that_of_the_images():
    gains = np.random.default_rng(2).normal(0.1, 1, 200)
    parts = [parts_of(x)[None] for x in (5 + gains, np.full(200, 5.0))]
    difference, *ends = paired_difference(*parts)
    assert difference == pytest.approx(gains.mean())
    width = 1.96 * gains.std() / 200**0.5
    expected = [difference - width, difference + width]
    assert ends == pytest.approx(expected, abs=0.01)


def test_each_class_has_the_interval_that_it_has_alone():
    classes = [
        [counts(40, 50), counts(41, 52)],
        [counts(70, 60, union=10), counts(60, 61, union=10)],
    ]
    both = (np.concatenate(pair, -1) for pair in zip(*classes))
    found = paired_difference(*both, by_class=True)
    expected = [paired_difference(*pair) for pair in classes]
    np.testing.assert_allclose(found.T, expected)


def test_a_class_that_is_in_few_images_or_none_is_left_out_of_draws():
    pair = [np.zeros((2, 5, 2, 3)) for _ in range(2)]
    for parts, figure in zip(pair, (60, 50)):
        parts[:, :, :, 0] = figure, 1
        parts[:, 0, :, 1] = figure, 1  # in a single image
    found = paired_difference(*pair, by_class=True)
    np.testing.assert_allclose(found[0], [10, 10, np.nan])
    # One image says nothing about others.
    np.testing.assert_allclose(found[1:], [[10, np.nan, np.nan]] * 2)
    np.testing.assert_allclose(paired_difference(*pair), [10, 10, 10])


def test_few_images_have_the_interval_of_the_t_test():
    # Symmetric, so that the bootstrap is nearly normal.
    gains = np.array([-4, -2, -1.5, -1, 1, 1.5, 2, 4]) + 0.3
    pair = [parts_of(x)[None] for x in (5 + gains, np.full(8, 5.0))]
    _, *ends = paired_difference(*pair)
    expected = stats.ttest_1samp(gains, 0).confidence_interval()
    assert ends == pytest.approx([*expected], abs=0.15)


def test_images_of_a_group_are_drawn_together():
    gains = np.random.default_rng(3).normal(0, 1, 12)
    alone = [parts_of(x)[None] for x in (5 + gains, np.full(12, 5.0))]
    four = [np.repeat(x, 4, axis=1) for x in alone]
    groups = np.repeat([f'name {x:02}' for x in range(12)], 4)
    expected = paired_difference(*alone)
    found = paired_difference(*four, groups=groups)
    np.testing.assert_allclose(found, expected)
    narrower = np.diff(paired_difference(*four)[1:])
    assert narrower < 0.6 * np.diff(expected[1:])


def test_runs_with_other_images_are_refused():
    with pytest.raises(ValueError, match=r'\(1, 40, 2, 1\) and \(1, 39,'):
        paired_difference(counts(50), counts(50, images=39))
