import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmcv', reason='mmcv builds the layer of a slot')

from mmsapa.upsamplers import CARAFE, SAPA, UpsampleSlot  # noqa: E402

LAYERS = [
    'sapa',
    'fade',
    'a2u',
    'indexnet',
    'dysample',
    'max_unpool',
    'nearest',
    'bilinear',
    'deconv',
    'pixel_shuffle',
    'carafe',
]


@pytest.mark.parametrize('kind', LAYERS)
@pytest.mark.parametrize('scale', [2, 3])
def test_any_layer_reaches_the_guides_size(kind, scale, device):
    slot = UpsampleSlot(dict(type=kind), 8, scale_factor=scale).to(device)
    x = torch.randn(2, 8, 4, 5, device=device)
    # Levels that were halved by rounding up, and by rounding down.
    for off in (0, 1 - scale, scale - 1):
        guide = torch.randn(2, 8, 4 * scale + off, 5 * scale - off)
        assert slot(x, guide.to(device)).shape == guide.shape


@pytest.mark.parametrize('kind', ['a2u', 'indexnet', 'sapa'])
def test_a_guide_may_have_other_channels(kind):
    slot = UpsampleSlot(dict(type=kind), 8, 3)
    assert (slot.layer.in_channels, slot.layer.guide_channels) == (8, 3)
    out = slot(torch.randn(2, 8, 4, 5), torch.randn(2, 3, 7, 9))
    assert out.shape == (2, 8, 7, 9)


# Interpolation has no cells, and max unpooling leaves such a row zero.
@pytest.mark.parametrize(
    'kind', sorted({*LAYERS} - {'nearest', 'bilinear', 'max_unpool'})
)
def test_a_map_that_is_short_gets_its_last_row_once_more(kind):
    slot = UpsampleSlot(dict(type=kind), 8).double().eval()
    x = torch.randn(2, 8, 4, 5, dtype=torch.double, requires_grad=True)
    guide = torch.randn(2, 8, 9, 11, dtype=torch.double)
    longer = F.pad(x, [0, 1, 0, 1], mode='replicate')
    torch.testing.assert_close(slot(x, guide), slot(longer, guide))
    slot(x, guide).sum().backward()
    assert x.grad.abs().sum() > 0
    for size in ((7, 12), (10, 11), (6, 10), (8, 8)):
        with pytest.raises(ValueError, match='a guide 2 times the size of x'):
            slot(x, torch.randn(2, 8, *size, dtype=torch.double))


def test_carafe_is_ours_whatever_mmcv_has_registered(carafe):
    slot = UpsampleSlot(dict(type='carafe', up_kernel=3), 8)
    assert isinstance(slot.layer, CARAFE)
    theirs = UpsampleSlot(dict(type=carafe.CARAFEPack, up_kernel=3), 8)
    assert isinstance(theirs.layer, carafe.CARAFEPack)
    slot.load_state_dict(theirs.state_dict())
    assert UpsampleSlot(dict(type='mmsapa.carafe'), 8).layer.up_kernel == 5


def test_interpolation_is_torchs_own():
    x, guide = torch.randn(1, 4, 5, 7), torch.randn(1, 4, 9, 14)
    for cfg in (
        dict(type='nearest'),
        dict(type='bilinear'),
        dict(type='bilinear', align_corners=True),
    ):
        expected = F.interpolate(
            x,
            (9, 14),
            mode=cfg['type'],
            align_corners=cfg.get('align_corners'),
        )
        assert torch.equal(UpsampleSlot(cfg, 4)(x, guide), expected)


def test_config_values_override_the_defaults():
    slot = UpsampleSlot(
        dict(type='deconv', kernel_size=4, padding=1, bias=False), 4
    )
    assert slot.layer.kernel_size == (4, 4)
    assert slot.layer.stride == (2, 2)
    assert slot.layer.bias is None
    slot = UpsampleSlot(dict(type='sapa', kernel_size=3), 4, 3)
    assert (slot.layer.kernel_size, slot.layer.guide_channels) == (3, 3)


@pytest.mark.parametrize('kind', ['sapa', 'carafe', 'deconv', 'dysample'])
def test_the_scale_of_the_config_is_that_of_the_slot(kind):
    scale = 'stride' if kind == 'deconv' else 'scale_factor'
    cfg = dict(type=kind, **{scale: 4})
    if kind == 'deconv':
        cfg['kernel_size'] = 4
    x, guide = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 12, 12)
    assert UpsampleSlot(cfg, 4)(x, guide).shape == guide.shape


def test_a_class_serves_as_type():
    assert isinstance(UpsampleSlot(dict(type=SAPA), 4).layer, SAPA)

    class Sevens(torch.nn.Upsample):
        def forward(self, x):
            return super().forward(x) * 0 + 7

    x, guide = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 6, 6)
    out = UpsampleSlot(dict(type=Sevens, mode='nearest'), 4)(x, guide)
    assert (out == 7).all()


def test_mistakes_are_named():
    with pytest.raises(KeyError, match="got type='sappa'"):
        UpsampleSlot(dict(type='sappa'), 4)
    with pytest.raises(KeyError, match="a 'type'.*mode"):
        UpsampleSlot(dict(mode='nearest'), 4)
    with pytest.raises(TypeError, match='of SAPA .*variant.*got factor, up'):
        UpsampleSlot(dict(type='sapa', up=2, factor=2), 4)
    slot = UpsampleSlot(dict(type='deconv', padding=1), 4)
    x, guide = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 8, 8)
    with pytest.raises(ValueError, match=r'\[1, 4, 8, 8\].*got \[1, 4, 6, 6'):
        slot(x, guide)
    # Four times the size is not cropped.
    slot = UpsampleSlot(dict(type='deconv', stride=4, kernel_size=4), 4)
    with pytest.raises(ValueError, match=r'a guide 4 times.*got \[8, 8\] for'):
        slot(x, guide)


class Wrong(torch.nn.Module):
    """A guided layer that returns a single pixel."""

    def forward(self, x, guide):
        return x[..., :1, :1]


def test_what_would_be_broadcast_is_refused():
    slot = UpsampleSlot(dict(type=Wrong), 4)
    with pytest.raises(ValueError, match=r'Wrong: expected .*\[1, 4, 1, 1\]'):
        slot(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 8, 8))


def test_an_inherited_mode_does_not_matter():
    inherited = dict(mode='nearest', scale_factor=2)
    slot = UpsampleSlot(dict(type='sapa', **inherited), 4)
    assert slot.layer.scale_factor == 2
    slot = UpsampleSlot(dict(type='bilinear', **inherited), 4)
    assert slot.layer.mode == 'bilinear'
