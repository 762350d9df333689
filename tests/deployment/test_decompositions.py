"""Operators against what runtimes without them run."""

import pytest
import torch

from mmsapa.deployment import decompositions
from mmsapa.ops import interpolation_prior
from mmsapa.upsamplers import A2U, SAPA, MaxUnpool

ours, aten = torch.ops.mmsapa, torch.ops.aten
# (H, W) and (Hq, Wq): less than a tile, several, and cut cells.
SIZES = [((1, 3), (2, 6)), ((6, 9), (11, 18)), ((5, 4), (10, 7))]


def check(op, *args):
    expected, got = op(*args), decompositions()[op](*args)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('low, high', SIZES)
@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7])
def test_our_operators(low, high, kernel_size):
    value, key = torch.randn(2, 2, 6, *low)
    query = torch.randn(2, 6, *high)
    weights = torch.randn(2, kernel_size**2, *high)
    sizes = kernel_size, 2
    check(ours.reassemble.default, weights, value, *sizes)
    check(ours.sapa_upsample.default, query, key, value, *sizes)
    if kernel_size > 1:
        prior = interpolation_prior('bilinear', kernel_size, 2)
        check(ours.sapa_upsample.default, query, key, value, *sizes, prior)


def test_norms():
    x = torch.randn(2, 6, 3, 5) + 2
    check(ours.channel_norm.default, x, *torch.randn(2, 6), 1e-5)
    # Rows that sum to 0 take away a large mean, and its rounding.
    weight = torch.randn(4, 6)
    weight -= weight.mean(1, keepdim=True)
    check(ours.norm_project.default, x + 1000, weight, torch.randn(4), 1e-5)


@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('align_corners', [True, False])
def test_grid_sample(padding, align_corners):
    x, grid = torch.randn(2, 3, 5, 4), torch.randn(2, 6, 7, 2)
    for op in (aten.grid_sampler, aten.grid_sampler_2d):
        check(op.default, x, grid, 0, padding, align_corners)


def test_other_grid_samples_stay():
    decompose = decompositions()[aten.grid_sampler.default]
    x, grid = torch.randn(1, 3, 5, 4), torch.randn(1, 6, 7, 2)
    nearest, reflection = 1, 2
    assert decompose(x, grid, nearest, 0, False) is NotImplemented
    assert decompose(x, grid, 0, reflection, False) is NotImplemented
    volume = torch.randn(1, 3, 2, 5, 4), torch.randn(1, 2, 6, 7, 3)
    assert decompose(*volume, 0, 0, False) is NotImplemented


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (6, 6)])
def test_adaptive_average(size):
    check(aten.adaptive_avg_pool2d.default, torch.randn(2, 3, 13, 7), size)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('make', [A2U, SAPA, MaxUnpool])
def test_a_traced_layer_takes_other_sizes(make):
    layer = make(8).eval()
    args = torch.randn(2, 8, 6, 7), torch.randn(2, 8, 11, 14)
    traced = torch.jit.trace(layer, args, check_trace=False)
    for low, high in (((6, 7), (11, 14)), ((9, 5), (19, 9))):
        args = torch.randn(3, 8, *low), torch.randn(3, 8, *high)
        torch.testing.assert_close(traced(*args), layer(*args))


def test_program_without_our_operators():
    if not hasattr(torch.compiler, 'is_exporting'):
        pytest.skip('needs torch 2.7')
    layer = SAPA(8, variant='B').eval()
    args = torch.randn(1, 8, 4, 3), torch.randn(1, 8, 8, 5)
    program = torch.export.export(layer, args, strict=False)
    assert 'mmsapa' in str(program.graph)
    plain = program.run_decompositions(decompositions())
    assert 'mmsapa' not in str(plain.graph)
    expected = layer(*args)
    for each in (program, plain):
        got = each.module()(*args)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
