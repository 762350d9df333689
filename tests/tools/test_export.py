"""Models as ONNX, by the tool."""

import json
import re
import sys

import pytest

from ..helpers import call, error

TOOL = 'deployment/export'


@pytest.mark.parametrize('kind', ['seg', 'depth'])
def test_a_model_is_written_and_checked(
    kind, write, folder, tmp_path, monkeypatch, capsys
):
    pytest.importorskip('onnxscript')
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    path, out = write(kind), tmp_path / 'new/model.onnx'
    image = '--image', folder / 'images/a.png'
    weights = folder / f'{kind}_sapa.pth'
    call(monkeypatch, TOOL, path, weights, '--out', out, *image)
    said = capsys.readouterr().out
    worst = float(re.search(r'to PyTorch: (\S+) of', said)[1])
    assert worst < 1e-4
    graph = onnx.load(out)
    assert {opset.domain for opset in graph.opset_import} == {''}
    about = json.loads(out.with_suffix('.json').read_text())
    assert about['data_preprocessor']['mean'] and about['pipeline']
    (given,) = graph.graph.input
    shape = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert about['input']['shape'] == shape


def test_what_cannot_be_exported_is_said(write, folder, tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    words = folder / 'det_sapa.pth', '--out', tmp_path / 'model.onnx'
    sentence = error(monkeypatch, TOOL, write('det'), *words)
    assert 'expected a segmentor or depth estimator to export' in sentence


def test_packages_that_are_missing_are_named(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    words = 'no.pth', '--out', tmp_path / 'model.onnx'
    sentence = error(monkeypatch, TOOL, write('seg'), *words)
    assert 'pip install onnx onnxscript onnxruntime' in sentence
