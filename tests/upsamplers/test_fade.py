import itertools

import pytest
import torch
from torch import nn

from mmsapa.upsamplers import FADE

from .helpers import in_millions, segformer_giga_macs, window


@pytest.mark.parametrize(
    ('model', 'published'), [('SegFormer-B1', 0.29), ('A2U matting', 0.12)]
)
def test_is_as_large_as_published(model, published):
    """FADE's paper as in the README of github.com/poppinace/fade."""
    assert in_millions(FADE, model) == published


def test_costs_what_is_published():
    """As above: +2.65 G in SegFormer-B1."""
    mix = 4 * 2 * 256
    assert segformer_giga_macs(FADE, by_pixel=mix) == 2.65


def compress(image, conv):
    out = torch.einsum('oc,chw->ohw', conv.weight[:, :, 0, 0], image)
    return out if conv.bias is None else out + conv.bias.view(-1, 1, 1)


def by_definition(layer, x, guide):
    """The semi-shift convolution and what follows, pixel by pixel."""
    s, k = layer.scale_factor, layer.kernel_size
    out = x.new_zeros(*x.shape[:2], *guide.shape[2:])
    for b in range(x.shape[0]):
        fine = compress(guide[b], layer.compress_guide)
        coarse = compress(x[b], layer.compress_x)
        for i, j in itertools.product(*map(range, guide.shape[2:])):
            y, z = i // s, j // s
            both = window(fine, i - 1, j - 1, 3)
            both = both + window(coarse, y - 1, z - 1, 3)
            logits = layer.kernels.weight.flatten(1) @ both.flatten()
            weights = (logits + layer.kernels.bias).softmax(0)
            patch = window(x[b], y - k // 2, z - k // 2, k)
            value = patch.flatten(1) @ weights
            if layer.gate is not None:
                gate = layer.gate.weight.flatten() @ x[b, :, y, z]
                gate = (gate + layer.gate.bias).sigmoid()
                value = gate * guide[b, :, i, j] + (1 - gate) * value
            out[b, :, i, j] = value
    return out


@pytest.mark.parametrize('gate', [True, False])
@pytest.mark.parametrize(
    ('scale', 'size', 'kernel_size'),
    [(2, (6, 4), 5), (2, (5, 7), 3), (3, (5, 6), 3), (1, (3, 2), 1)],
)
def test_follows_the_definition(scale, size, kernel_size, gate):
    layer = FADE(3, 3 if gate else 5, scale, kernel_size, 4, gate).double()
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    low = [-(-side // scale) for side in size]
    x = torch.randn(2, 3, *low, dtype=torch.float64)
    guide = torch.randn(2, layer.guide_channels, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x, guide), by_definition(layer, x, guide)
        )


def test_every_parameter_learns(device):
    layer = FADE(4).to(device)
    x = torch.randn(2, 4, 3, 4, device=device, requires_grad=True)
    guide = torch.randn(2, 4, 5, 8, device=device, requires_grad=True)
    layer(x, guide).square().sum().backward()
    for tensor in (x, guide, *layer.parameters()):
        assert tensor.grad.abs().sum() > 0


def test_initializes_again():
    layer = FADE(64)
    for p in layer.parameters():
        nn.init.constant_(p, 9)
    layer.init_weights()
    for conv in layer.children():
        assert conv.bias is None or conv.bias.eq(0).all()
    # Glorot and Bengio: a variance of 2 over inputs and outputs.
    for conv, fans in (
        (layer.compress_guide, 64 + 64),
        (layer.compress_x, 64 + 64),
        (layer.kernels, 9 * (64 + 25)),
    ):
        std = (2 / fans) ** 0.5
        assert conv.weight.std().item() == pytest.approx(std, rel=0.05)


def test_a_gate_between_different_channels_is_refused():
    words = 'guide_channels=4 and in_channels=8; take gate=False'
    with pytest.raises(ValueError, match=words):
        FADE(8, 4)
