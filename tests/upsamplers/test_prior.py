"""SAPA that starts as an interpolation."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmsapa.upsamplers import SAPA, UpsampleSlot
from mmsapa.upsamplers.presets import PRESETS

VARIANTS = ['I', 'B', 'G']
MODES = ['bilinear', 'nearest']
# What makes queries.
QUERIES = {
    'I': ('norm_guide.',),
    'B': ('query.',),
    'G': ('query.', 'query_x.'),
}
# What the floor leaves to 25 places, of numbers up to 1 apart.
LEAK = 25 * math.exp(-10)


def maps(size=(10, 14), channels=6, scale=2):
    cells = [-(-side // scale) for side in size]
    x = torch.rand(2, channels, *cells)
    return x, torch.randn(2, channels, *size)


def interpolate(x, guide, mode, scale=2):
    align_corners = False if mode == 'bilinear' else None
    out = F.interpolate(
        x, scale_factor=scale, mode=mode, align_corners=align_corners
    )
    return out[..., : guide.shape[2], : guide.shape[3]]


def reached(layer):
    """The parameters that have a gradient."""
    return {
        name
        for name, parameter in layer.named_parameters()
        if parameter.grad.abs().sum() > 0
    }


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize(
    ('kernel_size', 'scale'), [(5, 2), (3, 3), (5, 4), (3, 1)]
)
def test_starts_as_the_interpolation(
    kernel_size, scale, mode, variant, device
):
    layer = SAPA(
        6,
        variant=variant,
        embed_dims=4,
        kernel_size=kernel_size,
        scale_factor=scale,
        prior=mode,
    ).to(device)
    for size in ((12, 24), (11, 19), (1, 2)):
        x, guide = (t.to(device) for t in maps(size, scale=scale))
        expected = interpolate(x, guide, mode, scale)
        assert (layer(x, guide) - expected).abs().max() < LEAK


@pytest.mark.parametrize('floor', [-7, -4.0])
def test_the_floor_is_what_the_start_is_off_by(floor):
    layer = SAPA(6, prior='bilinear', prior_floor=floor)
    x, guide = maps()
    off = (layer(x, guide) - interpolate(x, guide, 'bilinear')).abs().max()
    leak = 25 * math.exp(floor)
    assert leak / 100 < off < leak
    assert layer.prior_logits.min() == floor
    with pytest.raises(ValueError, match='floor from -1000 to below 0, got 1'):
        SAPA(6, prior='bilinear', prior_floor=1)
    with pytest.raises(ValueError, match='a prior with prior_floor=-4, got n'):
        SAPA(6, prior_floor=-4)


def test_weights_bring_the_prior_to_memory_that_was_left_empty():
    layer, weights = SAPA(6, prior='bilinear'), SAPA(6).state_dict()
    expected = layer.prior_logits.clone()
    layer.to_empty(device='cpu').prior_logits.fill_(torch.nan)
    layer.load_state_dict(weights)
    assert torch.equal(layer.prior_logits, expected)


@pytest.mark.parametrize('mode', MODES)
def test_a_guide_beyond_the_map_sees_its_border_twice(mode):
    layer = SAPA(6, prior=mode)
    x, guide = torch.rand(1, 6, 5, 7), torch.randn(1, 6, 11, 14)
    longer = F.pad(x, (0, 0, 0, 1), mode='replicate')
    expected = interpolate(longer, guide, mode)
    assert (layer(x, guide) - expected).abs().max() < LEAK


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('mode', MODES)
def test_gradients_reach_the_query_first_and_the_rest_after_a_step(
    mode, variant
):
    layer = SAPA(6, variant=variant, embed_dims=4, prior=mode)
    optimizer = torch.optim.AdamW(layer.parameters(), 1e-2)
    x, guide = maps()
    names = {name for name, _ in layer.named_parameters()}
    first = {name for name in names if name.startswith(QUERIES[variant])}
    # A constant part of the keys moves all logits of a query alike, which the
    # softmax does not see: what is left there is rounding.
    unseen = {'norm_x.bias', 'key.bias'}
    for expected in (first, names):
        optimizer.zero_grad()
        layer(x, guide).square().sin().sum().backward()
        assert reached(layer) - unseen == expected - unseen
        optimizer.step()


@pytest.mark.parametrize('variant', VARIANTS)
def test_learns_to_depart_from_the_interpolation(variant):
    """To the guide, where that has an edge that x does not show."""
    layer = SAPA(4, variant=variant, embed_dims=8, prior='bilinear')
    generator = torch.Generator().manual_seed(0)
    guide = torch.randn(1, 4, 16, 16, generator=generator).sign()
    x = guide[..., ::2, ::2].clone()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = F.mse_loss(layer(x, guide), guide)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize('variant', VARIANTS)
def test_weights_are_those_of_forward(variant, device):
    layer = SAPA(8, variant=variant, prior='bilinear').to(device).double()
    for p in layer.parameters():
        nn.init.normal_(p)
    x, guide = (t.to(device).double() for t in maps((9, 14), channels=8))
    weights = layer.kernels(x, guide)
    windows = F.unfold(x, 5, padding=2).view(2, 8, 25, 5, 7)
    windows = windows.repeat_interleave(2, 3).repeat_interleave(2, 4)
    expected = (windows[..., :9, :14] * weights.unsqueeze(1)).sum(2)
    torch.testing.assert_close(layer(x, guide), expected)


@pytest.mark.parametrize('variant', VARIANTS)
def test_checkpoints_and_copies(variant):
    """Checkpoints are the same with a prior and without."""
    plain = SAPA(6, variant=variant)
    started = SAPA(6, variant=variant, prior='nearest')
    for p in plain.parameters():
        nn.init.normal_(p)
    started.load_state_dict(plain.state_dict())
    plain.load_state_dict(started.state_dict())
    x, guide = maps()
    assert not torch.allclose(plain(x, guide), started(x, guide), atol=1e-3)
    copied = copy.deepcopy(started)
    assert torch.equal(copied(x, guide), started(x, guide))


@pytest.mark.parametrize('variant', VARIANTS)
def test_initializes_again(variant):
    layer = SAPA(6, variant=variant, prior='bilinear')
    x, guide = maps()
    expected = layer(x, guide)
    for p in layer.parameters():
        nn.init.constant_(p, 0.1)
    assert not torch.equal(layer(x, guide), expected)
    layer.init_weights()
    assert torch.equal(layer(x, guide), expected)


def test_initializes_what_was_made_without_memory():
    with torch.device('meta'):
        layer = SAPA(6, prior='bilinear')
    x, guide = maps()
    assert layer(x.to('meta'), guide.to('meta')).is_meta
    layer = layer.to_empty(device='cpu')
    for t in layer.state_dict().values():
        t.fill_(7)
    layer.prior_logits.fill_(7)
    layer.reset_parameters()
    expected = interpolate(x, guide, 'bilinear')
    assert (layer(x, guide) - expected).abs().max() < LEAK


@pytest.mark.parametrize('assign', [False, True])
def test_loads_what_was_made_without_memory(assign):
    there = nn.Sequential(SAPA(6, prior='bilinear')).double()
    nn.init.normal_(there[0].query.weight)
    with torch.device('meta'):
        layer = nn.Sequential(SAPA(6, prior='bilinear')).double()
    if not assign:
        layer = layer.to_empty(device='cpu')
    layer.load_state_dict(there.state_dict(), assign=assign)
    x, guide = (t.double() for t in maps())
    assert torch.equal(layer[0](x, guide), there[0](x, guide))


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_layer_cast_to_another_dtype_keeps_its_prior(dtype):
    layer = SAPA(6, prior='bilinear').to(dtype)
    x, guide = (t.to(dtype) for t in maps())
    out = layer(x, guide)
    assert out.dtype == dtype
    error = (out - interpolate(x, guide, 'bilinear')).abs().max()
    assert error < LEAK + (dtype == torch.bfloat16) * 0.02


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('mode', MODES)
def test_trains_under_autocast(mode, dtype, device):
    """The floor is not so low that half precision loses its gradient."""
    layer = SAPA(6, embed_dims=4, prior=mode).to(device)
    x, guide = (t.to(device) for t in maps())
    grads = []
    for enabled in (False, True):
        with torch.autocast(device, dtype, enabled=enabled):
            out = layer(x, guide)
        grads += torch.autograd.grad(
            out.float().square().sum(), layer.query.weight
        )
    assert (out - interpolate(x, guide, mode)).abs().max() < 0.02
    error = (grads[1] - grads[0]).abs().max()
    assert 0 < error < 0.1 * grads[0].abs().max()


@pytest.mark.parametrize(
    'name', [name for name in PRESETS if 'prior' in PRESETS[name]]
)
def test_presets_start_as_the_interpolation_of_their_name(name):
    x, guide = maps()
    slot = UpsampleSlot(PRESETS[name], 6)
    slot.init_weights()
    expected = UpsampleSlot(PRESETS[name.split('-')[-1]], 6)(x, guide)
    assert (slot(x, guide) - expected).abs().max() < LEAK


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(prior='bicubic'), "'bilinear' or 'nearest', got 'bicubic'"),
        (dict(prior=True), "'bilinear' or 'nearest', got True"),
        (dict(prior='nearest', kernel_size=1), 'kernel_size >= 3'),
    ],
)
def test_bad_settings_are_named(kwargs, words):
    with pytest.raises(ValueError, match=words):
        SAPA(8, **kwargs)
