"""The tools train and test depth estimators."""

import re
import shutil

import cv2
import numpy as np
import pytest

pytest.importorskip('mmseg')

from ..helpers import (  # noqa: E402
    COMMON,
    QUICK,
    call,
    log_of,
    make_data,
    save_weights,
    write_config,
)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data'), 'depth', train=4)


@pytest.fixture
def root(made, tmp_path):
    """A copy of the data, to be spoiled."""
    return shutil.copytree(made, tmp_path / 'nyu')


@pytest.fixture
def config(root, tmp_path):
    return write_config(tmp_path / 'a.py', 'depth', root, COMMON + QUICK)


def test_a_model_is_trained_and_validated(monkeypatch, config, tmp_path):
    call(monkeypatch, 'train', config, '--work-dir', tmp_path / 'work')
    log = log_of(tmp_path / 'work')
    assert re.search(r'Iter\(train\) \[4/4\].* loss: \d', log)
    for name in 'd1', 'abs_rel', 'rmse', 'silog':
        assert re.search(rf'Iter\(val\).* {name}: \d', log)


def test_predictions_are_written_in_millimeters(
    monkeypatch, config, root, tmp_path
):
    """And figures measured on the files are those that were reported."""
    save_weights(tmp_path / 'a.pth', config)
    out = tmp_path / 'out'
    call(
        monkeypatch,
        *('test', config, tmp_path / 'a.pth', '--out', out),
        *('--work-dir', tmp_path / 'work'),
    )
    files = sorted(out.iterdir())
    assert [file.name for file in files] == ['rgb_00001.png', 'rgb_00002.png']
    errors = []
    for number, file in enumerate(files, 1):
        truth = root / f'official_splits/test/room/sync_depth_{number:05}.png'
        pred, true = (
            cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 1000
            for path in (file, truth)
        )
        assert pred.shape == true.shape == (64, 64)
        known = true > 0
        errors.append(abs(pred - true)[known] / true[known])
    found = np.mean([np.mean(error) for error in errors])
    reported = re.search(r'abs_rel: ([\d.]+)', log_of(tmp_path / 'work'))
    assert float(reported[1]) == pytest.approx(found, abs=1e-3)


def test_a_missing_file_is_named(root, refused):
    path = root / 'sync/room_0001/sync_depth_00003.png'
    path.unlink()
    assert refused().startswith(
        f'{root}/nyudepthv2_train_files_with_gt.txt, line 3: expected {path}, '
        'which does not exist, as 1 of 8 files do not; '
    )


def test_the_folder_of_another_list_is_named(root, refused):
    folder = 'train_dataloader.dataset.data_prefix.img_path=official_splits'
    sentence = refused(folder)
    assert 'line 1: expected ' in sentence
    assert 'none of the 4 pairs is complete; of NYU Depth v2' in sentence
    option = 'train_dataloader.dataset.ann_file=no.txt'
    assert f'{root}/no.txt, which does not exist' in refused(option)


def test_validation_data_is_checked_too(root, refused):
    path = root / 'official_splits/test/room/sync_depth_00002.png'
    cv2.imwrite(str(path), np.ones((64, 64, 3), np.uint8))
    assert refused().startswith(
        f'{path}: expected a depth map, a PNG of 16 bits and one channel, got '
        '8 bits and 3 channels; '
    )


def test_depth_in_other_units_is_named(refused):
    load = 'train_dataloader.dataset.pipeline.1.depth_rescale_factor=1'
    sentence = refused(load)
    assert 'hold values from 0 to ' in sentence
    assert 'up to 10, the head' in sentence
