import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmsapa.upsamplers import CARAFE

from .helpers import count_macs, in_millions, segformer_giga_macs, window


def make_layer(channels, **kwargs):
    return CARAFE(channels, 2, **kwargs)


@pytest.mark.parametrize(
    ('model', 'published'),
    [
        ('SegFormer-B1', 0.44),
        ('MaskFormer', 0.22),
        ('Mask2Former', 0.07),
        ('Faster R-CNN', 0.22),
    ],
)
def test_is_as_large_as_published(model, published):
    """SAPA's paper, semantic segmentation and object detection."""
    assert in_millions(make_layer, model) == published


def test_costs_what_is_published():
    """SAPA's paper, semantic segmentation: +1.45 G."""
    assert segformer_giga_macs(make_layer, by_pixel=0) == 1.45
    layer = CARAFE(16, 2, up_group=2)
    encoder, reassembly = 16 * 64 + 9 * 64 * 4 * 2 * 25, 4 * 25 * 16
    assert count_macs(layer, (1, 16, 5, 6)) == 30 * (encoder + reassembly)


def by_definition(layer, x):
    """The paper's formula, pixel by pixel, from the predicted logits."""
    s, k, groups = layer.scale_factor, layer.up_kernel, layer.up_group
    logits = layer.content_encoder(layer.channel_compressor(x))
    logits = F.pixel_shuffle(logits, s)
    out = x.new_zeros(*x.shape[:2], *logits.shape[2:])
    size = x.shape[1] // groups
    for b, group in itertools.product(range(x.shape[0]), range(groups)):
        channels = slice(group * size, (group + 1) * size)
        offsets = slice(group * k * k, (group + 1) * k * k)
        for i, j in itertools.product(*map(range, out.shape[2:])):
            patch = window(x[b, channels], i // s - k // 2, j // s - k // 2, k)
            weights = logits[b, offsets, i, j].softmax(0)
            out[b, channels, i, j] = patch.flatten(1) @ weights
    return out


@pytest.mark.parametrize(
    ('scale', 'arguments'),
    [
        (2, {}),
        (2, dict(up_kernel=3, up_group=2)),
        (3, dict(up_kernel=3, encoder_kernel=5, encoder_dilation=2)),
        (1, dict(up_kernel=1, encoder_kernel=1)),
    ],
)
def test_follows_the_definition(scale, arguments, device):
    layer = CARAFE(4, scale, compressed_channels=5, **arguments)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    x = torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        expected = by_definition(layer.double(), x.double())
        out = layer.float().to(device)(x.to(device)).cpu()
    assert out.shape == (2, 4, 5 * scale, 6 * scale)
    assert (out - expected).abs().max() <= 1e-6 * max(1, expected.abs().max())


@pytest.mark.parametrize(
    'arguments',
    [
        {},
        dict(up_kernel=3, up_group=4, encoder_kernel=5, encoder_dilation=2),
        dict(compressed_channels=16),
    ],
)
def test_has_the_parameters_of_mmcvs(arguments, carafe):
    ours = CARAFE(8, 2, **arguments)
    theirs = carafe.CARAFEPack(8, 2, **arguments)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    # Their reassembly has no CPU kernel.
    x = torch.randn(1, 8, 4, 5)
    logits = (
        layer.content_encoder(layer.channel_compressor(x))
        for layer in (ours, theirs)
    )
    torch.testing.assert_close(*logits)


def test_every_parameter_learns(device):
    layer = CARAFE(4, 2).to(device)
    x = torch.randn(2, 4, 3, 4, device=device, requires_grad=True)
    layer(x).square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad.abs().sum() > 0


def test_trains_under_autocast(device):
    layer = CARAFE(8, 2, up_group=2).to(device)
    x = torch.randn(2, 8, 4, 5, device=device, requires_grad=True)
    expected = layer(x)
    with torch.autocast(device, torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert (out - expected).abs().max() < 0.1
    out.float().square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad.isfinite().all() and tensor.grad.any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_close(dtype, device, float16):
    layer = CARAFE(8, 2).to(device)
    x = torch.randn(2, 8, 4, 5, device=device).to(dtype)
    with torch.no_grad():
        expected = layer(x.float())
        out = layer.to(dtype)(x)
    assert out.dtype == dtype
    assert (out - expected).abs().max() < 0.06


def test_initializes_again_near_the_mean_of_the_window():
    layer = CARAFE(64, 2)
    for p in layer.parameters():
        nn.init.constant_(p, 9)
    layer.init_weights()
    first, second = layer.channel_compressor, layer.content_encoder
    assert first.bias.eq(0).all() and second.bias.eq(0).all()
    # Glorot and Bengio: a variance of 2 over inputs and outputs.
    assert first.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert second.weight.std().item() == pytest.approx(0.001, rel=0.05)
    x = torch.randn(1, 64, 5, 5)
    mean = x.mean((2, 3))  # the window of the center is all of x
    torch.testing.assert_close(layer(x)[:, :, 4, 4], mean, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(up_kernel=4), 'odd kernel_size.*got 4'),
        (dict(encoder_kernel=2), 'odd kernel_size.*got 2'),
        (dict(up_kernel=257), r'scale_factor <= 512, got 257 \* 2'),
        (dict(up_group=3), 'divisible by up_group.*channels=8.*up_group=3'),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=f'^CARAFE: .*{words}'):
        CARAFE(8, 2, **arguments)
