"""Models compared from the command line, on scenes of odd sizes."""

import functools
import hashlib
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmsapa.datasets.demo_data import make_scene
from mmsapa.engine import images, inference

from .. import helpers
from .conftest import LIBRARIES, same

TOOL = 'analysis_tools/compare_models'
NEAREST = dict(
    seg='model.decode_head.upsample_cfg=None',
    det='model.neck.upsample_cfg=None',
)


@pytest.fixture
def run(monkeypatch):
    return functools.partial(helpers.call, monkeypatch, TOOL)


@pytest.fixture
def error(monkeypatch):
    return functools.partial(helpers.error, monkeypatch, TOOL)


@pytest.fixture
def models(folder, scope):
    """The arguments of a random model with SAPA and of one without."""

    def arguments(kind, *settings):
        scope(LIBRARIES[kind])
        config = folder / f'{kind}.py'
        return [
            *('--model', config, folder / f'{kind}_sapa.pth', *settings),
            *('--model', config, folder / f'{kind}_nearest.pth'),
            *(NEAREST[kind], *settings),
            *('--score-thr', '0', '--device', 'cpu'),
        ]

    return arguments


def test_a_single_model_is_compared_with_the_ground_truth(
    models, run, tmp_path
):
    alone = models('seg')[:3]
    run(*alone, '--difference', '--indices', 1, 1, '--out', tmp_path / 'out')
    pictures = sorted(path.name for path in tmp_path.rglob('*.png'))
    assert pictures == ['ADE_val_00000002.png', 'ADE_val_00000002_2.png']


def test_what_is_no_checkpoint_is_named(models, error, folder, tmp_path):
    broken = tmp_path / 'broken.pth'
    for content in ('no checkpoint', ''):
        broken.write_text(content)
        sentence = error('--model', folder / 'seg.py', broken)
        assert f'{broken}: expected a checkpoint of PyTorch' in sentence


def test_figures_are_png(models, error, capsys):
    error(*models('seg'), '--out', 'figure.jpg')
    assert 'expected FILE.png or a folder, got figure.jpg' in (
        capsys.readouterr().err
    )


def test_images_of_one_name_are_told_apart(tmp_path):
    files = ['a/x.png', 'a/y.jpg', 'a/y.png', 'b/x.png']
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, hidden = images.find_images([tmp_path / 'a', tmp_path / 'b'])
    assert [item.name for item in found] == ['x', 'y', 'y_2', 'x_2']
    assert [item.path for item in found] == [str(tmp_path / x) for x in files]
    assert not hidden


def test_segmentors_on_a_folder_with_ground_truth(
    folder, models, run, tmp_path, capsys
):
    arguments = (
        *(folder / 'images', *models('seg'), '--ground-truth'),
        *(folder / 'labels', '--difference', '--zooms', 1),
    )
    run(*arguments, '--out', tmp_path / 'out')
    printed = capsys.readouterr()
    pictures = sorted((tmp_path / 'out').rglob('*.png'))
    assert [str(p.relative_to(tmp_path / 'out')) for p in pictures] == [
        'a.png',
        'more/b.png',
    ]
    assert all(str(path) in printed.out for path in pictures)
    assert '4/4' in printed.err
    assert all(cv2.imread(str(path)).shape[1] == 1350 for path in pictures)
    # Once more: the same pictures.
    run(*arguments, '--out', tmp_path / 'again')
    for path in pictures:
        again = tmp_path / 'again' / path.relative_to(tmp_path / 'out')
        assert path.read_bytes() == again.read_bytes()


def test_test_data_comes_with_its_ground_truth(
    kind, models, run, drawn, tmp_path
):
    out = tmp_path / 'figure.png'
    run(*models(kind), '--boxes', '3,4,20,30', '--out', out)
    assert cv2.imread(str(out)).shape[1] == 1350
    ((rows, palette, classes, *_),) = drawn
    assert len(rows) == 2
    assert classes[-1] == 'spiral' and len(palette) == len(classes)
    for row in rows:
        assert list(row.predictions) == ['SAPA-G', 'baseline']
        assert row.image.shape == (64, 64, 3)
        assert row.boxes == [(3, 4, 20, 30)]
    number = int(rows[1].name[-1])
    scene = make_scene(np.random.SeedSequence(0, spawn_key=(1, number)), 64)
    # Images went through JPEG.
    blue_last = scene.image[..., ::-1].astype(int)
    assert np.abs(rows[1].image - blue_last).mean() < 8
    if kind == 'seg':
        # reduce_zero_label
        expected = scene.semantic() - np.uint8(1)
        np.testing.assert_array_equal(rows[1].ground_truth, expected)
    else:
        visible = [label for label in scene.labels if label < 7]
        assert sorted(rows[1].ground_truth.labels) == sorted(visible)
        assert rows[1].ground_truth.masks is None
        assert len(rows[1].predictions['SAPA-G'].bboxes)
    run(*models(kind), '--indices', 1, '--out', out)
    assert [row.name for row in drawn[1][0]] == [rows[1].name]


def test_detectors_on_images_of_odd_size(folder, models, run, tmp_path):
    out = tmp_path / 'figure.png'
    paths = folder / 'images/a.png', folder / 'images/more'
    arguments = (*paths, *models('det'), '--difference', '--out', out)
    run(*arguments)
    first = out.read_bytes()
    run(*arguments)
    assert first == out.read_bytes()


