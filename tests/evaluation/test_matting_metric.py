"""SAD, MSE, Grad and Conn against loops that spell out the definitions."""

import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import PixelData

from mmsapa.evaluation import MattingMetric
from mmsapa.evaluation.matting_metric import connectivity, matting_errors
from mmsapa.matting import MattingDataSample

SIZE = 10, 13


# ---------------------------------------------------------------- the oracle


def slow_errors(pred, true, trimap):
    """The four figures, in steps of 1 / 255, by loops over pixels."""
    # Integers of 8 bits overflow.
    pred, true = pred.astype(int), true.astype(int)
    height, width = trimap.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    counted = [at for at in pixels if trimap[at] not in (0, 255)]
    off = [(pred[at] - true[at]) / 255 for at in counted]
    slopes = [slow_slopes(alpha) for alpha in (pred, true)]
    links = slow_links(pred, true, pixels)
    return [
        sum(map(abs, off)) / 1000,
        sum(x * x for x in off) / len(counted),
        sum((slopes[0][at] - slopes[1][at]) ** 2 for at in counted) / 1000,
        sum(abs(links[0][at] - links[1][at]) for at in counted) / 1000,
    ]


def slow_slopes(alpha):
    low, high = alpha.min(), alpha.max()
    alpha = (alpha - low) / (high - low) if high > low else alpha / 255
    height, width = alpha.shape
    reach = range(-4, 5)
    kernel = {
        (u, v): -v * math.exp(-(u * u + v * v) / (2 * 1.4**2))
        for u in reach
        for v in reach
    }
    norm = math.sqrt(sum(value**2 for value in kernel.values()))
    found = np.zeros(alpha.shape)
    for y in range(height):
        for x in range(width):
            gx = gy = 0
            for (u, v), weight in kernel.items():
                row = min(max(y + u, 0), height - 1)
                column = min(max(x + v, 0), width - 1)
                gx += alpha[row, column] * weight / norm
                gy += alpha[row, column] * kernel[v, u] / norm
            found[y, x] = math.hypot(gx, gy)
    return found


def slow_links(pred, true, pixels):
    """φ of both mattes, thresholds in tenths compared as integers."""
    level = dict.fromkeys(pixels)
    for tenth in range(1, 11):
        both = {
            at for at in pixels if 10 * min(pred[at], true[at]) >= 255 * tenth
        }
        if not both:
            continue
        largest = max(slow_regions(both), key=len)
        for at in pixels:
            if level[at] is None and at not in largest:
                level[at] = (tenth - 1) / 10
    found = []
    for alpha in (pred, true):
        links = {}
        for at in pixels:
            depth = alpha[at] / 255 - (1 if level[at] is None else level[at])
            links[at] = 1 - depth if depth >= 0.15 else 1
        found.append(links)
    return found


def slow_regions(pixels):
    """4-connected regions, ordered by their first pixel column by column."""
    left, regions = set(pixels), []
    for start in sorted(pixels, key=lambda at: at[::-1]):
        if start not in left:
            continue
        left.remove(start)
        region, border = {start}, [start]
        while border:
            y, x = border.pop()
            for at in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if at in left:
                    left.remove(at)
                    region.add(at)
                    border.append(at)
        regions.append(region)
    return regions


# --------------------------------------------------------------------- mattes


def matte(seed, smooth=1.5):
    noise = np.random.default_rng(seed).random(SIZE)
    noise = cv2.GaussianBlur(noise, (0, 0), smooth)
    low, high = np.percentile(noise, (25, 75))
    noise = ((noise - low) / (high - low)).clip(0, 1)
    return (255 * noise).astype(np.uint8)


def trimap_of(seed):
    return np.random.default_rng(seed).choice(
        np.array([0, 127, 128, 200, 255], np.uint8), SIZE
    )


def check(pred, true, trimap):
    found = matting_errors(pred, true / np.float32(255), trimap)
    assert found == pytest.approx(
        slow_errors(pred, true, trimap), rel=1e-5, abs=1e-9
    )
    return dict(zip(('SAD', 'MSE', 'Grad', 'Conn'), found))


