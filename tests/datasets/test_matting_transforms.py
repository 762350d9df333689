"""Loading of mattes, and the steps from a foreground to an image."""

import cv2
import numpy as np
import pytest

from mmsapa.datasets.foreground_transforms import (
    CompositeForeground,
    JitterForeground,
    RandomForegroundFlip,
    RandomMattingAffine,
    RandomSquareResize,
)
from mmsapa.datasets.matting_transforms import (
    CompositeImage,
    CropAroundUnknown,
    GenerateTrimap,
    enlarge_to_cover,
    make_trimap,
)
from mmsapa.engine.config import ConfigError

STEPS = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def write(path, pixels):
    cv2.imwrite(str(path), pixels)
    return str(path)


def refused(step, results):
    with pytest.raises(ConfigError) as caught:
        step(results)
    return str(caught.value)


@pytest.fixture(autouse=True)
def numpy_seed():
    np.random.seed(0)


def sample(height=40, width=60):
    """Red is the row, green the column; alpha is a soft disk."""
    rows, columns = np.mgrid[:height, :width]
    fg = np.stack([0 * rows, columns, rows], 2).astype(np.uint8)
    far = np.hypot(rows - height / 2, columns - width / 2)
    alpha = ((min(height, width) / 3 - far) / 4).clip(0, 1)
    return dict(fg=fg, alpha=alpha.astype(np.float32))


# -------------------------------------------------------------- foregrounds


def other(tmp_path, alpha, value=200):
    fg = np.full((*alpha.shape, 3), value, np.uint8)
    return dict(
        fg_path=write(tmp_path / 'fg.png', fg),
        alpha_path=write(tmp_path / 'alpha.png', alpha),
    )


def test_a_second_foreground_lies_behind_the_first(tmp_path):
    behind = np.zeros((20, 30), np.uint8)
    behind[:, 10:] = 128
    results = dict(sample(), other=other(tmp_path, behind))
    first = sample()
    found = CompositeForeground(prob=1)(results)
    second = np.repeat(np.repeat(behind / 255, 2, 0), 2, 1)
    alpha = 1 - (1 - first['alpha']) * (1 - second)
    np.testing.assert_allclose(found['alpha'], alpha, atol=1e-6)
    expected = first['fg'] * first['alpha'][..., None]
    expected = expected + 200 * ((1 - first['alpha']) * second)[..., None]
    expected /= alpha[..., None] + 1e-5
    np.testing.assert_allclose(found['fg'], expected, rtol=1e-4, atol=1e-3)
    assert found['fg'].dtype == found['alpha'].dtype == np.float32


def test_a_second_foreground_never_makes_all_opaque(tmp_path):
    opaque = np.full((20, 30), 255, np.uint8)
    results = dict(sample(), other=other(tmp_path, opaque))
    found = CompositeForeground(prob=1)(results)
    np.testing.assert_array_equal(found['alpha'], sample()['alpha'])
    np.testing.assert_array_equal(found['fg'], sample()['fg'])


def test_steps_are_left_out_as_often_as_they_say(tmp_path):
    lone = np.zeros((20, 30), np.uint8)
    results = dict(sample(), other=other(tmp_path, lone))
    taken = [
        CompositeForeground()(dict(results))['fg'].dtype == np.float32
        for _ in range(100)
    ]
    assert 30 < sum(taken) < 70
    shapes = [
        RandomSquareResize(size=32)(sample())['alpha'].shape
        for _ in range(100)
    ]
    assert 10 < shapes.count((32, 32)) < 45
    assert 10 + shapes.count((40, 60)) + shapes.count((32, 32)) == 110
    flip = RandomForegroundFlip()
    flipped = [flip(sample())['fg'][0, 0, 1] == 59 for _ in range(100)]
    assert 30 < sum(flipped) < 70


def test_colors_and_alpha_go_the_same_way():
    """Every pixel is one of the original, or nothing."""
    for _ in range(8):
        results = sample(90, 120)
        alpha = results['alpha'].copy()
        for step in (
            RandomMattingAffine(turn_from=100),
            RandomForegroundFlip(),
            RandomSquareResize(size=64, prob=0.5),
        ):
            results = step(results)
        rows, columns = results['fg'][..., 2], results['fg'][..., 1]
        inside = (rows > 0) & (columns > 0)
        assert inside.mean() > 0.3
        np.testing.assert_array_equal(
            results['alpha'][inside], alpha[rows, columns][inside]
        )


