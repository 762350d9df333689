"""Depth estimators and mattors in the controlled comparison."""

import json
import re
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from ..helpers import (
    COMMON,
    CONFIGS,
    QUICK,
    ROOT,
    call,
    check_images,
    figures,
    make_data,
    write_config,
)

pytest.importorskip('mmseg')

from mmsapa.engine import controlled_comparison as controlled  # noqa: E402
from mmsapa.engine.inference import load_model  # noqa: E402
from mmsapa.engine.runner import load_config  # noqa: E402

TOOL = 'analysis_tools/compare_upsamplers'
DEPTH = """
here = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=2, dataset=dict(data_root='{root}'), **here)
test_dataloader = dict(dataset=dict(data_root='{root}'), **here)
test_evaluator = dict(crop_type='eigen')
train_cfg = dict(max_iters=2)
"""


def test_depth_estimators_are_compared_by_depth(
    tmp_path, monkeypatch, capsys, scope, briefly
):
    root = make_data(tmp_path, 'depth', 4, 2)
    config = write_config(tmp_path / 'depth.py', 'depth', root, DEPTH)
    # Trained in this process; the tool goes on from there.
    scope('mmseg')
    cfg, start = load_config(str(config)), tmp_path / 'out/seed-0/init.pth'
    controlled.save_initial_state(cfg, 0, start)
    cfg = controlled.candidate_config(cfg, 'sapa-b', 0, start)
    measured = controlled.train_and_test(cfg, lambda done: None)
    check_images(cfg, measured, 'd1', 'rmse', 'dbe_acc', 'dbe_comp')
    controlled.result_of(cfg).write_text(json.dumps(measured))
    words = '--config', config, '--upsamplers', 'sapa-b'
    call(monkeypatch, TOOL, *words, '--out', tmp_path / 'out')
    heads = 'δ1 | AbsRel | RMS, m | edges, accuracy | edges, completeness'
    table = re.sub(' +', ' ', capsys.readouterr().out)
    assert heads in table and 'mIoU' not in table
    (row,) = figures(tmp_path / 'out')
    assert row['upsampler'] == 'sapa-b'
    (result,) = row['runs']
    assert 0 <= result['d1'] <= 1 and result['abs_rel'] > 0
    assert re.search(
        rf'sapa-b \| {result["d1"]:.3f} \| {result["abs_rel"]:.3f} \| ', table
    )
    assert cv2.imread(str(tmp_path / 'out/comparison.png')) is not None


def test_what_is_measured_of_depth_is_as_the_config_limits_it(scope):
    scope('mmseg')
    cfg = load_config(str(ROOT / CONFIGS['depth']))
    cfg.test_evaluator.update(
        crop_type='garg', max_depth_eval=80, depth_metrics=['d1']
    )
    made = controlled.candidate_config(cfg, 'nearest', 0, Path('init.pth'))
    assert made.test_evaluator == [
        dict(
            type='mmsapa.DepthMetric',
            boundaries=True,
            crop_type='garg',
            max_depth_eval=80,
        )
    ]
    assert made.default_hooks.checkpoint.save_best is None


def test_what_is_measured_of_labels_is_as_the_config_says(scope):
    scope('mmseg')
    cfg = load_config(
        str(ROOT / 'configs/demo/segformer_mit-mini_sapa-g_demo.py')
    )
    own = dict(type='mmsapa.BoundaryIoU', dilation_ratio=0.01)
    for edges, expected in ((own, dict(own, ignore_index=254)), (None, {})):
        labels = dict(type='IoUMetric', iou_metrics=['mFscore'])
        labels['ignore_index'] = 254
        cfg.test_evaluator = [labels, *([edges] if edges else [])]
        made = controlled.candidate_config(cfg, 'sapa-b', 0, Path('init.pth'))
        assert made.test_evaluator == [
            dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
            | dict(ignore_index=254),
            expected or dict(type='mmsapa.BoundaryIoU', ignore_index=254),
        ]


def test_mattors_are_compared(tmp_path, scope, monkeypatch):
    root = make_data(tmp_path, 'matting', 4, 1)
    path = write_config(
        tmp_path / 'config.py', 'matting', root, COMMON + QUICK
    )
    scope('mmsapa')
    cfg = load_config(str(path))
    cfg.train_cfg.max_iters = 1
    path = tmp_path / 'init.pth'
    controlled.save_initial_state(cfg, 0, path)
    cfg = controlled.candidate_config(cfg, 'sapa-i', 0, path)
    result = controlled.train_and_test(cfg, lambda done: None)
    assert all(result[key] > 0 for key in ('SAD', 'MSE', 'Grad'))
    assert result['Conn'] >= 0  # 0 where a matte is connected as the true one
    check_images(cfg, result, 'SAD', 'MSE', 'Grad', 'Conn')
    with np.load(controlled.images_of(cfg)) as images:
        names, groups = images['images'], images['groups']
    assert all(f'{group}_' in name for name, group in zip(names, groups))
    # The picture of it is one of mattes.
    tool = runpy.run_path(str(ROOT / f'tools/{TOOL}.py'))
    rows = []
    monkeypatch.setitem(
        tool['draw'].__globals__,
        'draw_comparison',
        lambda x, *rest: rows.extend(x) or Figure(),
    )
    last = str(Path(cfg.work_dir, 'iter_1.pth'))
    models = {'sapa-i': load_model(cfg, last, 'cpu', '')}
    tool['draw'](cfg, models, tmp_path / 'picture.png')
    assert [row.kind for row in rows] == ['mattes']
