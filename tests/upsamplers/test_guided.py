import pytest
import torch

from mmsapa.upsamplers import A2U, FADE, IndexNet
from mmsapa.upsamplers.guided import reassemble

from .published import window

LAYERS = [A2U, FADE, IndexNet]


@pytest.mark.parametrize(('k', 's'), [(1, 1), (3, 2), (5, 2), (3, 3)])
def test_reassembles_by_the_definition(k, s, device):
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    kernels = torch.randn(2, k * k, 3 * s - s // 2, 4 * s, dtype=x.dtype)
    out = reassemble(x.to(device), kernels.to(device), s).cpu()
    assert out.shape == (2, 3, *kernels.shape[2:])
    for b, i, j in torch.cartesian_prod(
        *map(torch.arange, (2, *out.shape[2:]))
    ):
        patch = window(x[b], i // s - k // 2, j // s - k // 2, k)
        expected = patch.flatten(1) @ kernels[b, :, i, j]
        torch.testing.assert_close(out[b, :, i, j], expected)


def test_adds_half_precision_up_in_float32():
    x = torch.ones(1, 1, 5, 5, dtype=torch.bfloat16)
    x[0, 0, 0, 0] = 512  # bfloat16 has no 513
    kernels = torch.ones(1, 25, 5, 5, dtype=torch.bfloat16)
    assert reassemble(x, kernels, 1)[0, 0, 2, 2] == 536


@pytest.mark.parametrize('layer_type', LAYERS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_all_but_the_same(layer_type, dtype, device):
    layer = layer_type(8).to(device).eval()
    x = torch.randn(2, 8, 4, 5, device=device).to(dtype)
    guide = torch.randn(2, 8, 7, 10, device=device).to(dtype)
    with torch.no_grad():
        expected = layer(x.float(), guide.float())
        out = layer.to(dtype)(x, guide)
    assert out.dtype == dtype
    assert (out - expected).abs().max() < 0.06


@pytest.mark.parametrize('layer_type', LAYERS)
def test_trains_under_autocast(layer_type, device):
    layer = layer_type(8).to(device)
    x = torch.randn(2, 8, 4, 5, device=device, requires_grad=True)
    guide = torch.randn(2, 8, 7, 9, device=device, requires_grad=True)
    expected = layer(x, guide)
    with torch.autocast(device, torch.bfloat16):
        out = layer(x.bfloat16(), guide.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out - expected).abs().max() < 0.1
    out.float().square().sum().backward()
    for tensor in (x, guide, *layer.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize('layer_type', LAYERS)
@pytest.mark.parametrize(
    ('x', 'guide', 'error', 'words'),
    [
        ((1, 6, 4, 4), None, TypeError, 'got x alone'),
        ((6, 4, 4), (1, 6, 8, 8), ValueError, r'\[6, 4, 4\]'),
        ((1, 6, 4, 4), (1, 3, 8, 8), ValueError, 'guide with 6'),
        ((1, 6, 8, 8), (1, 6, 4, 4), ValueError, 'swapped'),
        ((1, 6, 4, 4), (1, 6, 8, 9), ValueError, r'\[8, 9\] for \[4, 4\]'),
    ],
)
def test_bad_inputs_are_named(layer_type, x, guide, error, words):
    guide = guide and torch.zeros(guide)
    with pytest.raises(error, match=f'^{layer_type.__name__}: .*{words}'):
        layer_type(6)(torch.zeros(x), guide)


@pytest.mark.parametrize('layer_type', [A2U, FADE])
@pytest.mark.parametrize('kernel_size', [4, 0, -1])
def test_even_kernels_are_refused(layer_type, kernel_size):
    words = f'^{layer_type.__name__}: expected an odd.*got {kernel_size}'
    with pytest.raises(ValueError, match=words):
        layer_type(8, kernel_size=kernel_size)


@pytest.mark.parametrize('layer_type', LAYERS)
def test_own_init_cfg_is_obeyed(layer_type):
    cfg = dict(type='Constant', layer='Conv2d', val=0.5)
    layer = layer_type(8, init_cfg=cfg)
    layer.init_weights()
    convs = [m for m in layer.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convs and all(conv.weight.eq(0.5).all() for conv in convs)
