import itertools

import pytest
import torch
from torch import nn

from mmsapa.upsamplers import IndexNet

from .helpers import in_millions, parameters, segformer_giga_macs, window

FORMS = [
    dict(holistic=h, nonlinear=n, context=c)
    for h, n, c in itertools.product((True, False), repeat=3)
]


@pytest.mark.parametrize(
    ('model', 'published'),
    [
        ('SegFormer-B1', 12.60),
        ('MaskFormer', 6.30),
        ('Mask2Former', 2.10),
        ('Faster R-CNN', 6.30),
    ],
)
def test_is_as_large_as_published(model, published):
    """SAPA's paper, semantic segmentation and object detection."""
    assert in_millions(IndexNet, model) == published


def test_costs_what_is_published():
    """SAPA's paper, semantic segmentation: +30.65 G."""
    assert segformer_giga_macs(IndexNet, by_pixel=4 * 256) == 30.65


def test_the_authors_logs_show_another_form():
    """Four convolutions, 256 to 256, of 2 x 2 pixels, without biases.

    github.com/poppinace/fade, segformer.b1_indexnet.512x512.ade.160k.log,
    whose mIoU of 41.50 is the published one, unlike these 6.29 M.
    """
    form = dict(holistic=False, nonlinear=False, context=False)
    assert parameters(IndexNet(256, **form)) == 4 * 256 * 256 * 2 * 2


@pytest.mark.parametrize(
    ('form', 'expected'),
    [
        (dict(nonlinear=False, context=False), 4 * 64 * 4),
        (dict(nonlinear=False), 16 * 64 * 4),
        (dict(context=False), 4 * 64 * 128 + 2 * 128 + 128 * 4),
        (dict(holistic=False), 4 * (16 * 64 * 64 + 2 * 64 + 64 * 64)),
    ],
)
def test_number_of_parameters(form, expected):
    """A DIN's four hidden layers are half as wide as a HIN's one."""
    assert parameters(IndexNet(64, **form)) == expected


def by_definition(layer, x, guide):
    """One pixel of x after the other."""
    n, c, h, w = x.shape
    s = layer.scale_factor
    first, *rest = layer.index
    k = first.kernel_size[0]
    networks = 1 if layer.holistic else s * s
    out = x.new_zeros(n, c, h * s, w * s)
    for b, i, j in itertools.product(range(n), range(h), range(w)):
        start = [cell * s - (k - s) // 2 for cell in (i, j)]
        patch = window(guide[b], *start, k).flatten()
        index = first.weight.flatten(1) @ patch
        if rest:
            norm, _, last = rest
            std = (norm.running_var + norm.eps).sqrt()
            index = (index - norm.running_mean) / std
            index = (index * norm.weight + norm.bias).clamp(0, 6)
            hidden = index.view(networks, -1)
            weights = last.weight.view(networks, -1, hidden.shape[1])
            index = torch.stack([w @ v for w, v in zip(weights, hidden)])
        index = index.view(s, s, -1).sigmoid()
        for y, z in itertools.product(range(s), range(s)):
            out[b, :, i * s + y, j * s + z] = x[b, :, i, j] * index[y, z]
    return out[..., : guide.shape[2], : guide.shape[3]]


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
    ('scale', 'size'), [(2, (6, 4)), (2, (5, 3)), (3, (4, 6)), (1, (3, 2))]
)
def test_follows_the_definition(form, scale, size):
    layer = IndexNet(3, 5, scale, **form).double().eval()
    for module in layer.index:
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (*module.parameters(), module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    low = [-(-side // scale) for side in size]
    x = torch.randn(2, 3, *low, dtype=torch.float64)
    guide = torch.randn(2, 5, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x, guide), by_definition(layer, x, guide)
        )


@pytest.mark.parametrize('form', FORMS)
def test_every_parameter_learns(form, device):
    layer = IndexNet(4, 6, **form).to(device)
    x = torch.randn(2, 4, 3, 4, device=device, requires_grad=True)
    guide = torch.randn(2, 6, 5, 8, device=device, requires_grad=True)
    layer(x, guide).square().sum().backward()
    for tensor in (x, guide, *layer.parameters()):
        assert tensor.grad.abs().sum() > 0


def test_initializes_again():
    layer = IndexNet(64)
    for p in layer.parameters():
        nn.init.constant_(p, 9)
    layer.init_weights()
    conv, norm, _, last = layer.index
    assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
    # He et al.: a variance of 2 over kernel size and outputs.
    std = (2 / (4 * 4 * 128)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(std, rel=0.02)
    assert last.weight.std().item() == pytest.approx(0.5**0.5, rel=0.1)
