"""The tools train and test mattors."""

import re
import runpy
import shutil

import cv2
import numpy as np
import pytest

from ..helpers import (
    COMMON,
    QUICK,
    ROOT,
    call,
    error,
    log_of,
    make_data,
    save_weights,
    write_config,
)
from .conftest import run_test

MERGED = ['00001_0.png', '00001_1.png']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data'), 'matting', train=4)


@pytest.fixture
def root(made, tmp_path):
    """A copy of the data, to be spoiled."""
    return shutil.copytree(made, tmp_path / 'comp1k')


@pytest.fixture
def config(root, tmp_path):
    return write_config(tmp_path / 'a.py', 'matting', root, COMMON + QUICK)


def test_a_model_is_trained_resumed_and_validated(
    monkeypatch, config, tmp_path
):
    command = 'train', config, '--work-dir', tmp_path / 'work'
    short = '--cfg-options', 'train_cfg.max_iters=2'
    call(monkeypatch, *command, '--auto-scale-lr', *short)
    log = log_of(tmp_path / 'work')
    assert 'batch size of 4 and the current batch size is 2. Scaling' in log
    assert 'Iter(val)' in log
    call(monkeypatch, *command, '--resume')
    log = log_of(tmp_path / 'work')
    assert 'resumed epoch: 0, iter: 2' in log
    assert re.search(
        r'Iter\(train\) \[4/4\].* loss_alpha: \d.* loss_composition: \d', log
    )
    for name in 'SAD', 'MSE', 'Grad', 'Conn':
        assert re.search(rf'Iter\(val\).* {name}: \d', log)


def test_mattes_are_written_and_cut_off_not_rounded(
    monkeypatch, config, root, tmp_path
):
    """And figures measured on the files are those that were reported."""
    checkpoint = save_weights(tmp_path / 'a.pth', config)
    out, pictures = tmp_path / 'out', tmp_path / 'pictures'
    call(
        monkeypatch,
        *('test', config, checkpoint, '--out', out, '--show-dir', pictures),
        *('--work-dir', tmp_path / 'work'),
        # mmengine keeps one of a name in a process.
        *('--cfg-options', 'visualizer.name=mattes'),
    )
    reported = re.search(r'SAD: ([\d.]+)', log_of(tmp_path / 'work'))
    files = sorted(out.iterdir())
    assert [file.name for file in files] == MERGED
    assert len([*pictures.rglob('*.png')]) == 2
    true = cv2.imread(str(root / 'Test_set/alpha/00001.png'), 0) / 255
    found = run_test(config, checkpoint, tmp_path / 'again')
    errors, rounded = [], 0
    for file, sample in zip(files, found):
        matte = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert matte.dtype == np.uint8 and matte.shape == (64, 64)
        pred = 255 * sample.pred_alpha.data[0].numpy()
        np.testing.assert_array_equal(matte, np.floor(pred))
        rounded += np.count_nonzero(np.round(pred) != matte)
        trimap = cv2.imread(str(root / 'Test_set/trimaps' / file.name), 0)
        errors.append(abs(matte / 255 - true)[trimap == 128].sum() / 1000)
    assert rounded
    assert float(reported[1]) == pytest.approx(np.mean(errors), abs=1e-4)


def test_options_that_do_not_fit_are_named(monkeypatch, config, tmp_path):
    checkpoint = tmp_path / 'a.pth'
    checkpoint.touch()
    sentence = error(monkeypatch, 'test', config, checkpoint, '--tta')
    assert sentence.startswith('--tta needs tta_model and tta_pipeline')
    sentence = error(monkeypatch, 'test', config, checkpoint, '--out', 'a.pkl')
    assert "mattor is a folder for PNG files, got 'a.pkl'" in sentence


def test_an_image_that_is_too_large_ends_with_advice(
    monkeypatch, config, tmp_path
):
    """And the advice helps."""
    checkpoint = save_weights(tmp_path / 'a.pth', config)
    command = 'test', config, checkpoint, '--work-dir', tmp_path / 'work'
    monkeypatch.setattr('mmsapa.matting.tiles.free_bytes', lambda: 9)
    sentence = error(monkeypatch, *command)
    assert sentence.startswith('A whole image of 64 x 64 pixels may need ')
    option, value = sentence.split()[-2:]
    assert option == '--cfg-options' and value.startswith('model.test_cfg.')
    call(monkeypatch, *command, option, value.replace('1024', '32'))
    assert 'SAD: ' in log_of(tmp_path / 'work')


def test_data_that_is_not_there_is_named(root, refused):
    folder = root / 'Training_set'
    folder.rename(root / 'elsewhere')
    sentence = refused()
    assert sentence.startswith(
        f'train_dataloader needs {folder}/*/fg, which does not exist. '
    )
    assert 'docs/data.md' in sentence
    prefix = 'train_dataloader.dataset.data_prefix'
    path = root / 'elsewhere/Other/alpha/00003.png'
    path.unlink()
    sentence = refused(
        f'{prefix}.fg_path=elsewhere/*/fg',
        f'{prefix}.alpha_path=elsewhere/*/alpha',
    )
    assert '00003.jpg: expected a file of the same name in ' in sentence
    assert '1 of 4 maps are missing' in sentence


def test_a_map_of_another_size_is_named(root, refused):
    path = root / 'Training_set/Other/alpha/00002.png'
    cv2.imwrite(str(path), np.ones((32, 64), np.uint8))
    assert refused().startswith(f'{path}: expected the size of ')


def test_validation_data_is_checked_too(root, refused):
    for path in (root / 'Test_set/trimaps').iterdir():
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    sentence = refused()
    assert 'looked at in val_dataloader have no unknown pixel' in sentence


def test_a_trimap_may_have_127_for_unknown(
    monkeypatch, config, root, tmp_path
):
    checkpoint = save_weights(tmp_path / 'a.pth', config)
    figures = []
    for unknown in 128, 127:
        for path in (root / 'Test_set/trimaps').iterdir():
            trimap = cv2.imread(str(path), 0)
            trimap[trimap == 128] = unknown
            cv2.imwrite(str(path), trimap)
        command = 'test', config, checkpoint
        call(monkeypatch, *command, '--work-dir', tmp_path / str(unknown))
        log = log_of(tmp_path / str(unknown))
        figures.append(float(re.search(r'MSE: ([\d.]+)', log)[1]))
    assert figures[0] == pytest.approx(figures[1], rel=0.1)
    assert figures[0] > 0


def test_the_demo_measures_the_trimap_beside_the_model(config, root):
    """A trivial answer: right where the trimap knows, gray elsewhere."""
    demo = runpy.run_path(str(ROOT / 'tools/demo.py'))
    job = demo['JOBS']['matting']._replace(config=str(config))
    true = cv2.imread(str(root / 'Test_set/alpha/00001.png'), 0) / 255
    errors = []
    for name in MERGED:
        trimap = cv2.imread(str(root / 'Test_set/trimaps' / name), 0)
        errors.append(abs(128 / 255 - true)[trimap == 128].sum() / 1000)
    figures = demo['evaluate_trimaps'](job)
    assert figures['SAD trimap'] == pytest.approx(np.mean(errors))
    assert set(figures) == {'SAD trimap', 'Grad trimap'}