def test_affine_maps_have_the_ranges_of_a2u():
    affine = RandomMattingAffine()
    center = np.array([511.5, 349.5, 1])
    drawn = np.array([affine.draw(700, 1024) for _ in range(400)])
    # About the center.
    np.testing.assert_allclose(drawn @ center, [center[:2]] * 400)
    widths = np.linalg.norm(drawn[:, :, 0], axis=1)
    assert 0.8 <= widths.min() < 0.82 and 1.22 < widths.max() <= 1.25
    heights = abs(np.linalg.det(drawn[:, :, :2])) / widths
    assert 0.8 <= heights.min() < 0.82 and 1.22 < heights.max() <= 1.25
    assert abs(np.corrcoef(widths, heights)[0, 1]) < 0.2
    # Mirrored on either axis, hence upside down too.
    assert 0.4 < (np.linalg.det(drawn[:, :, :2]) < 0).mean() < 0.6
    assert 0.4 < (drawn[:, 0, 0] < 0).mean() < 0.6
    angles = np.degrees(np.arctan(drawn[:, 1, 0] / drawn[:, 0, 0]))
    assert 25 < abs(angles).max() <= 30
    # Small ones are not turned, but sheared.
    small = np.array([affine.draw(700, 1023) for _ in range(400)])
    assert not small[:, 1, 0].any()
    shears = np.degrees(np.arctan(small[:, 0, 1] / small[:, 1, 1]))
    assert 9 < abs(shears).max() <= 10


def test_colors_jitter_in_hsv():
    hsv = np.random.uniform((0, 0.2, 0.2), (360, 0.9, 0.9), (50, 50, 3))
    hsv = hsv.astype(np.float32)
    hsv[:25, :, 1:] = 1
    fg = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    alpha = np.ones((50, 50), np.float32)
    alpha[:25] = 0  # whose colors do not count in the means
    turns, grown = [], []
    for _ in range(60):
        found = JitterForeground()(dict(fg=fg, alpha=alpha))['fg']
        assert 0 <= found.min() and found.max() < 255.01
        after = cv2.cvtColor(found / 255, cv2.COLOR_BGR2HSV)
        turn = (after[25:, :, 0] - hsv[25:, :, 0] + 180) % 360 - 180
        turns.append(np.median(turn))
        assert abs(turn - turns[-1]).max() < 0.1
        grown.append(np.median(after[25:, :, 1:] - hsv[25:, :, 1:], (0, 1)))
    np.testing.assert_allclose(turns, np.round(turns), atol=0.01)
    assert -40 <= min(turns) < -30 and 30 < max(turns) <= 39.01
    most = (1.1 - hsv[25:, :, 1:].mean((0, 1))) / 10
    grown = abs(np.array(grown)).max(0)
    assert (0.85 * most < grown).all() and (grown < most + 1e-3).all()
    # Colors of nothing are left alone.
    nothing = dict(fg=fg, alpha=0 * alpha)
    assert JitterForeground()(nothing)['fg'] is fg


def test_saturation_and_value_fold_back_at_their_limits(monkeypatch):
    full = np.float32([[[0, 0, 255]]])
    alpha = np.ones((1, 1), np.float32)
    jitter = JitterForeground()
    monkeypatch.setattr(jitter, 'draw', lambda: (0, np.array([1.0, 1.0])))
    found = jitter(dict(fg=full, alpha=alpha))['fg']
    # 1 + 0.01 becomes 0.99 in both.
    np.testing.assert_allclose(
        found[0, 0], [255 * 0.99 * 0.01] * 2 + [255 * 0.99], atol=0.01
    )


# ----------------------------------------------------------- trimap and crop


def eroded(known, size):
    """Pixels whose ellipse of this diameter holds known pixels alone."""
    reach = size // 2
    height, width = known.shape
    found = np.zeros_like(known)
    for y in range(height):
        for x in range(width):
            inside = [
                known[y + v, x + u]
                for v in range(-reach, size - reach)
                for u in range(-reach, size - reach)
                if 0 <= y + v < height
                and 0 <= x + u < width
                and abs(u) <= round((reach**2 - v**2) ** 0.5)
            ]
            found[y, x] = all(inside)
    return found


@pytest.mark.parametrize('sizes', [(1, 1), (5, 1), (1, 9), (7, 3)])
def test_trimaps_are_eroded_by_ellipses(sizes):
    alpha = sample(36, 30)['alpha']
    trimap = make_trimap(alpha, *sizes)
    foreground, background = (
        eroded(known, size)
        for known, size in zip((alpha == 1, alpha == 0), sizes)
    )
    assert foreground.any() and background.any()
    np.testing.assert_array_equal(trimap == 255, foreground)
    np.testing.assert_array_equal(trimap == 0, background)
    assert set(np.unique(trimap)) == {0, 128, 255}