@pytest.mark.parametrize('seed', range(6))
def test_random_mattes_have_the_errors_of_the_loops(seed):
    # Without smoothing, regions are small and many of the same size.
    smooth = 0.01 if seed % 2 else 1.5
    pred, true = matte(seed, smooth), matte(seed + 100, smooth)
    found = check(pred, true, trimap_of(seed))
    assert min(found.values()) > 0


def test_all_is_unknown():
    pred, true = matte(0), matte(1)
    found = check(pred, true, np.full(SIZE, 128, np.uint8))
    off = (pred.astype(float) - true) / 255
    assert found['SAD'] == pytest.approx(abs(off).sum() / 1000)
    assert found['MSE'] == pytest.approx((off**2).mean())


@pytest.mark.parametrize('value', [0, 100, 255])
def test_a_constant_matte_has_no_slope(value):
    constant, unknown = np.full(SIZE, value, np.uint8), trimap_of(3)
    check(constant, matte(1), unknown)
    check(matte(1), constant, unknown)
    assert check(constant, constant, unknown) == dict(
        SAD=0, MSE=0, Grad=pytest.approx(0), Conn=0
    )


def test_thresholds_without_a_common_region_are_skipped():
    """The mattes share nothing from 0.5 on, but their l is open up to 1."""
    pred, true = matte(0), matte(1)
    pred[:, 8:] //= 2
    true[:, :8] //= 2
    check(pred, true, trimap_of(0))
    low = np.full(SIZE, 120, np.uint8)
    assert check(pred, low, trimap_of(0))['Conn'] > 0
    # Where no threshold has one, nothing is less connected than 1.
    dark = np.full(SIZE, 25, np.uint8)
    found = connectivity(dark / np.float32(255), matte(0) / np.float32(255))
    assert (found[0] == 1).all() and (found[1] == 1).all()


def test_values_on_a_threshold_reach_it():
    """51 / 255 is 0.2, also in floats."""
    steps = np.array([51, 102, 153, 204, 255], np.uint8)
    pred = np.random.default_rng(0).choice(steps, SIZE)
    check(pred, np.full(SIZE, 255, np.uint8), trimap_of(0))


def test_of_regions_as_large_the_first_by_columns_counts():
    """Two plateaus of one size, and a bridge between them."""
    pred = np.full(SIZE, 64, np.uint8)
    true = pred.copy()
    pred[:3, 9:], true[:3, 9:] = 153, 230
    pred[7:, :4], true[7:, :4] = 230, 204
    assert check(pred, true, np.full(SIZE, 128, np.uint8))['Conn'] > 0
    check(pred.T.copy()[:10], true.T.copy()[:10], trimap_of(0)[:, :10])


# ----------------------------------------------------------------- the metric


def sample(pred, true, trimap, path='a.png'):
    """A data sample as the evaluator hands it over."""
    found = MattingDataSample(metainfo=dict(img_path=path))
    for key, value in dict(
        pred_alpha=pred, gt_alpha=true, trimap=trimap
    ).items():
        if value is not None:
            data = torch.as_tensor(np.array(value))[None]
            setattr(found, key, PixelData(data=data))
    return found.to_dict()


def figures(*samples, **kwargs):
    metric = MattingMetric(**kwargs)
    for one in samples:
        metric.process({}, [sample(*one)])
    return metric.evaluate(len(samples))


def floats(steps):
    return steps / np.float32(255)


