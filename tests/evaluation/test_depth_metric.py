import math

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.config import Config  # noqa: E402
from mmengine.evaluator import Evaluator  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from mmsapa.engine.evaluation_options import prepare_test  # noqa: E402
from mmsapa.evaluation import DepthMetric  # noqa: E402
from mmsapa.evaluation.depth_boundaries import (  # noqa: E402
    boundary_errors,
    depth_edges,
)
from mmsapa.evaluation.depth_metric import crop_region  # noqa: E402

NAMES = (
    *('d1', 'd2', 'd3', 'abs_rel', 'sq_rel'),
    *('rmse', 'rmse_log', 'log10', 'silog'),
)
EXACT = dict.fromkeys(NAMES[:3], 1) | dict.fromkeys(NAMES[3:], 0)


def sample(pred, true, path='a.jpg'):
    """A data sample as the evaluator hands it over."""
    maps = dict(pred_depth_map=pred, gt_depth_map=true)
    return dict(
        {
            key: dict(data=torch.tensor(np.array(value, np.float32))[None])
            for key, value in maps.items()
            if value is not None
        },
        img_path=path,
    )


def figures(*pairs, **kwargs):
    """Measure images, each of what is predicted and what is true."""
    metric = DepthMetric(**kwargs)
    for pair in pairs:
        metric.process({}, [sample(*pair)])
    return metric.evaluate(len(pairs))


