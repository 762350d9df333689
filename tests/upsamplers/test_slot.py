import functools

import pytest
import torch
import torch.nn.functional as F

from mmsapa.upsamplers import SAPA, SlotMixin, UpsampleSlot

from .published import in_millions

LAYERS = [
    'sapa',
    'fade',
    'a2u',
    'indexnet',
    'dysample',
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
    if kind == 'carafe' and device == 'cpu':
        pytest.skip('carafe of mmcv has no CPU kernel')
    for size in ((4 * scale, 5 * scale), (4 * scale - 1, 5 * scale - 1)):
        guide = torch.randn(2, 8, *size, device=device)
        assert slot(x, guide).shape == guide.shape


@pytest.mark.parametrize(
    ('model', 'published'),
    [
        ('SegFormer-B1', 0.44),
        ('MaskFormer', 0.22),
        ('Mask2Former', 0.07),
        ('Faster R-CNN', 0.22),
    ],
)
def test_carafe_is_as_large_as_published(model, published):
    """SAPA's paper, semantic segmentation and object detection."""
    slot = functools.partial(UpsampleSlot, dict(type='carafe'))
    assert in_millions(slot, model) == published


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


def test_the_config_goes_before_the_defaults():
    slot = UpsampleSlot(
        dict(type='deconv', kernel_size=4, padding=1, bias=False), 4
    )
    assert slot.layer.kernel_size == (4, 4)
    assert slot.layer.stride == (2, 2)
    assert slot.layer.bias is None
    slot = UpsampleSlot(dict(type='sapa', kernel_size=3), 4, 3)
    assert (slot.layer.kernel_size, slot.layer.guide_channels) == (3, 3)


def test_a_class_serves_as_type():
    assert isinstance(UpsampleSlot(dict(type=SAPA), 4).layer, SAPA)


def test_mistakes_are_named():
    with pytest.raises(KeyError, match="got type='sappa'"):
        UpsampleSlot(dict(type='sappa'), 4)
    with pytest.raises(KeyError, match="a 'type'.*mode"):
        UpsampleSlot(dict(mode='nearest'), 4)
    with pytest.raises(TypeError, match='of SAPA .*variant.*got factor, up'):
        UpsampleSlot(dict(type='sapa', up=2, factor=2), 4)
    slot = UpsampleSlot(dict(type='deconv', padding=1), 4)
    with pytest.raises(ValueError, match=r'expected to reach.*\[8, 8\]'):
        slot(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 8, 8))


def test_an_inherited_mode_does_not_matter():
    inherited = dict(mode='nearest', scale_factor=2)
    slot = UpsampleSlot(dict(type='sapa', **inherited), 4)
    assert slot.layer.scale_factor == 2
    slot = UpsampleSlot(dict(type='bilinear', **inherited), 4)
    assert slot.layer.mode == 'bilinear'


class Parent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lateral_convs = torch.nn.ModuleList([torch.nn.Conv2d(1, 1, 1)])

    def forward(self, inputs):
        fine, coarse = inputs
        x = self.lateral_convs[0](fine)
        return x + F.interpolate(coarse, size=x.shape[2:])


class Child(SlotMixin, Parent):
    pass


def test_the_mixin_cleans_up_after_an_error():
    child = Child(upsample_cfg=dict(type='sapa'))
    (lateral,), (slot,) = child.lateral_convs, child.upsamplers
    fine, coarse = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2)
    with pytest.raises(ValueError, match='x with 1 channels'):
        child([fine, coarse.expand(1, 2, 2, 2)])
    assert child._guides is None  # no map is kept alive
    # Interpolation elsewhere is what it was.
    assert F.interpolate(torch.ones(1, 1, 2, 2), scale_factor=2).sum() == 16
    guide = lateral(fine)
    assert torch.equal(child([fine, coarse]), guide + slot(coarse, guide))


def test_a_parent_without_an_upsample_cfg_needs_a_type():
    with pytest.raises(KeyError, match="a 'type'.*mode"):
        Child(upsample_cfg=dict(mode='nearest'))
    assert not hasattr(Child(), 'upsamplers')


def test_an_upsample_cfg_is_a_dict():
    with pytest.raises(TypeError, match="type='sapa'.*got 'sapa'"):
        Child(upsample_cfg='sapa')


def test_slots_that_are_not_used_are_noticed():
    class Deconv(Parent):
        def forward(self, inputs):
            return self.lateral_convs[0](inputs[0])

    class WithSlot(SlotMixin, Deconv):
        pass

    inputs = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2)
    with pytest.raises(RuntimeError, match='interpolate 1 times, got 0'):
        WithSlot(upsample_cfg=dict(type='sapa'))(inputs)
    assert WithSlot()(inputs).shape == (1, 1, 4, 4)


def test_a_parent_without_steps_is_refused():
    class WithoutSteps(Child):
        laterals = ()

    with pytest.raises(ValueError, match='WithoutSteps: expected steps'):
        WithoutSteps(upsample_cfg=dict(type='sapa'))