def test_models_stay_as_they_were(kind, folder, scope, device):
    scope(LIBRARIES[kind])
    cfg = Config.fromfile(folder / f'{kind}.py')
    checkpoint = folder / f'{kind}_sapa.pth'
    model = inference.load_model(cfg, str(checkpoint), device, '')
    state = {k: v.clone() for k, v in model.state_dict().items()}
    file = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    saved = torch.load(checkpoint, weights_only=True)['state_dict']
    ((item,), _) = images.find_images([folder / 'images/a.png'])
    first, second = (inference.predict(model, item, 0.0) for _ in range(2))
    same(first, second)
    assert not model.training
    assert not any(p.grad is not None for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])
        assert torch.equal(value.cpu(), saved[key])
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() == file


def test_models_are_named_after_their_upsampler():
    for settings, name in (
        ({}, 'SAPA-G'),
        ({'model.decode_head.upsample_cfg.variant': 'B'}, 'SAPA-B'),
        ({'model.decode_head.upsample_cfg.type': 'carafe'}, 'carafe'),
        ({'model.decode_head.upsample_cfg': None}, 'baseline'),
    ):
        cfg = Config.fromfile(helpers.ROOT / helpers.CONFIGS['seg'])
        cfg.merge_from_dict(settings)
        assert inference.upsampler_of(cfg) == name


def test_missing_files_are_named(folder, models, error, tmp_path):
    config, checkpoint = folder / 'seg.py', folder / 'seg_sapa.pth'
    assert error('--model', 'no.py', checkpoint) == (
        'There is no config file no.py.'
    )
    assert error('--model', config, 'no.pth') == (
        'There is no checkpoint no.pth.'
    )
    assert 'CONFIG CHECKPOINT, got' in error('--model', config)
    assert 'KEY=VALUE after the checkpoint, got a.png; images go' in error(
        '--model', config, checkpoint, 'a.png'
    )
    out = '--out', tmp_path / 'out'
    arguments = (*models('seg'), *out)
    assert error('no.jpg', *arguments) == 'There is no image or folder no.jpg.'
    assert 'There is no image (.jpg' in error(tmp_path, *arguments)
    assert error(
        folder / 'images/a.png', *arguments, '--ground-truth', tmp_path
    ).startswith(f'There is no ground truth {tmp_path}/a.png for ')
    for name in 'one', 'two':
        (tmp_path / name).mkdir()
        shutil.copy(folder / 'images/a.png', tmp_path / name)
    twice = tmp_path / 'one/a.png', tmp_path / 'two/a.png'
    labels = '--ground-truth', folder / 'labels'
    assert f'would belong to {twice[0]} and {twice[1]}' in error(
        *twice, *arguments, *labels
    )
    assert 'numbers from 0 to 1, got 2' in error(*arguments, '--indices', 2)
    elsewhere = models('seg', f'test_dataloader.dataset.data_root={tmp_path}')
    assert 'which does not exist' in error(*elsewhere, *out)


def test_models_that_cannot_be_compared_are_refused(
    folder, models, error, tmp_path
):
    seg = (*models('seg'), '--out', tmp_path / 'out')
    both = *seg, '--model', folder / 'det.py', folder / 'det_sapa.pth'
    assert 'of one kind, got a segmentor in ' in error(*both)
    twice = '--model', folder / 'seg.py', folder / 'seg_sapa.pth'
    assert '2 different names for the models, got SAPA-G, SAPA-G' in error(
        *twice, *twice
    )
    assert '2 different names for the models, got a;' in error(
        *seg, '--names', 'a'
    )
    wrong = '--model', folder / 'seg.py', folder / 'seg_nearest.pth'
    out = '--device', 'cpu', '--out', tmp_path / 'out'
    sentence = error(folder / 'images', *wrong, *out)
    assert 'seg_nearest.pth does not fit' in sentence
    assert 'missing: ' in sentence and 'KEY=VALUE' in sentence

    saved = torch.load(folder / 'seg_sapa.pth', weights_only=True)
    saved['meta']['dataset_meta']['classes'] = tuple('abcdefgh')
    torch.save(saved, tmp_path / 'other.pth')
    other = '--model', folder / 'seg.py', tmp_path / 'other.pth'
    assert 'got ground, disc, ring, triangle, … (8) in x and a, b' in error(
        folder / 'images', *seg, *other, '--names', 'x', 'y', 'z'
    )


def test_what_no_model_can_take_is_named(folder, models, error, tmp_path):
    def error_of(kind, *words):
        return error(*words, *models(kind), '--out', tmp_path / 'out')

    text = tmp_path / 'text.png'
    text.write_text('no picture')
    assert f'{text}: expected an image' in error_of('seg', text)
    (tmp_path / 'a.png').write_text('no labels')
    image = folder / 'images/a.png'
    assert f'{tmp_path}/a.png: expected a label map' in error_of(
        'seg', image, '--ground-truth', tmp_path
    )
    tiny = tmp_path / 'tiny.png'
    cv2.imwrite(str(tiny), np.zeros((5, 3, 3), np.uint8))
    assert f'seg.py cannot take {tiny} of 3 x 5 pixels: ' in error_of(
        'seg', tiny
    )
    assert 'expected models that predict maps, got detectors' in error_of(
        'det', tiny, '--ground-truth', folder / 'labels'
    )
    assert 'within 45 x 67 pixels, got 40,0,10,10' in error_of(
        'seg', image, '--boxes', '40,0,10,10'
    )


def test_bad_arguments_are_named(error, capsys):
    error('--model', 'a', 'b', '--boxes', '1,2,3')
    assert 'x,y,w,h in pixels such as' in capsys.readouterr().err
