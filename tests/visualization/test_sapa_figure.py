import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from mmsapa.engine.inference import build_model
from mmsapa.ops import reassemble
from mmsapa.upsamplers import SAPA
from mmsapa.visualization import draw_sapa_figure, find_stages, record
from mmsapa.visualization.sapa_figure import to_array

from ..helpers import write_config


class Model(torch.nn.Module):
    def __init__(self, *channels, **kwargs):
        super().__init__()
        self.up = torch.nn.ModuleList(
            SAPA(c, g, **kwargs) for c, g in channels
        )

    def forward(self, maps):
        return [layer(*pair) for layer, pair in zip(self.up, maps)]


def maps(*sizes, n=2):
    return [
        (torch.randn(n, c, -(-h // 2), -(-w // 2)), torch.randn(n, g, h, w))
        for c, g, h, w in sizes
    ]


@pytest.mark.parametrize('prior', [None, 'bilinear'])
def test_records_the_first_image_of_each_stage(prior):
    model = Model((8, 8), (4, 6), prior=prior)
    inputs = maps((8, 8, 9, 14), (4, 6, 21, 6))
    with record(model) as recording:
        outs = model(inputs)
        model(maps((8, 8, 9, 14), (4, 6, 21, 6)))  # is not looked at
    assert [stage.name for stage in recording.stages] == ['up.0', 'up.1']
    for stage, (x, guide), out in zip(recording.stages, inputs, outs):
        assert torch.equal(stage.x, x[0])
        assert torch.equal(stage.guide, guide[0])
        assert torch.equal(stage.out, out[0])
        rebuilt = reassemble(stage.kernels[None], x[:1], 5, 2)[0]
        torch.testing.assert_close(rebuilt, stage.out)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_records_under_autocast(device, dtype, float16):
    model = Model((8, 8)).to(device)
    ((x, guide),) = maps((8, 8, 10, 12))
    inputs = [(x.to(device), guide.to(device))]
    with torch.autocast(device, dtype), record(model) as recording:
        model(inputs)
    (stage,) = recording.stages
    assert {tensor.dtype for tensor in stage[2:]} == {torch.float32}
    assert {tensor.device.type for tensor in stage[2:]} == {'cpu'}
    torch.testing.assert_close(stage.x, x[0])
    torch.testing.assert_close(
        stage.kernels.sum(0), torch.ones(10, 12), atol=1e-5, rtol=0
    )


def test_records_what_a_model_changes_later():
    layer = SAPA(8)
    ((x, guide),) = maps((8, 8, 10, 12))
    with torch.no_grad(), record(torch.nn.ModuleList([layer])) as recording:
        out = layer(x, guide=guide)
        expected = out[0].clone()
        out += guide
    assert torch.equal(recording.stages[0].out, expected)


def test_what_goes_wrong_in_recording_spares_the_model():
    model = Model((8, 8))
    inputs = maps((8, 8, 10, 12))

    def broken(x, guide):
        raise RuntimeError('out of memory')

    model.up[0].kernels = broken
    with pytest.raises(RuntimeError, match='out of memory'):
        with record(model):
            (out,) = model(inputs)
    assert torch.equal(out, model.up[0](*inputs[0]))


def test_recording_changes_nothing():
    model = Model((8, 8)).train()
    inputs = maps((8, 8, 10, 10))
    inputs[0][0].requires_grad_()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    with record(model):
        (out,) = model(inputs)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(out, model(inputs)[0]) and out.requires_grad
    with record(model) as recording:
        pass
    model(inputs)
    assert not recording.stages
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_stages_are_chosen_by_parts_of_names():
    model = Model((8, 8), (4, 6))
    assert list(find_stages(model, ['1'])) == ['up.1']
    assert list(find_stages(model, 'up.0')) == ['up.0']
    with pytest.raises(ValueError, match='parts of up.0, up.1, got neck'):
        find_stages(model, ['neck'])
    with pytest.raises(ValueError, match='Linear: expected a model with SAPA'):
        find_stages(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ('kernel_size', 'size'), [(1, (9, 14)), (3, (4, 60)), (5, (1, 2))]
)
def test_draws_maps_of_any_size(size, kernel_size):
    model = Model((8, 8), (4, 6), kernel_size=kernel_size)
    with record(model) as recording:
        model(maps((8, 8, *size), (4, 6, *size)))
    for channel in (None, 3):
        pixels = to_array(draw_sapa_figure(recording, channel=channel))
        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (1050, 3)


def test_panels_show_what_their_titles_say():
    model = Model((8, 8))
    with record(model) as recording:
        model(maps((8, 8, 22, 30)))
    (stage,) = recording.stages
    # All the weight of one kernel lies in one place.
    x, y, place = 13, 9, 7
    stage.kernels[:, y, x] = torch.eye(25)[place]
    figure = draw_sapa_figure(recording, points=[(x, y)], channel=5)
    panels = {axis.get_title().split(',')[0]: axis for axis in figure.axes}
    low = stage.x[None]
    expected = {
        'encoder feature': stage.guide[5],
        'decoder feature': stage.x[5],
        'SAPA': stage.out[5],
        'bilinear': F.interpolate(low, (22, 30), mode='bilinear')[0, 5],
        'nearest': F.interpolate(low, (22, 30))[0, 5],
        'top-left weight': stage.kernels[0],
        'kernel at 1': torch.eye(25)[place].view(5, 5),
    }
    for title, values in expected.items():
        shown = panels[title].images[-1]
        np.testing.assert_array_equal(shown.get_array(), values, title)
    # Its cell is the sixth, four rows down: five cells of two pixels around.
    assert panels['kernel at 1'].images[-1].get_extent() == [
        2 * (6 - 2) - 0.5,
        2 * (6 + 3) - 0.5,
        2 * (4 + 3) - 0.5,
        2 * (4 - 2) - 0.5,
    ]
    (dot,) = panels['kernel at 1'].lines[-1:]
    assert dot.get_xydata().tolist() == [[x, y]]
    assert panels['entropy'].images[0].get_array()[y, x] == 0


def test_draws_the_same_twice():
    model = Model((8, 8))
    with record(model) as recording:
        model(maps((8, 8, 16, 16)))
    a, b = (to_array(draw_sapa_figure(recording)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_mistakes_are_named():
    model = Model((8, 8))
    with record(model) as recording:
        pass
    with pytest.raises(ValueError, match='expected a recording of a model'):
        draw_sapa_figure(recording)
    with record(model) as recording:
        model(maps((8, 8, 16, 20)))
    for arguments, words in (
        (dict(points=[(20, 3)]), 'x below 20 and y below 16, got 20,3'),
        (dict(points=[(1, 1)] * 4), 'at most 3 in a figure, got 4'),
        (dict(channel=8), 'expected 0 to 7, got 8'),
    ):
        with pytest.raises(ValueError, match=words):
            draw_sapa_figure(recording, **arguments)


def test_steps_are_whole_where_sizes_were_rounded_up():
    model = Model((8, 8))
    with record(model) as recording:
        model(maps((8, 8, 7, 6)))  # of 101x90 pixels, at stride 16
    recording.image = np.zeros((101, 90, 3), np.uint8)
    figure = draw_sapa_figure(recording, points=[(48, 80)])
    (panel,) = (a for a in figure.axes if a.get_title().startswith('kernel'))
    (dot,) = panel.lines[-1:]
    assert dot.get_xydata().tolist() == [[3.5 * 16 - 0.5, 5.5 * 16 - 0.5]]


@pytest.fixture
def model_of(scope, tmp_path):
    """Build a small segmentor or detector, and an image of 75 x 101 for it."""

    def model_of(kind):
        if kind == 'seg':
            from mmseg.structures import SegDataSample as Sample
        else:
            from mmdet.structures import DetDataSample as Sample
        path = write_config(tmp_path / 'config.py', kind, '', '')
        cfg = Config.fromfile(path)
        scope(cfg.default_scope)
        size = dict.fromkeys(('ori_shape', 'img_shape'), (75, 101))
        sample = Sample(metainfo=dict(size, scale_factor=(1.0, 1.0)))
        image = torch.randint(256, (3, 75, 101), dtype=torch.uint8)
        data = dict(inputs=[image], data_samples=[sample])
        # RGB, as the models take it.
        return build_model(cfg), data, image.flip(0).permute(1, 2, 0).numpy()

    return model_of


@pytest.mark.parametrize(
    ('kind', 'size'),
    [('seg', (75, 101)), ('det', (96, 128))],  # a multiple of 32
)
def test_the_image_is_what_the_model_sees(kind, size, model_of):
    model, data, expected = model_of(kind)
    with record(model, ['upsamplers.0']) as recording:
        model.test_step(data)
    assert recording.image.shape == (*size, 3)
    np.testing.assert_array_equal(recording.image[:75, :101], expected)
    guide = recording.stages[0].guide
    assert guide.shape[1:] == tuple(-(-side // 4) for side in size)
    draw_sapa_figure(recording, points=[(3, 70), (100, 20)])


def test_a_sliding_window_is_seen_with_its_part_of_the_image(model_of):
    model, data, expected = model_of('seg')
    model.test_cfg.update(mode='slide', crop_size=(64, 64), stride=(32, 32))
    with record(model, ['upsamplers.0']) as recording:
        model.test_step(data)
    np.testing.assert_array_equal(recording.image, expected[:64, :64])
    assert recording.stages[0].guide.shape[1:] == (16, 16)