def test_alpha_is_known_within_a_margin():
    close = np.float32([[5e-6, 1 - 5e-6, 2e-5, 1 - 2e-5]])
    assert make_trimap(close, 1, 1).tolist() == [[0, 255, 128, 128]]


def test_both_sizes_of_a_trimap_are_random():
    step = GenerateTrimap()
    drawn = np.array([step.draw() for _ in range(400)])
    assert drawn.min() == 1 and drawn.max() == 29
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.2
    assert step(sample())['trimap'].dtype == np.uint8
    with pytest.raises(ValueError, match='kernel_size to be a range'):
        GenerateTrimap(kernel_size=(0, 5))


def to_crop(height, width, unknown, bg=None):
    results = sample(height, width)
    results['trimap'] = np.zeros((height, width), np.uint8)
    for row, column in unknown:
        results['trimap'][row, column] = 127
    if bg is None:
        bg = results['fg'].copy()
    return dict(results, bg=bg)


def test_crops_lie_around_unknown_pixels():
    crop = CropAroundUnknown(crop_size=16)
    unknown = [(20 + i, 41) for i in range(10)]
    tops = set()
    for _ in range(60):
        found = crop(to_crop(64, 80, [*unknown, (2, 2)]))
        assert all(x.shape[:2] == (16, 16) for x in found.values())
        # The pixel is in the middle, and all maps are cut alike.
        assert found['fg'][0, 0, 1] == found['bg'][0, 0, 1] == 41 - 8
        tops.add(int(found['fg'][0, 0, 2]) + 8)
        assert found['trimap'][8, 8] == 127
    assert tops == {row for row, _ in unknown}


def test_few_unknown_pixels_let_the_crop_lie_anywhere():
    crop = CropAroundUnknown(crop_size=16)
    unknown = [(15 + i, 40) for i in range(9)]
    unknown += [(i, 0) for i in range(40)]  # too close to a border
    corners = {
        tuple(crop(to_crop(40, 60, unknown))['fg'][0, 0, 1:])
        for _ in range(300)
    }
    rows, columns = ({c[i] for c in corners} for i in (1, 0))
    assert min(rows) == 0 and max(rows) == 24
    assert min(columns) == 0 and max(columns) == 44


def test_without_unknown_pixels_the_whole_is_resized():
    results = to_crop(40, 60, [])
    expected = cv2.resize(
        results['fg'], (16, 16), interpolation=cv2.INTER_NEAREST
    )
    found = CropAroundUnknown(crop_size=16)(results)
    np.testing.assert_array_equal(found['fg'], expected)
    assert found['bg'].shape == (16, 16, 3)


@pytest.mark.parametrize('size', [(16, 30), (9, 12), (50, 5)])
def test_small_images_and_backgrounds_are_enlarged(size):
    bg = np.full((7, 11, 3), 90, np.uint8)
    unknown = [(y, x) for y in range(size[0]) for x in range(size[1])]
    crop = CropAroundUnknown(crop_size=16)
    results = crop(to_crop(*size, unknown, bg))
    assert all(x.shape[:2] == (16, 16) for x in results.values())
    # 1.1 times the square on the shorter side.
    pixels = np.unique(results['fg'][..., 1 if size[1] < size[0] else 2])
    assert len(pixels) == pytest.approx(min(size) * 16 / 17.6, abs=1)
    assert (results['bg'] == 90).all()


def test_backgrounds_keep_their_aspect():
    image = np.zeros((10, 20, 3), np.uint8)
    assert enlarge_to_cover(image, 10, 7) is image
    assert enlarge_to_cover(image, 33, 21).shape == (33, 66, 3)
    assert enlarge_to_cover(image, 5, 21).shape == (11, 21, 3)


# ---------------------------------------------------- the image, and its pack


def test_images_are_not_rounded():
    results = CompositeImage()(
        dict(
            fg=np.full((2, 2, 3), 100, np.uint8),
            bg=np.full((2, 2, 3), 33, np.uint8),
            alpha=np.full((2, 2), 0.3, np.float32),
        )
    )
    assert results['img'].dtype == np.float32
    np.testing.assert_allclose(results['img'], 30 + 23.1, rtol=1e-6)
    assert results['img_shape'] == (2, 2)


@pytest.mark.parametrize(
    ('step', 'arguments', 'words'),
    [
        (CompositeForeground, dict(prob=2), 'prob from 0 to 1, got 2'),
        (RandomMattingAffine, dict(flip_prob=-1), 'prob from 0 to 1, got -1'),
        (RandomMattingAffine, dict(scale=(2, 1)), 'scale to be a range'),
    ],
)
def test_bad_arguments_are_named(step, arguments, words):
    with pytest.raises(ValueError, match=f'{step.__name__}: .*{words}'):
        step(**arguments)