@pytest.fixture
def log(caplog):
    """mmengine's logger does not hand on what it logs."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_an_exact_matte_has_no_error():
    """Though floats of steps are cut off to steps again."""
    true = floats(np.arange(256, dtype=np.uint8).reshape(16, 16))
    found = figures((true, true, np.full((16, 16), 127, np.uint8)))
    assert set(found.values()) == {0}


def test_predictions_are_cut_off_clipped_and_replaced_where_known():
    true = np.full(SIZE, 100, np.uint8)
    trimap = np.full(SIZE, 128, np.uint8)
    pred = np.full(SIZE, 100.99 / 255, np.float32)
    assert figures((pred, floats(true), trimap))['SAD'] == 0
    pred[0] = (-3, 7, math.nan, *pred[0, 3:])
    steps = true.copy()
    steps[0, :3] = 0, 255, 0
    trimap[5:7], trimap[7:9] = 0, 255
    steps[5:7], steps[7:9] = 0, 255
    found = figures((pred, floats(true), trimap))
    expected = slow_errors(steps, true, trimap)
    assert [*found.values()] == pytest.approx(expected, rel=1e-5)
    assert [*found] == ['SAD', 'MSE', 'Grad', 'Conn']


def test_the_mean_is_that_of_images():
    pairs = [(floats(matte(i)), floats(matte(9 - i))) for i in range(3)]
    trimaps = [trimap_of(i) for i in range(3)]
    trimaps[0][3:] = 0  # fewer pixels do not weigh less
    samples = [(*pair, trimap) for pair, trimap in zip(pairs, trimaps)]
    alone = [figures(one) for one in samples]
    for name, value in figures(*samples).items():
        assert value == pytest.approx(np.mean([x[name] for x in alone]))


def test_images_without_unknown_pixels_are_left_out_and_counted(log):
    good = floats(matte(0)), floats(matte(1)), trimap_of(0)
    known = floats(matte(2)), floats(matte(3)), np.zeros(SIZE, np.uint8)
    assert figures(known, good) == figures(good)
    assert '1 of 2 images have no unknown pixel in their trimap' in log.text
    assert all(map(math.isnan, figures(known).values()))


def test_it_keeps_four_numbers_of_an_image_and_drops_padding():
    """Processes pad their share; mmengine drops what is beyond the data."""
    metric = MattingMetric()
    one = sample(floats(matte(0)), floats(matte(1)), trimap_of(0))
    two = sample(floats(matte(2)), floats(matte(3)), trimap_of(1))
    metric.process({}, [one, two])
    metric.process({}, [one])
    assert all(type(x) is float for row in metric.results for x in row)
    assert [len(row) for row in metric.results] == [4] * 3
    expected = figures(
        (floats(matte(0)), floats(matte(1)), trimap_of(0)),
        (floats(matte(2)), floats(matte(3)), trimap_of(1)),
    )
    assert metric.evaluate(2) == expected


def test_it_works_within_an_evaluator(scope):
    scope('mmsapa')
    evaluator = Evaluator(dict(type='MattingMetric'))
    data = MattingDataSample(metainfo=dict(img_path='a.png'))
    data.pred_alpha = PixelData(data=torch.full((1, 4, 4), 0.5))
    data.gt_alpha = PixelData(data=torch.ones(1, 4, 4))
    data.trimap = PixelData(data=torch.full((1, 4, 4), 128).byte())
    evaluator.process([data])
    found = evaluator.evaluate(1)
    assert found['SAD'] == pytest.approx(16 * (1 - 127 / 255) / 1000)


def test_what_does_not_fit_is_named():
    ones = np.ones((4, 6), np.float32)
    trimap = np.full((4, 6), 128, np.uint8)
    with pytest.raises(ValueError) as caught:
        figures((ones, np.ones((8, 12), np.float32), trimap))
    assert str(caught.value) == (
        'a.png: expected gt_alpha of the size of the prediction, 6 x 4, got '
        '12 x 8; load it after the transforms that resize images.'
    )
    with pytest.raises(ValueError, match='a.png: expected trimap to measure'):
        figures((ones, ones, None))
    with pytest.raises(ValueError, match='a folder for them in output_dir'):
        MattingMetric(format_only=True)


def test_predictions_are_written_cut_off(tmp_path):
    metric = MattingMetric(output_dir=str(tmp_path), format_only=True)
    pred = np.array([[0.999, 0.5, 0.2, -1]], np.float32)
    trimap = np.array([[128, 127, 0, 255]], np.uint8)
    metric.process({}, [sample(pred, None, trimap, '/data/a/x_0.jpg')])
    assert metric.evaluate(1) == {}
    (file,) = tmp_path.iterdir()
    assert file.name == 'x_0.png'
    written = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert written.tolist() == [[254, 127, 0, 255]]
    with pytest.raises(ValueError, match='name the folder of both'):
        metric.process({}, [sample(pred, None, trimap, '/data/b/x_0.png')])
