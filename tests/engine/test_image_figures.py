import numpy as np
import pytest

from mmsapa.datasets.composition1k import Composition1kDataset
from mmsapa.engine.config import ConfigError
from mmsapa.engine.image_figures import compare_pairs, figures_by_class
from mmsapa.evaluation.paired import parts_of


@pytest.fixture
def run(tmp_path):
    """Make up what is measured of the images of a run."""

    def run(name, **parts):
        path = tmp_path / f'{name}.npz'
        np.savez(path, **parts)
        return path

    return run


def test_the_better_one_has_more_or_less_as_the_figure_is(run):
    figures = np.array([1.0, 2.0, np.nan, 4.0])
    ours, theirs = (
        [
            run(f'{name}-{seed}', d1=parts_of(x), abs_rel=parts_of(x))
            for seed, x in enumerate(runs)
        ]
        for name, runs in dict(
            ours=(figures + 1, figures + 2, figures), theirs=[figures] * 3
        ).items()
    )
    found = compare_pairs(ours, theirs)
    assert found.keys() == {'d1', 'abs_rel'}
    assert found['d1']['difference'] == pytest.approx(1)
    assert found['d1']['low'] < 1 < found['d1']['high']
    assert (found['d1']['better'], found['abs_rel']['better']) == (2, 0)
    same = dict(difference=0, low=0, high=0, better=0)
    assert compare_pairs(ours, ours) == dict(d1=same, abs_rel=same)


def test_small_differences_are_kept(run):
    figures = np.linspace(0.002, 0.006, 9)
    theirs = [run('theirs', MSE=parts_of(figures))]
    ours = [run('ours', MSE=parts_of(figures - 4e-5))]
    found = compare_pairs(ours, theirs)['MSE']
    assert found['difference'] == pytest.approx(-4e-5, rel=1e-4)
    assert found['low'] <= found['high'] < 0


def test_classes_are_compared_one_by_one(run):
    union = np.random.default_rng(0).integers(50, 99, (9, 3))
    union[:, 2] = 0
    theirs, ours = (
        run(name, mIoU=np.stack([share * union, union], 1))
        for name, share in (('theirs', [50, 50, 0]), ('ours', [60, 50, 0]))
    )
    found = compare_pairs([ours], [theirs])['mIoU']
    assert (found['difference'], found['better']) == (5, 1)
    ends = [10, 0, None]
    assert found['classes'] == dict(low=ends, high=ends)


def test_classes_have_the_ratio_of_their_sums_or_none(run):
    parts = np.array([[[100, 0], [4, 0]], [[50, 0], [2, 0]]])
    assert figures_by_class(run('run', mIoU=parts)) == dict(mIoU=[25, None])


def test_composites_of_a_foreground_are_drawn_together(run):
    figures = np.random.default_rng(0).normal(0, 1, 5).repeat(20)
    groups = [
        Composition1kDataset.group_of(f'{i // 20}_{i}.png') for i in range(100)
    ]

    def compare(**more):
        ours = run('ours', SAD=parts_of(5 + figures), **more)
        theirs = run('theirs', SAD=parts_of(np.full(100, 5.0)), **more)
        return compare_pairs([ours], [theirs])['SAD']

    alone, together = compare(), compare(groups=groups)
    assert alone['difference'] == together['difference']
    width = together['high'] - together['low']
    assert width > 3 * (alone['high'] - alone['low'])


@pytest.mark.parametrize('others', [list('abd'), list('ab')])
def test_runs_with_other_images_are_named(run, others):
    ours, theirs = (
        run(name, d1=parts_of(np.ones(len(images))), images=images)
        for name, images in (('ours', list('abc')), ('theirs', others))
    )
    words = 'theirs.npz: expected the test images of .*ours.npz, got others'
    with pytest.raises(ConfigError, match=words):
        compare_pairs([ours], [theirs])