@pytest.fixture
def log(caplog):
    """mmengine's logger does not hand on what it logs."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def approx(**expected):
    return pytest.approx(expected, rel=1e-6, abs=1e-9)


# -------------------------------------------------------------------- by hand


def test_figures_are_those_of_the_formulas():
    """Ratios of 1.2, 1.5, 1.9 and 2, which is above 1.25³."""
    found = figures(([[1.2, 3, 1.9, 4]], [[1, 2, 1, 8]]))
    logs = [math.log(x) for x in (1.2, 1.5, 1.9, 0.5)]
    mean = sum(logs) / 4
    squares = sum(x * x for x in logs) / 4
    assert found == approx(
        d1=0.25,
        d2=0.5,
        d3=0.75,
        abs_rel=(0.2 + 0.5 + 0.9 + 0.5) / 4,
        sq_rel=(0.04 + 1 / 2 + 0.81 + 16 / 8) / 4,
        rmse=math.sqrt((0.04 + 1 + 0.81 + 16) / 4),
        rmse_log=math.sqrt(squares),
        log10=sum(map(abs, logs)) / math.log(10) / 4,
        silog=100 * math.sqrt(squares - mean**2),
    )


def test_an_exact_fit_has_no_error():
    true = np.random.default_rng(0).uniform(0.5, 9, (6, 8))
    assert figures((true, true)) == approx(**EXACT)
    # A wrong scale alone is no error to silog.
    found = figures((1.1 * true, true))
    assert found['silog'] == pytest.approx(0, abs=1e-4)
    assert found['abs_rel'] == pytest.approx(0.1, rel=1e-5)


def test_thresholds_are_strict():
    # In binary fractions: 1.25 is no less than 1.25.
    found = figures(([[1.25, 0.8]], [[1, 1]]))
    assert found['d1'] == 0.5  # 1 / 0.8f is less than 1.25
    assert found['d2'] == 1
    # Nor is the largest depth valid, nor the smallest.
    found = figures(([[2, 2, 2]], [[10, 2, 0.5]]), min_depth_eval=0.5)
    assert found == approx(**EXACT)


@pytest.mark.parametrize(
    ('wrong', 'counts_as'),
    [
        (0, 1e-3),
        (-3, 1e-3),
        (math.nan, 1e-3),
        (-math.inf, 1e-3),
        (math.inf, 10),
        (99, 10),
    ],
)
def test_predictions_are_clipped(wrong, counts_as):
    true = [[2, 2], [2, 0]]
    found = figures(([[wrong, 2], [2, 2]], true))
    assert found == approx(**figures(([[counts_as, 2], [2, 2]], true)))
    assert found['d1'] == pytest.approx(2 / 3)
    error = abs(2 - counts_as)
    assert found['abs_rel'] == pytest.approx(error / 2 / 3)
    assert found['rmse'] == pytest.approx(error / math.sqrt(3))
    assert found['log10'] == pytest.approx(abs(math.log10(counts_as / 2)) / 3)


def test_the_mean_is_that_of_images_not_of_pixels():
    """An image of one valid pixel weighs as much as one of four."""
    one = ([[3, 1, 1, 1]], [[2, 0, 0, 0]])
    four = ([[2, 2, 2, 2]], [[2, 2, 2, 2]])
    found = figures(one, four)
    assert found['abs_rel'] == 0.25  # pooled it would be 0.1
    assert found['rmse'] == 0.5  # pooled √ 0.2
    assert found['d1'] == 0.5


def test_images_without_depth_are_left_out_and_counted(log):
    nothing = ([[3, 3]], [[0, 12]])
    found = figures(([[3, 3]], [[2, 2]]), nothing, nothing)
    assert found['abs_rel'] == 0.5
    assert '2 of 3 images have no true depth between 0.001 and' in log.text
    assert all(map(math.isnan, figures(nothing).values()))
    assert 'got none in any of 1 images, so that all figures are' in log.text
    assert log.records[-2].levelname == 'WARNING'


# ----------------------------------------------------------------------- crop


def test_crops_are_those_of_the_papers():
    assert crop_region((480, 640), 'eigen') == np.s_[45:471, 41:601]
    assert crop_region((375, 1242), 'garg') == np.s_[153:371, 44:1197]
    assert crop_region((480, 640), None) == np.s_[0:480, 0:640]
    # Half the size has half the crop, rounded.
    assert crop_region((240, 320), 'eigen') == np.s_[22:236, 20:300]


@pytest.mark.parametrize('crop', ['eigen', 'garg'])
def test_what_is_cropped_is_not_measured(crop):
    size = (48, 64)  # smaller than the rows and columns of 480x640
    rows, columns = crop_region(size, crop)
    true = np.full(size, 2.0)
    pred = np.full(size, 9.0)
    pred[rows, columns] = 2
    assert 0 < pred[pred == 2].size < pred.size
    assert figures((pred, true), crop_type=crop) == approx(**EXACT)
    assert figures((pred, true))['abs_rel'] > 0.1
    pred[rows.start, columns.start] = 3
    assert figures((pred, true), crop_type=crop)['abs_rel'] > 0


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (5, 4)])
def test_the_smallest_images_have_a_crop(size):
    true = np.full(size, 2.0)
    found = figures((1.5 * true, true), crop_type='eigen')
    assert found['abs_rel'] == 0.5


# ---------------------------------------------------------------- the metric


def test_it_keeps_a_few_numbers_of_an_image():
    metric = DepthMetric(boundaries=True)
    for _ in range(3):
        depth = np.random.default_rng(0).uniform(1, 9, (64, 64))
        metric.process({}, [sample(depth, depth)])
    assert [len(row) for row in metric.results] == [11] * 3
    assert all(isinstance(x, float) for row in metric.results for x in row)


def test_it_works_within_an_evaluator(scope):
    scope('mmseg')
    evaluator = Evaluator(
        dict(type='mmsapa.DepthMetric', depth_metrics=['rmse', 'd1'])
    )
    for depth in 2, 3:
        data = SegDataSample()
        for key, value in dict(pred=depth, gt=2).items():
            value = torch.full((1, 4, 4), float(value))
            data.set_data({f'{key}_depth_map': dict(data=value)})
        data.set_metainfo(dict(img_path='a.jpg'))
        evaluator.process([data])
    assert evaluator.evaluate(2) == dict(rmse=0.5, d1=0.5)


def test_padded_samples_of_many_processes_are_dropped():
    """As mmengine drops them: those beyond the size of the data set."""
    metric = DepthMetric()
    metric.process({}, [sample([[2.0]], [[0.0]]), sample([[2.0]], [[2.0]])])
    metric.process({}, [sample([[3.0]], [[2.0]])])
    # An image without depth has its place, too.
    assert metric.evaluate(2) == approx(**EXACT)


def test_another_size_is_named():
    with pytest.raises(ValueError) as caught:
        figures((np.ones((4, 6)), np.ones((8, 12))))
    assert str(caught.value) == (
        'a.jpg: expected a prediction of the size of the ground truth, 12 x '
        '8, got 6 x 4; load depth maps after the transforms that resize '
        'images.'
    )
    with pytest.raises(ValueError, match='a.jpg: expected a gt_depth_map'):
        figures((np.ones((4, 6)), None))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(depth_metrics=['rmse', 'iou']), 'log10, silog, got iou'),
        (dict(min_depth_eval=0), 'min_depth_eval < max_depth_eval, got 0 and'),
        (dict(max_depth_eval=0), 'got 0.001 and 0'),
        (dict(crop_type='nyu_crop'), "'eigen', 'garg'.*got 'nyu_crop'"),
        (dict(format_only=True), 'name a folder for them in output_dir'),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=f'DepthMetric: .*{words}'):
        DepthMetric(**arguments)


# ----------------------------------------------------------------- the files


def test_predictions_are_written_in_millimeters(tmp_path):
    metric = DepthMetric(output_dir=str(tmp_path / 'out'), format_only=True)
    pred = [[1.2346, math.nan], [math.inf, -1]]
    metric.process({}, [sample(pred, None, '/data/a/rgb_00001.jpg')])
    assert metric.evaluate(1) == {}
    (file,) = (tmp_path / 'out').iterdir()
    assert file.name == 'rgb_00001.png'
    found = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    assert found.tolist() == [[1235, 0], [65535, 0]]


def test_no_prediction_is_written_over_another(tmp_path):
    """Frames of different scenes may have the same name."""
    images = '/data/test/a/1.jpg', '/data/test/b/1.jpg'
    out = str(tmp_path / 'out')
    metric = DepthMetric(output_dir=out, format_only=True)
    for _ in range(2):  # as every validation writes anew
        metric.process({}, [sample([[1]], None, images[0])])
    with pytest.raises(ValueError) as caught:
        metric.process({}, [sample([[1]], None, images[1])])
    assert str(caught.value) == (
        f'{out}/1.png: expected the prediction of one image, got those of '
        f'{images[0]} and {images[1]}; name the folder of both in the '
        "metric's img_root."
    )
    metric = DepthMetric(
        output_dir=str(tmp_path / 'two'), img_root='/data/test'
    )
    for path in images:
        metric.process({}, [sample([[1]], [[1]], path)])
    files = sorted((tmp_path / 'two').rglob('*.png'))
    names = [str(file.relative_to(tmp_path / 'two')) for file in files]
    assert names == ['a/1.png', 'b/1.png']
    with pytest.raises(ValueError, match='image in img_root, /data/test, got'):
        metric.process({}, [sample([[1]], [[1]], '/data/val/1.png')])
    assert sorted((tmp_path / 'two').rglob('*.png')) == files


def test_out_of_the_tool_is_its_folder(tmp_path):
    cfg = Config(
        dict(
            default_scope='mmseg',
            test_dataloader=dict(dataset=dict(type='mmsapa.NYUDepthDataset')),
            test_evaluator=dict(type='mmsapa.DepthMetric'),
            test_cfg=dict(type='TestLoop'),
        )
    )
    prepare_test(cfg, out=str(tmp_path))
    assert cfg.test_evaluator.output_dir == str(tmp_path)


# ----------------------------------------------------------------- boundaries


def step(column, size=(40, 60), low=2.0, high=4.0):
    depth = np.full(size, low)
    depth[:, column:] = high
    return depth


def test_an_edge_is_where_the_step_is():
    valid = np.ones((40, 60), bool)
    edges = depth_edges(step(30), valid)
    rows, columns = np.nonzero(edges)
    assert len(rows) >= 38 and set(columns) <= {29, 30}
    assert not depth_edges(np.full((40, 60), 3.0), valid).any()
    # A tenth of the range starts an edge, a twentieth does not.
    for height, found in (1.5, True), (0.4, False):
        depth = step(20, low=1.0, high=1 + height)
        depth[:, 40:] = 11
        assert depth_edges(depth, valid)[:, 15:25].any() == found


@pytest.mark.parametrize('off', [0, 3, 7])
def test_edges_off_their_place_are_off_by_pixels(off):
    valid = np.ones((40, 60), bool)
    errors = boundary_errors(step(30 + off), step(30), valid)
    assert errors == pytest.approx((off, off), abs=0.2)


def test_far_and_missing_edges_cost_ten_pixels():
    valid = np.ones((40, 60), bool)
    assert boundary_errors(step(50), step(30), valid) == (10, 10)
    flat = np.full((40, 60), 3.0)
    assert boundary_errors(flat, step(30), valid) == (10, 10)
    assert all(map(math.isnan, boundary_errors(step(30), flat, valid)))
    # A second edge that is not there costs accuracy, not completeness.
    two = step(30)
    two[:, 38:] = 6
    accuracy, completeness = boundary_errors(two, step(30), valid)
    assert accuracy == pytest.approx(4, abs=0.2) and completeness == 0


def test_holes_make_no_edges():
    true, valid = step(30), np.ones((40, 60), bool)
    true[5:15, 5:15] = 0
    valid[5:15, 5:15] = False
    edges = depth_edges(true, valid)
    assert not edges[:, :25].any() and edges.any()
    assert boundary_errors(step(30), true, valid) == pytest.approx((0, 0))


def test_boundaries_are_reported_on_demand():
    true = step(30)
    flat = np.full_like(true, 3)
    found = figures((step(33), true), (flat, flat), boundaries=True)
    assert found['dbe_acc'] == pytest.approx(3, abs=0.2)
    assert found['dbe_comp'] == pytest.approx(3, abs=0.2)
    assert 'dbe_acc' not in figures((true, true))


def test_an_edge_goes_on_down_to_a_step_of_a_twentieth():
    height = np.linspace(0.3, 0, 121)[:, None]  # of the step, row by row
    depth = 1 + height * (np.arange(60) >= 30)
    depth[-1, -1] = 2  # so that the range is 1
    valid = np.ones(depth.shape, bool)
    rows = depth_edges(depth, valid)[:110, 25:35].any(1).nonzero()[0]
    assert len(rows) == rows[-1] + 1  # without a gap
    assert height[rows[-1]] == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize('height, found', [(0.085, False), (0.12, True)])
def test_a_slanted_step_is_as_high_as_a_straight_one(height, found):
    y, x = np.indices((60, 60))
    depth = 1 + height * (x + y >= 60)
    depth[:3, :3] = 2
    valid = np.ones(depth.shape, bool)
    assert depth_edges(depth, valid)[20:40, 20:40].any() == found


def test_edges_where_depth_is_not_known_do_not_count():
    valid = np.ones((40, 60), bool)
    valid[:, 34:41] = False
    pred = step(30)
    pred[:, 37:] = 6  # an edge in the hole
    assert boundary_errors(pred, step(30), valid) == pytest.approx((0, 0))
