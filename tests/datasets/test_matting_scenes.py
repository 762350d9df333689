"""Drawn foregrounds, their alpha, and their files."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmsapa.datasets.demo_data import make_dataset
from mmsapa.datasets.matting_canvas import Canvas
from mmsapa.datasets.matting_scenes import make_background, make_foreground


@pytest.fixture(scope='module')
def foregrounds():
    return [make_foreground(seed, 96) for seed in range(24)]


def test_foregrounds_have_parts_of_all_kinds(foregrounds):
    """Opaque ones, holes, and many pixels that are partly covered."""
    partly, holes = [], 0
    for color, alpha in foregrounds:
        assert color.shape == (96, 96, 3) and alpha.shape == (96, 96)
        assert color.dtype == alpha.dtype == np.uint8
        assert alpha.max() > 200
        assert 0.03 < (alpha > 0).mean() < 0.9
        partly.append(((alpha > 0) & (alpha < 255)).mean())
        # Background that does not reach the border.
        ground = np.pad((alpha < 30).astype(np.uint8), 1, constant_values=1)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(ground)
        inner = np.arange(1, len(stats)) != labels[0, 0]
        holes += (stats[1:, cv2.CC_STAT_AREA][inner] > 5).sum()
    assert min(partly) > 0.02 and np.mean(partly) > 0.1
    assert holes > 100


def test_composites_are_the_means_of_what_pixels_hold():
    """So that alpha is exact: as composed before it is made smaller."""
    rng = np.random.default_rng(0)
    canvas = Canvas(rng, 16)
    for _ in range(12):
        line = rng.random((3, 2))
        canvas.line(line, 0.6, rng.uniform(0, 255, 3).tolist())
    ground = rng.uniform(0, 255, 3)
    share = canvas.alpha[..., None] / 255
    fine = share * canvas.color + (1 - share) * ground
    expected = fine.reshape(16, 4, 16, 4, 3).mean((1, 3))
    color, alpha = canvas.reduce()
    share = alpha[..., None] / 255
    assert 0.2 < ((alpha > 0) & (alpha < 255)).mean()
    found = share * color + (1 - share) * ground
    np.testing.assert_allclose(found, expected, atol=1.5)


def test_colors_of_a_foreground_are_its_own(foregrounds):
    """Where little is covered, it is not mixed with anything black."""
    for color, alpha in foregrounds:
        thin = (alpha > 0) & (alpha < 100)
        if thin.sum() > 50:
            assert color[thin].mean() > 0.4 * color[alpha > 0].mean()


def test_scenes_depend_on_their_seed_alone():
    for make in make_foreground, make_background:
        one, two, other = (np.asarray(make(seed, 48)[0]) for seed in (5, 5, 6))
        np.testing.assert_array_equal(one, two)
        assert (one != other).any()


def test_grounds_are_textured():
    for seed in range(10):
        ground = make_background(seed, 64)
        assert ground.shape == (64, 64, 3) and ground.dtype == np.uint8
        assert ground.std((0, 1)).max() > 4


def test_files_are_a_composition_1k(tmp_path, scope):
    """Both halves load, and composites are what they were made of."""
    scope('mmsapa')
    make_dataset(str(tmp_path), 'comp1k', 6, 6, 48, nproc=1)
    cfg = dict(type='Composition1kDataset', data_root=f'{tmp_path}/comp1k')
    train, test = (
        DATASETS.build(dict(cfg, test_mode=mode)) for mode in (False, True)
    )
    assert len(train) == len(test) == 6
    alphas = {test.get_data_info(i)['alpha_path'] for i in range(6)}
    assert len(alphas) == 2
    trimaps = []
    for number in range(6):
        info = test.get_data_info(number)
        merged, alpha, trimap = (
            cv2.imread(info[key], cv2.IMREAD_UNCHANGED)
            for key in ('img_path', 'alpha_path', 'trimap_path')
        )
        assert merged.shape == (48, 48, 3) and alpha.shape == (48, 48)
        assert set(np.unique(trimap)) <= {0, 128, 255}
        # What is known is so.
        assert (alpha[trimap == 255] == 255).all()
        assert (alpha[trimap == 0] == 0).all()
        assert 0.02 < (trimap == 128).mean()
        trimaps.append(trimap)
        seed = np.random.SeedSequence(0, spawn_key=(1, number // 4 + 1))
        fg = make_foreground(seed, 48)
        np.testing.assert_array_equal(alpha, fg.alpha)
        solid = alpha == 255
        np.testing.assert_array_equal(merged[solid], fg.color[solid])
    assert any((trimaps[0] != x).any() for x in trimaps[1:4])
