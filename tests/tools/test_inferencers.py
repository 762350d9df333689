"""The libraries' own inference on models with our layers."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmsapa.engine.config import ConfigError, find_config, read_config

from .conftest import same

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')

from mmdet.apis import (  # noqa: E402
    DetInferencer,
    inference_detector,
    init_detector,
)
from mmseg.apis import (  # noqa: E402
    MMSegInferencer,
    inference_model,
    init_model,
)

NAME = 'mmsapa::segformer/segformer_mit-b1_sapa-b_1xb16-160k_ade20k-512x512'


def test_segmentors_predict_as_the_tools_do(write, compare, folder):
    image, weights = folder / 'images/a.png', str(folder / 'seg_sapa.pth')
    path = write('seg')
    ((row,), *_) = compare(path, image)
    (expected,) = row.predictions.values()
    model = init_model(path, weights, device='cpu')
    sample = inference_model(model, str(image))
    same(sample.pred_sem_seg.data[0].numpy(), expected)
    inferencer = MMSegInferencer(read_config(path), weights, device='cpu')
    result = inferencer(cv2.imread(str(image)), show=False)
    same(result['predictions'], expected)


def test_depth_estimators_predict_as_the_tools_do(write, compare, folder):
    image = folder / 'images/a.png'
    path = write('depth')
    ((row,), *_) = compare(path, image)
    (expected,) = row.predictions.values()
    model = init_model(path, str(folder / 'depth_sapa.pth'), device='cpu')
    sample = inference_model(model, str(image))
    np.testing.assert_allclose(sample.pred_depth_map.data[0], expected)


def test_detectors_predict_as_the_tools_do(write, compare, folder):
    image, weights = folder / 'images/a.png', str(folder / 'det_sapa.pth')
    path = write('det')
    ((row,), *_) = compare(path, image)
    (expected,) = row.predictions.values()
    model = init_detector(str(path), weights, device='cpu')
    sample = inference_detector(model, str(image))
    same(sample.pred_instances.bboxes.numpy(), expected)
    inferencer = DetInferencer(read_config(path), weights, device='cpu')
    (result,) = inferencer(str(image))['predictions']
    same(torch.tensor(result['bboxes']).numpy(), expected)


def test_checkpoints_of_trainings_load_without_our_tools(
    write, folder, tmp_path
):
    path, trained = write('seg'), tmp_path / 'iter_1.pth'
    weights = torch.load(folder / 'seg_sapa.pth', weights_only=False)
    history = HistoryBuffer(np.ones(2), np.ones(2))
    torch.save(dict(weights, message_hub=dict(loss=history)), trained)
    code = (
        'import sys; from mmseg.apis import init_model as f; f(*sys.argv[1:])'
    )
    words = [sys.executable, '-c', code, path, trained, 'cpu']
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_our_configs_are_found_by_name():
    path = find_config(f'{NAME}.py')
    assert find_config(NAME) == path == find_config(path)
    cfg = read_config(NAME)
    assert cfg.filename == path
    assert cfg.model.decode_head.upsample_cfg.variant == 'B'
    # Its bases are found from there.
    assert cfg.model.backbone.embed_dims == 64
    with pytest.raises(ConfigError, match=f'There is no .*{NAME}.py'):
        find_config(NAME.replace('sapa-b', 'sapa-x'))
    with pytest.raises(ConfigError, match='There is no config file no.py'):
        read_config('no.py')
