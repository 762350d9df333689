"""Models compared from the command line, on scenes of odd sizes."""

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmsapa.datasets.demo_data import make_dataset, make_scene

from ..helpers import CONFIGS, ROOT, SMALL

sys.path.append(str(ROOT / 'tools' / 'analysis_tools'))

import compare_models as tool  # noqa: E402

DATA = """
test_dataloader = dict(dataset=dict(data_root='{root}'))
"""
NEAREST = dict(
    seg='model.decode_head.upsample_cfg=None',
    det='model.neck.upsample_cfg=None',
)
PARTS = dict(seg='decode_head', det='neck')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Configs, checkpoints by the name of the operator, data and images."""
    folder = tmp_path_factory.mktemp('compare')
    for layout in ('ade', 'coco'):
        make_dataset(str(folder), layout, 1, 2, size=64, nproc=1)
    for kind, root in (('seg', 'ade/ADEChallengeData2016'), ('det', 'coco')):
        text = (SMALL[kind] + DATA).replace('{root}', str(folder / root))
        path = folder / f'{kind}.py'
        path.write_text(f'_base_ = {str(ROOT / CONFIGS[kind])!r}{text}')
        for seed, name in enumerate(('sapa', 'nearest')):
            save_checkpoint(path, kind, name, seed)
    (folder / 'images/more').mkdir(parents=True)
    (folder / 'truth/more').mkdir(parents=True)
    scene = make_scene(0, 128)
    for name, (height, width) in {
        'a': (67, 45),
        'more/b': (40, 127),
    }.items():
        image = scene.image[:height, :width]
        cv2.imwrite(str(folder / f'images/{name}.png'), image)
        labels = scene.semantic()[:height, :width]
        cv2.imwrite(str(folder / f'truth/{name}.png'), labels)
    return folder


def save_checkpoint(path, kind, name, seed):
    """Write random weights as training does, with the classes."""
    from mmdet.apis import init_detector
    from mmseg.apis import init_model

    torch.manual_seed(seed)
    cfg = Config.fromfile(path)
    meta = cfg.test_dataloader.dataset.metainfo.to_dict()
    if name == 'nearest':
        cfg.model[PARTS[kind]].upsample_cfg = None
    init = init_model if kind == 'seg' else init_detector
    model = init(cfg, None, device='cpu')
    checkpoint = dict(
        state_dict=model.state_dict(), meta=dict(dataset_meta=meta)
    )
    torch.save(checkpoint, path.parent / f'{kind}_{name}.pth')


@pytest.fixture
def models(folder, scope):
    """The arguments of a random model with SAPA and of one without."""

    def arguments(kind, *settings):
        scope('mmseg' if kind == 'seg' else 'mmdet')
        config = folder / f'{kind}.py'
        return [
            *('--model', config, folder / f'{kind}_sapa.pth', *settings),
            *('--model', config, folder / f'{kind}_nearest.pth'),
            *(NEAREST[kind], *settings),
            *('--score-thr', '0', '--device', 'cpu'),
        ]

    return arguments


def run(*arguments):
    tool.main([str(word) for word in arguments])


def error(*arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    return str(caught.value)


def test_a_single_model_is_held_against_the_truth(models, tmp_path):
    alone = models('seg')[:3]
    run(*alone, '--difference', '--indices', 1, 1, '--out', tmp_path / 'out')
    pictures = sorted(path.name for path in tmp_path.rglob('*.png'))
    assert pictures == ['ADE_val_00000002.png', 'ADE_val_00000002_2.png']


def test_what_is_no_checkpoint_is_named(models, folder, tmp_path):
    broken = tmp_path / 'broken.pth'
    for content in ('no checkpoint', ''):
        broken.write_text(content)
        sentence = error('--model', folder / 'seg.py', broken)
        assert f'{broken}: expected a checkpoint of PyTorch' in sentence


def test_sheets_are_png(models, capsys):
    with pytest.raises(SystemExit):
        run(*models('seg'), '--out', 'sheet.jpg')
    assert 'expected FILE.png or a folder, got sheet.jpg' in (
        capsys.readouterr().err
    )


def test_images_of_one_name_are_told_apart(tmp_path):
    files = ['a/x.png', 'a/y.jpg', 'a/y.png', 'b/x.png']
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, hidden = tool.find_images([tmp_path / 'a', tmp_path / 'b'])
    assert [item.name for item in found] == ['x', 'y', 'y_2', 'x_2']
    assert [item.path for item in found] == [str(tmp_path / x) for x in files]
    assert not hidden


def test_segmentors_on_a_folder_with_truth(folder, models, tmp_path, capsys):
    arguments = (
        *(folder / 'images', *models('seg'), '--truth', folder / 'truth'),
        *('--difference', '--zooms', 1),
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


@pytest.mark.parametrize('kind', ['seg', 'det'])
def test_test_data_comes_with_its_truth(kind, models, tmp_path, monkeypatch):
    sheets = []
    draw = tool.draw_comparison
    monkeypatch.setattr(
        tool,
        'draw_comparison',
        lambda *args: sheets.append(args) or draw(*args),
    )
    out = tmp_path / 'sheet.png'
    run(*models(kind), '--boxes', '3,4,20,30', '--out', out)
    assert out.stat().st_size > 1000
    ((rows, palette, classes, *_),) = sheets
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
    assert [row.name for row in sheets[1][0]] == [rows[1].name]


def test_detectors_on_images_of_odd_size(folder, models, tmp_path):
    out = tmp_path / 'sheet.png'
    images = folder / 'images/a.png', folder / 'images/more'
    arguments = (*images, *models('det'), '--difference', '--out', out)
    run(*arguments)
    first = out.read_bytes()
    run(*arguments)
    assert first == out.read_bytes()


@pytest.mark.parametrize('kind', ['seg', 'det'])
def test_models_stay_as_they_were(kind, folder, models, device):
    models(kind)  # sets the scope
    config, checkpoint = folder / f'{kind}.py', folder / f'{kind}_sapa.pth'
    args = tool.parse_args(['--model', str(config), str(checkpoint)])
    ((_, pair),) = tool.read_models(args).items()
    model = tool.load_model(*pair, device, '')
    state = {k: v.clone() for k, v in model.state_dict().items()}
    file = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    saved = torch.load(checkpoint, weights_only=True)['state_dict']
    ((item,), _) = tool.find_images([folder / 'images/a.png'])
    first, second = (tool.predict(model, item, 0.0) for _ in range(2))
    if kind == 'det':
        first, second = first.bboxes, second.bboxes
    np.testing.assert_array_equal(first, second)
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
        cfg = Config.fromfile(ROOT / CONFIGS['seg'])
        cfg.merge_from_dict(settings)
        assert tool.name_of(cfg) == name


def test_missing_files_are_named(folder, models, tmp_path):
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
    arguments = models('seg')
    assert error('no.jpg', *arguments) == 'There is no image or folder no.jpg.'
    assert 'There is no image (.jpg' in error(tmp_path, *arguments)
    assert error(
        folder / 'images/a.png', *arguments, '--truth', tmp_path
    ).startswith(f'There is no truth {tmp_path}/a.png for ')
    assert 'numbers from 0 to 1, got 2' in error(*arguments, '--indices', 2)
    elsewhere = models('seg', f'test_dataloader.dataset.data_root={tmp_path}')
    assert 'which does not exist' in error(*elsewhere)


def test_models_that_cannot_be_compared_are_refused(folder, models, tmp_path):
    seg = models('seg')
    both = *seg, '--model', folder / 'det.py', folder / 'det_sapa.pth'
    assert 'of one library, got mmseg in ' in error(*both)
    twice = '--model', folder / 'seg.py', folder / 'seg_sapa.pth'
    assert '2 different names for the models, got SAPA-G, SAPA-G' in error(
        *twice, *twice
    )
    assert '2 different names for the models, got a;' in error(
        *seg, '--names', 'a'
    )
    wrong = '--model', folder / 'seg.py', folder / 'seg_nearest.pth'
    sentence = error(folder / 'images', *wrong, '--device', 'cpu')
    assert 'seg_nearest.pth does not fit' in sentence
    assert 'missing: ' in sentence and 'KEY=VALUE' in sentence

    saved = torch.load(folder / 'seg_sapa.pth', weights_only=True)
    saved['meta']['dataset_meta']['classes'] = tuple('abcdefgh')
    torch.save(saved, tmp_path / 'other.pth')
    other = '--model', folder / 'seg.py', tmp_path / 'other.pth'
    assert 'got ground, disc, ring, triangle, … (8) in x and a, b' in error(
        folder / 'images', *seg, *other, '--names', 'x', 'y', 'z'
    )


def test_what_no_model_can_take_is_named(folder, models, tmp_path):
    text = tmp_path / 'text.png'
    text.write_text('no picture')
    assert f'{text}: expected an image' in error(text, *models('seg'))
    (tmp_path / 'a.png').write_text('no labels')
    assert f'{tmp_path}/a.png: expected a label map' in error(
        folder / 'images/a.png', *models('seg'), '--truth', tmp_path
    )
    tiny = tmp_path / 'tiny.png'
    cv2.imwrite(str(tiny), np.zeros((5, 3, 3), np.uint8))
    assert f'seg.py cannot take {tiny} of 3 x 5 pixels: ' in error(
        tiny, *models('seg')
    )
    truth = error(tiny, *models('det'), '--truth', folder / 'truth')
    assert 'expected models of MMSegmentation, got detectors' in truth
    image = folder / 'images/a.png'
    assert 'within 45 x 67 pixels, got 40,0,10,10' in error(
        image, *models('seg'), '--boxes', '40,0,10,10', '--out', tmp_path
    )


def test_bad_arguments_are_named(capsys):
    with pytest.raises(SystemExit):
        run('--model', 'a', 'b', '--boxes', '1,2,3')
    assert 'x,y,w,h in pixels such as' in capsys.readouterr().err


@pytest.mark.slow
def test_the_tool_runs_as_a_program(folder, tmp_path):
    from ..helpers import run as program

    path = ROOT / 'tools/analysis_tools/compare_models.py'
    output = program(
        tmp_path,
        *(sys.executable, path, folder / 'images/a.png', '--device', 'cpu'),
        *('--model', folder / 'seg.py', folder / 'seg_sapa.pth'),
    )
    assert 'comparison.png' in output
    assert Path(tmp_path / 'comparison.png').stat().st_size > 1000
