"""The operators of upsample layers are counted, where that is asked for."""

import pytest
import torch
from torch import nn

analysis = pytest.importorskip('mmengine.analysis')

from mmsapa.evaluation.complexity import flop_analyzer  # noqa: E402
from mmsapa.ops import norm_project, sapa_upsample  # noqa: E402
from mmsapa.upsamplers import SAPA  # noqa: E402


class Operators(nn.Module):
    def forward(self, query, key, value, weight, bias):
        return (
            sapa_upsample(query, key, value),
            norm_project(value, weight[0], weight[1], weight, bias),
        )


def operators_and_inputs():
    n, e, c, h, w = 2, 8, 12, 5, 6
    inputs = (
        torch.randn(n, e, 2 * h, 2 * w),
        torch.randn(n, e, h, w),
        torch.randn(n, c, h, w),
        torch.randn(e, c),
        torch.randn(e),
    )
    return Operators(), inputs


def test_our_operators_are_counted():
    counts = flop_analyzer(*operators_and_inputs()).by_operator()
    assert counts == dict(
        sapa_upsample=2 * 10 * 12 * 25 * (8 + 12),
        norm_project=2 * 5 * 6 * 12 * 8,
    )


def test_a_prior_is_counted_as_nothing():
    inputs = torch.randn(1, 8, 5, 6), torch.randn(1, 8, 10, 12)
    plain, started = (
        flop_analyzer(SAPA(8, prior=prior), inputs).by_operator()
        for prior in (None, 'bilinear')
    )
    assert plain == started and plain['sapa_upsample']


def test_norms_of_sapa_i_are_counted_as_layer_norms():
    inputs = torch.randn(1, 8, 5, 6), torch.randn(1, 8, 10, 12)
    counts = flop_analyzer(SAPA(8, variant='I'), inputs).by_operator()
    pixels = 10 * 12
    assert counts == dict(
        layer_norm=5 * 8 * (5 * 6 + pixels),
        sapa_upsample=pixels * 25 * (8 + 8),
    )


def test_other_analyzers_stay_as_they_are():
    flop_analyzer(*operators_and_inputs())
    analyzer = analysis.FlopAnalyzer(*operators_and_inputs())
    assert analyzer.by_operator() == {}
    assert analyzer.unsupported_ops()['mmsapa::sapa_upsample'] == 1


@pytest.mark.parametrize('groups', [1, 2])
def test_carafes_reassembly_is_counted(groups, carafe, monkeypatch):
    from mmsapa.upsamplers import UpsampleSlot

    # MMCV's has no CPU kernel, and a count needs no values.
    monkeypatch.setattr(
        carafe.ext_module, 'carafe_forward', lambda *args, **kwargs: None
    )
    for kind, name in (
        ('carafe', 'reassemble'),
        (carafe.CARAFEPack, 'carafe'),
    ):
        slot = UpsampleSlot(dict(type=kind, up_group=groups), 16)
        inputs = torch.randn(1, 16, 5, 6), torch.randn(1, 16, 10, 12)
        assert flop_analyzer(slot, inputs).by_operator() == {
            'conv': 5 * 6 * (16 * 64 + 9 * 64 * 4 * 25 * groups),
            # K * K for each of 4 * C numbers a low-res pixel.
            name: 5 * 6 * 4 * 25 * 16,
        }


@pytest.mark.parametrize(('kind', 'kernel_size'), [('a2u', 3), ('fade', 5)])
def test_reassembly_of_other_layers_is_counted(kind, kernel_size):
    pytest.importorskip('mmcv')
    from mmsapa.upsamplers import UpsampleSlot

    slot = UpsampleSlot(dict(type=kind, kernel_size=kernel_size), 16)
    inputs = torch.randn(1, 16, 5, 6), torch.randn(1, 16, 10, 12)
    count = flop_analyzer(slot, inputs).by_operator()['reassemble']
    assert count == 5 * 6 * 4 * kernel_size**2 * 16
