import pytest
import torch
from torch import nn

from mmsapa.ops import reassemble, registrations
from mmsapa.upsamplers import SAPA

from .helpers import assert_initialized, count_macs, parameters, sapa_macs

VARIANTS = ['I', 'B', 'G']


def layer_and_inputs(variant, guide_channels=6, size=(9, 13), **kwargs):
    torch.manual_seed(0)
    layer = SAPA(6, guide_channels, variant, embed_dims=4, **kwargs)
    for p in layer.parameters():  # away from an initialization near zero
        nn.init.normal_(p)
    s = layer.scale_factor
    x = torch.randn(2, 6, -(-size[0] // s), -(-size[1] // s))
    guide = torch.randn(2, guide_channels, *size)
    return layer.double(), x.double(), guide.double()


def normed(v, norm):
    v = (v - v.mean()) / (v.var(unbiased=False) + norm.eps).sqrt()
    return v * norm.weight + norm.bias


def linear(v, conv):
    return conv.weight[:, :, 0, 0] @ v + conv.bias


def by_definition(layer, x, guide):
    """The paper's section 3, one pixel after the other."""
    n, _, hq, wq = guide.shape
    _, c, h, w = x.shape
    s, r = layer.scale_factor, layer.kernel_size // 2
    out = x.new_zeros(n, c, hq, wq)
    for b in range(n):
        for i in range(hq):
            for j in range(wq):
                ci, cj = i // s, j // s
                query = normed(guide[b, :, i, j], layer.norm_guide)
                if layer.variant != 'I':
                    query = linear(query, layer.query)
                if layer.variant == 'G':
                    raw = x[b, :, ci, cj]
                    gate = linear(normed(raw, layer.norm_x), layer.gate)
                    gate = gate.sigmoid()
                    from_x = linear(raw, layer.query_x)
                    query = gate * query + (1 - gate) * from_x
                logits, values = [], []
                for y in range(ci - r, ci + r + 1):
                    for z in range(cj - r, cj + r + 1):
                        if not (0 <= y < h and 0 <= z < w):
                            logits.append(x.new_zeros(()))
                            values.append(x.new_zeros(c))
                            continue
                        key = normed(x[b, :, y, z], layer.norm_x)
                        if layer.variant != 'I':
                            key = linear(key, layer.key)
                        logits.append(query @ key)
                        values.append(x[b, :, y, z])
                weights = torch.stack(logits).softmax(0)
                out[b, :, i, j] = weights @ torch.stack(values)
    return out


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize(
    ('kernel_size', 'scale_factor'), [(5, 2), (3, 2), (3, 3), (1, 1)]
)
def test_follows_the_definition(variant, kernel_size, scale_factor):
    layer, x, guide = layer_and_inputs(
        variant,
        size=(5, 7),
        kernel_size=kernel_size,
        scale_factor=scale_factor,
    )
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x, guide), by_definition(layer, x, guide)
        )


@pytest.mark.parametrize('variant', ['B', 'G'])
def test_an_image_can_guide(variant):
    layer, x, image = layer_and_inputs(variant, guide_channels=3, size=(5, 5))
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x, image), by_definition(layer, x, image)
        )


def expected_parameters(variant, c, cg, d=32):
    """B has 2 * 2C + 2(dC + d) where C = Cg; G adds its two."""
    norms = 2 * c + 2 * cg
    if variant == 'I':
        return norms
    bilinear = norms + d * cg + d + d * c + d
    return bilinear + (d * c + d + c + 1 if variant == 'G' else 0)


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize(('c', 'cg'), [(256, 256), (128, 64), (2048, 1024)])
def test_parameters_and_flops(variant, c, cg):
    if variant == 'I':
        cg = c
    layer = SAPA(c, cg, variant)
    assert parameters(layer) == expected_parameters(variant, c, cg)
    # The papers count neither norms nor the mix by the gate; nor does torch.
    macs = count_macs(layer, (1, c, 6, 7), (1, cg, 12, 14))
    assert macs == sapa_macs(variant, 6 * 7, c, cg)


