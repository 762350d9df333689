import itertools

import pytest
import torch
from torch import nn

from mmsapa.upsamplers import A2U

from .helpers import in_millions, parameters, segformer_giga_macs, window


@pytest.mark.parametrize(
    ('model', 'published'),
    [
        ('SegFormer-B1', 0.06),
        ('MaskFormer', 0.03),
        ('Mask2Former', 0.01),
        ('Faster R-CNN', 0.03),
        ('A2U matting', 0.02),
    ],
)
def test_is_as_large_as_published(model, published):
    """SAPA's paper: segmentation, object detection, matting.

    FADE's authors first counted 0.12 M in SegFormer-B1, with the 9,252
    weights of each module that make kernels for downsampling.
    """
    assert in_millions(A2U, model) == published


def test_has_the_modules_in_the_authors_logs():
    """github.com/poppinace/fade, segformer.b1_a2u.512x512.ade.160k.log."""
    norms = 2 * (256 + 256)
    q = 256 * 36 + 36
    u = v = 256 + 1
    assert parameters(A2U(256)) == norms + q + u + v


def test_costs_what_is_published():
    """SAPA's paper, semantic segmentation: +0.41 G."""
    products = 256 + 4 * 9  # u * v, q * affinity
    assert segformer_giga_macs(A2U, by_pixel=products) == 0.41


def pooled(image, size):
    """Means of an image cut in size x size parts, which may overlap."""
    c, h, w = image.shape
    out = image.new_zeros(c, size, size)
    for y, z in itertools.product(range(size), repeat=2):
        rows = slice(y * h // size, -(-(y + 1) * h // size))
        columns = slice(z * w // size, -(-(z + 1) * w // size))
        out[:, y, z] = image[:, rows, columns].mean((1, 2))
    return out


def project(image, conv):
    weight = conv.weight[:, :, 0, 0]
    out = torch.einsum('oc,chw->ohw', weight, image)
    return out + conv.bias.view(-1, 1, 1)


def normed(answers, norm):
    groups = answers.view(norm.num_groups, -1)
    mean = groups.mean(1, keepdim=True)
    std = (groups.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
    out = ((groups - mean) / std).view_as(answers)
    out = out * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    return torch.where(out < 0, 0.01 * out, out)


def by_definition(layer, x, guide):
    """One sample, one pixel after the other."""
    n, c, h, w = x.shape
    s, k, f = layer.scale_factor, layer.kernel_size, layer.filter_size
    out = x.new_zeros(n, c, *guide.shape[2:])
    for b in range(n):
        answers = []
        for conv, norm in ((layer.u, layer.norm_u), (layer.v, layer.norm_v)):
            weight = project(pooled(guide[b], f), conv)
            answer = guide.new_zeros(guide.shape[1], h, w)
            for i, j in itertools.product(range(h), range(w)):
                start = [cell * s - (f - s) // 2 for cell in (i, j)]
                products = window(guide[b], *start, f) * weight
                answer[:, i, j] = products.sum((1, 2))
            answers.append(normed(answer, norm))
        u, v = answers
        affinity = (u * v).sum(0) / guide.shape[1] ** 0.5
        q = project(pooled(guide[b], 1), layer.q).view(k * k, s, s)
        for i, j in itertools.product(*map(range, guide.shape[2:])):
            logits = q[:, i % s, j % s] * affinity[i // s, j // s]
            weights = logits.sigmoid().softmax(0)
            patch = window(x[b], i // s - k // 2, j // s - k // 2, k)
            out[b, :, i, j] = patch.flatten(1) @ weights
    return out


@pytest.mark.parametrize(
    ('scale', 'size', 'sides'),
    [
        (2, (8, 6), (3, 6)),
        (2, (7, 5), (5, 6)),
        (2, (7, 6), (3, 3)),
        (3, (7, 6), (3, 6)),
        (1, (3, 2), (1, 2)),
    ],
)
def test_follows_the_definition(scale, size, sides):
    layer = A2U(3, 6, scale, *sides).double()
    assert layer.norm_u.num_groups == 2
    for p in layer.parameters():
        nn.init.normal_(p)
    low = [-(-side // scale) for side in size]
    x = torch.randn(2, 3, *low, dtype=torch.float64)
    guide = torch.randn(2, 6, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x, guide), by_definition(layer, x, guide)
        )


def test_every_parameter_learns(device):
    layer = A2U(4, 6).to(device)
    x = torch.randn(2, 4, 3, 4, device=device, requires_grad=True)
    guide = torch.randn(2, 6, 5, 8, device=device, requires_grad=True)
    layer(x, guide).square().sum().backward()
    for tensor in (x, guide, *layer.parameters()):
        assert tensor.grad.abs().sum() > 0


def test_initializes_again():
    layer = A2U(64)
    for p in layer.parameters():
        nn.init.constant_(p, 9)
    layer.init_weights()
    for norm in (layer.norm_u, layer.norm_v):
        assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
    for conv in (layer.u, layer.v, layer.q):
        # PyTorch's bound for 64 inputs.
        assert 0.06 < conv.weight.abs().max() <= 0.125
        assert conv.bias.abs().max() <= 0.125
