"""Models as ONNX, by the tool."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mmsapa.engine.config import ConfigError
from mmsapa.engine.export import Dense, largest_difference
from mmsapa.engine.images import find_images
from mmsapa.engine.inference import infer, load_model, preprocess
from mmsapa.engine.runner import load_config

from ..helpers import call, error

TOOL = 'deployment/export'


@pytest.fixture
def export(folder, tmp_path, monkeypatch, capsys):
    """Export a small model; returns the file and what is beside it."""
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')

    def export(config, weights, *words):
        out = tmp_path / 'new/model.onnx'
        words = folder / weights, '--out', out, *words
        call(monkeypatch, TOOL, folder / config, *words)
        said = capsys.readouterr().out
        worst = float(re.search(r'to PyTorch: (\S+) of', said)[1])
        assert worst < 1e-4
        return out, json.loads(out.with_suffix('.json').read_text())

    return export


def load(folder, config, weights, image):
    cfg = load_config(folder / config)
    model = load_model(cfg, str(folder / weights), 'cpu', '')
    return model, find_images([image])[0][0]


def test_a_segmentor_is_written_and_checked(export, folder, write):
    onnx = pytest.importorskip('onnx')
    # As configs in pure Python have it.
    config = write('seg')
    kind = 'from mmcv.transforms import LoadImageFromFile\n'
    name = "'LoadImageFromFile'"
    text = config.read_text()
    assert name in text
    config.write_text(kind + text.replace(name, 'LoadImageFromFile'))
    image = folder / 'images/a.png'
    out, about = export(config, 'seg_sapa.pth', '--image', image)
    assert about['pipeline'][0]['type'] == 'LoadImageFromFile'
    graph = onnx.load(out)
    assert {opset.domain for opset in graph.opset_import} == {''}
    assert about['data_preprocessor']['mean'] and about['pipeline']
    (given,) = graph.graph.input
    shape = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert about['input']['shape'] == shape
    assert [each['name'] for each in about['outputs']] == ['logits']


def test_depths_are_in_meters(folder):
    image = folder / 'images/a.png'
    model, item = load(folder, 'depth.py', 'depth_sapa.pth', image)
    results = Dense(model).named(preprocess(model, item))
    expected = infer(model, item).pred_depth_map.data
    assert results.keys() == {'depth'}
    height, width = expected.shape[1:]
    got = results['depth'][0, :, :height, :width]
    torch.testing.assert_close(got, expected)


def test_a_matte_has_what_its_trimap_knows(export, folder):
    """From the numbers in the file beside the graph alone."""
    ort = pytest.importorskip('onnxruntime')
    root = folder / 'comp1k/Test_set'
    out, about = export(
        *('matting_nearest.py', 'matting_nearest.pth'),
        *('--image', next((root / 'merged').glob('*.png'))),
        *('--trimaps', root / 'trimaps'),
    )
    assert about['input']['shape'] == [1, 4, 64, 64]
    done = about['data_preprocessor']
    assert done['bgr_to_rgb'] and done['size_divisor'] == 16
    assert len(done['mean']) == len(done['std']) == 3
    x = np.random.default_rng(0).normal(size=(1, 4, 64, 64)).astype('float32')
    x[:, 3, :16], x[:, 3, 16:48], x[:, 3, 48:] = 0, 128 / 255, 1
    (alpha,) = ort.InferenceSession(out).run(['alpha'], dict(image=x))
    assert (alpha[..., :16, :] == 0).all() and (alpha[..., 48:, :] == 1).all()
    assert 0 <= alpha.min() and alpha.max() <= 1


def test_the_rest_of_a_detector_takes_its_maps(export, folder):
    """Boxes from the graph's results are those of the whole model."""
    ort = pytest.importorskip('onnxruntime')
    image = folder / 'images/a.png'
    config, weights = 'det_nearest.py', 'det_nearest.pth'
    out, about = export(config, weights, '--image', image)
    names = [each['name'] for each in about['outputs']]
    assert names == [
        *(f'maps_{i}' for i in range(5)),
        *(f'head_{i}_{j}' for i in range(2) for j in range(5)),
    ]
    model, item = load(folder, config, weights, image)
    expected = infer(model, item).pred_instances.bboxes
    feed = dict(image=preprocess(model, item).numpy())
    results = ort.InferenceSession(out).run(None, feed)
    results = [torch.from_numpy(x) for x in results]
    model.extract_feat = lambda image: results[:5]
    model.rpn_head.forward = lambda maps: (results[5:10], results[10:])
    got = infer(model, item).pred_instances.bboxes
    assert len(expected) > 4
    # Rounding may decide which of two boxes stays.
    near = torch.cdist(expected, got).min(1).values < 0.1
    assert near.float().mean() > 0.9


def test_a_head_without_maps_is_refused(write):
    class Detector(nn.Module):
        cfg = load_config(write('det'))

    with pytest.raises(ConfigError, match='one by one, got a Detector; '):
        Dense(Detector())


def test_no_difference_is_lost():
    one, nan = torch.ones(2), torch.tensor([1.0, torch.nan])
    assert largest_difference([0.5 * one, one], [one, 4 * one]) == 0.75
    assert largest_difference([0 * one], [0 * one]) == 0
    assert np.isnan(largest_difference([one, nan], [one, one]))
    with pytest.raises(ValueError, match=r'of \[2\], got one of \[1\]'):
        largest_difference([one[:1]], [one])


def test_open_sizes_need_an_image_of_them(
    write, folder, tmp_path, monkeypatch
):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    words = folder / 'depth_sapa.pth', '--out', tmp_path / 'model.onnx'
    words += '--image', folder / 'images/a.png', '--dynamic'
    sentence = error(monkeypatch, TOOL, write('depth'), *words)
    assert 'multiples of 32 and at least 160, got [' in sentence


def test_packages_that_are_missing_are_named(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    words = 'no.pth', '--out', tmp_path / 'model.onnx'
    sentence = error(monkeypatch, TOOL, write('seg'), *words)
    assert 'pip install onnx onnxscript onnxruntime' in sentence


@pytest.mark.parametrize('name', ['graph.json', 'model', ''])
def test_the_file_to_write_is_a_graph(name, monkeypatch, tmp_path, capsys):
    words = 'config.py', 'a.pth', '--out', tmp_path / name
    error(monkeypatch, TOOL, *words)
    assert '--out: expected a file *.onnx, got' in capsys.readouterr().err
