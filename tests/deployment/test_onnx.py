"""ONNX Runtime against PyTorch; measure.py does so for all layers, models."""

import pytest
import torch
from torch import nn

from mmsapa.deployment import export_onnx
from mmsapa.engine.export import largest_difference

from .subjects import (
    REFUSED,
    UNGUIDED,
    make_layer,
    maps_for,
)

pytest.importorskip('onnxscript')
ort = pytest.importorskip('onnxruntime')
NAMES = ('SAPA-G, nearest', 'CARAFE', 'DySample, lp')


class SideBySide(nn.Module):
    """One export, since most of its time is spent once."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(map(make_layer, NAMES))

    def forward(self, x, guide):
        return [
            layer(x) if isinstance(layer, UNGUIDED) else layer(x, guide)
            for layer in self.layers
        ]


def example(height):
    return (torch.randn(1, 8, height, 2),)


def check(program, model, *args):
    """Compare with PyTorch; look through the graph."""
    graph = program.model_proto
    assert {opset.domain for opset in graph.opset_import} == {''}
    assert not graph.functions
    assert not REFUSED & {node.op_type for node in graph.graph.node}
    for node in graph.graph.node:
        if node.op_type == 'Transpose':
            assert len(node.attribute[0].ints) <= 4
    session = ort.InferenceSession(graph.SerializeToString())
    names = [each.name for each in session.get_inputs()]
    for each in args:
        feed = {n: a.numpy() for n, a in zip(names, each, strict=True)}
        with torch.no_grad():
            expected = model(*each)
        got = [torch.from_numpy(out) for out in session.run(None, feed)]
        if torch.is_tensor(expected):
            expected = [expected]
        assert largest_difference(got, expected) < 1e-4


def test_layers_by_standard_operators():
    model = SideBySide().eval()
    args = torch.randn(2, 8, 6, 7), torch.randn(2, 8, 12, 13)
    check(export_onnx(model, args, dynamic_shapes={}), model, args)


def test_a_height_that_varies_may_be_odd(tmp_path):
    layer = make_layer('CARAFE')
    height = ({2: torch.export.Dim.DYNAMIC},)
    path = tmp_path / 'layer.onnx'
    program = export_onnx(layer, example(5), path, dynamic_shapes=height)
    assert path.exists()
    check(program, layer, example(3), example(4), example(9), example(16))


def test_refuses_an_example_of_one_tile():
    layer = make_layer('CARAFE')
    with pytest.raises(ValueError, match='more than 4 cells .* got 4; '):
        export_onnx(layer, example(4))


def test_a_size_of_one_stays():
    layer = make_layer('MaxUnpool')
    program = export_onnx(layer, maps_for(layer, 1, (3, 2), (6, 4)))
    for each in program.model_proto.graph.input:
        batch, channels, height, width = each.type.tensor_type.shape.dim
        assert (batch.dim_value, channels.dim_value) == (1, 8)
        assert height.dim_param and width.dim_param