@pytest.mark.parametrize('variant', VARIANTS)
def test_trains_under_autocast(variant, device):
    layer, x, guide = layer_and_inputs(variant)
    layer, x, guide = (t.float().to(device) for t in (layer, x, guide))
    x.requires_grad_()
    guide.requires_grad_()
    expected = layer(x, guide)
    with torch.autocast(device, torch.bfloat16):
        out = layer(x, guide)
    assert out.dtype == torch.bfloat16
    assert (out - expected).abs().mean() < 0.05
    out.float().square().mean().backward()
    for tensor in (x, guide, *layer.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('form', ['linear', 'conv'])
def test_takes_the_authors_checkpoints(variant, form):
    source, x, guide = layer_and_inputs(variant)
    names = {'norm_guide': 'norm_y', 'norm_x': 'norm_x', 'key': 'k'}
    if variant == 'G':
        names.update(query='qy', query_x='qx', gate='gate')
    else:
        names.update(query='q')
    theirs = {}
    for name, tensor in source.state_dict().items():
        module, leaf = name.split('.')
        if form == 'linear' and tensor.dim() == 4:
            tensor = tensor[:, :, 0, 0]
        theirs[f'sapa.{names[module]}.{leaf}'] = tensor
    model = nn.ModuleDict(dict(sapa=SAPA(6, 6, variant, embed_dims=4)))
    model.load_state_dict(theirs)
    model.double()
    assert torch.equal(model.sapa(x, guide), source(x, guide))


def test_unknown_names_in_a_checkpoint_are_still_reported():
    layer = SAPA(6, variant='B')
    state = dict(layer.state_dict(), surplus=torch.zeros(1))
    with pytest.raises(RuntimeError, match='"surplus"'):
        layer.load_state_dict(state)


def test_initializes_again():
    layer = SAPA(256)
    assert_initialized(layer)
    for p in layer.parameters():
        nn.init.constant_(p, 9)
    layer.init_weights()
    assert_initialized(layer)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(in_channels=8, variant='X'), "'I', 'B' or 'G', got 'X'"),
        (
            dict(in_channels=8, guide_channels=4, variant='I'),
            'guide_channels=4 and in_channels=8',
        ),
    ],
)
def test_bad_settings_are_named(kwargs, words):
    with pytest.raises(ValueError, match=words):
        SAPA(**kwargs)


@pytest.mark.parametrize(
    ('x', 'guide', 'error', 'words'),
    [
        ((1, 6, 4, 4), None, TypeError, 'got x alone'),
        ((6, 4, 4), (1, 3, 8, 8), ValueError, r'\[6, 4, 4\]'),
        ((1, 6, 4, 4), (1, 6, 8, 8), ValueError, 'guide with 3'),
        ((1, 3, 8, 8), (1, 6, 4, 4), ValueError, 'swapped'),
        ((1, 6, 8, 8), (1, 3, 4, 4), ValueError, 'swapped'),
        ((1, 6, 4, 4), (1, 3, 8, 10), ValueError, r'\[8, 10\] for \[4, 4\]'),
    ],
)
def test_bad_inputs_are_named(x, guide, error, words):
    layer = SAPA(6, 3)
    guide = guide and torch.zeros(guide)
    with pytest.raises(error, match=words):
        layer(torch.zeros(x), guide)


# Torch 2.1 keeps 202 bytes of B, and 473 of G.
@pytest.mark.parametrize(('variant', 'most'), [('B', 210), ('G', 480)])
def test_keeps_the_query_for_backward_and_not_the_guide(variant, most):
    """Bytes per high-res pixel beyond inputs and parameters."""
    if not registrations.has_kernel('cpu'):
        pytest.skip('plain PyTorch keeps more than the compiled operators')
    layer = SAPA(256, variant=variant)
    x = torch.randn(1, 256, 32, 32, requires_grad=True)
    guide = torch.randn(1, 256, 64, 64, requires_grad=True)
    given = {
        t.untyped_storage().data_ptr() for t in (x, guide, *layer.parameters())
    }
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = layer(x, guide)
    assert out.requires_grad
    assert sum(kept.values()) / (64 * 64) < most


@pytest.mark.parametrize('variant', ['I', 'B', 'G'])
def test_weights_are_those_of_forward(variant, device):
    layer = SAPA(8, variant=variant).to(device)
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(1, 8, 5, 7, device=device)
    guide = torch.randn(1, 8, 9, 14, device=device)
    weights = layer.kernels(x, guide)
    assert weights.shape == (1, 25, 9, 14)
    expected = layer(x, guide)
    torch.testing.assert_close(reassemble(weights, x, 5, 2), expected)
