import itertools

import pytest
import torch
import torch.nn.functional as F

from mmsapa.upsamplers import DySample

FORMS = [
    dict(style=style, dyscope=dyscope)
    for style, dyscope in itertools.product(('lp', 'pl'), (False, True))
]


def test_number_of_parameters():
    offsets = dict(lp=64 * 2 * 4 * 4 + 2 * 4 * 4, pl=16 * 2 * 4 + 2 * 4)
    scopes = dict(lp=64 * 2 * 4 * 4, pl=16 * 2 * 4)
    for form in FORMS:
        layer = DySample(64, **form)
        expected = offsets[form['style']]
        expected += form['dyscope'] * scopes[form['style']]
        assert sum(p.numel() for p in layer.parameters()) == expected


@pytest.mark.parametrize(
    ('modules', 'form', 'published'),
    [
        (4, dict(style='pl', groups=8), 4.1),
        (4, dict(style='pl', groups=8, dyscope=True), 8.2),
        (4, dict(style='lp', groups=4), 32.7),
        (4, dict(style='lp', groups=4, dyscope=True), 65.5),
        (3, dict(style='lp', groups=4), 24.6),
        (3, dict(style='lp', groups=4, dyscope=True), 49.2),
    ],
)
def test_is_as_large_as_published(modules, form, published):
    """DySample's paper: Faster and Mask R-CNN, then Panoptic FPN, in 10^3.

    These are the weights; the biases, no more than 32 a module, are not in
    them. The first two detectors have one upsampler more than MMDetection's
    FPN, for P6. Of 32.768 and 65.536 the paper cuts the end off.
    """
    layer = DySample(256, **form)
    weights = sum(p.numel() for p in layer.parameters() if p.dim() > 1)
    assert modules * weights / 1e3 == pytest.approx(published, abs=0.1)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('scale', [1, 2, 3])
def test_without_offsets_it_is_bilinear(scale, form, device):
    layer = DySample(36, scale, **form).to(device)
    torch.nn.init.zeros_(layer.offset.weight)
    x = torch.randn(2, 36, 5, 7, device=device)
    expected = F.interpolate(x, scale_factor=scale, mode='bilinear')
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('form', FORMS)
def test_offsets_are_in_pixels_of_x_and_per_group(form):
    """Four units to the right at a reach of 0.25 are one pixel of x."""
    layer = DySample(8, 2, groups=2, **form)
    torch.nn.init.zeros_(layer.offset.weight)
    # In the order x, y; group; and, before the pixels are shuffled, phase.
    bias = layer.offset.bias.detach().view(2, 2, -1)
    bias[0, 1] = 4
    x = torch.randn(1, 8, 5, 7)
    out = layer(x)
    expected = F.interpolate(x, scale_factor=2, mode='bilinear')
    torch.testing.assert_close(out[:, :4], expected[:, :4])
    torch.testing.assert_close(
        out[:, 4:, :, :-3], expected[:, 4:, :, 2:-1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('form', FORMS)
def test_every_parameter_learns(form, device):
    layer = DySample(16, **form).to(device)
    x = torch.randn(1, 16, 5, 7, device=device, requires_grad=True)
    layer(x).square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad.abs().sum() > 0


def test_half_precision_samples_at_the_same_places(device):
    layer = DySample(8).to(device)
    x = torch.randn(1, 8, 5, 60, device=device).bfloat16()
    with torch.no_grad():
        expected = layer(x.float())
        out = layer.bfloat16()(x)
    assert out.dtype == torch.bfloat16
    assert (out - expected).abs().max() < 0.03


def test_initializes_again():
    layer = DySample(64)
    torch.nn.init.ones_(layer.offset.weight)
    layer.init_weights()
    assert layer.offset.weight.std() < 0.002


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(style='lpl'), "style 'lp' or 'pl', got 'lpl'"),
        (dict(groups=3), 'divisible by groups.*groups=3'),
        (dict(style='pl', groups=2, scale_factor=4), r'scale_factor \*\* 2'),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        DySample(**{'in_channels': 8, **arguments})
