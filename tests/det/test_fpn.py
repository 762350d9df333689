import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.models.necks import FPN as MMDetFPN  # noqa: E402

from mmsapa.det import FPN  # noqa: E402
from mmsapa.upsamplers import SAPA  # noqa: E402

from ..upsamplers.test_sapa import assert_initialised  # noqa: E402

SETTINGS = dict(in_channels=[4, 8, 16, 32], out_channels=8)


def features(height=50, width=84):
    sizes = [(height, width)]
    for _ in range(3):
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    return [
        torch.randn(2, channels, *size)
        for channels, size in zip(SETTINGS['in_channels'], sizes, strict=True)
    ]


@pytest.mark.parametrize('kind', [None, 'nearest', 'bilinear'])
@pytest.mark.parametrize(
    'more',
    [
        dict(num_outs=5),
        dict(num_outs=5, start_level=1, add_extra_convs='on_input'),
        dict(num_outs=5, start_level=1, add_extra_convs='on_output'),
        dict(num_outs=4, norm_cfg=dict(type='GN', num_groups=2)),
    ],
)
def test_computes_what_its_parent_computes(kind, more):
    theirs = dict(upsample_cfg=dict(mode=kind)) if kind else {}
    ours = dict(upsample_cfg=dict(type=kind)) if kind else {}
    parent = MMDetFPN(**SETTINGS, **more, **theirs)
    child = FPN(**SETTINGS, **more, **ours)
    child.load_state_dict(parent.state_dict())
    inputs = features()
    for a, b in zip(parent(inputs), child(inputs), strict=True):
        assert torch.equal(a, b)


def test_guides_are_the_laterals_before_the_addition():
    fpn = FPN(**SETTINGS, num_outs=4, upsample_cfg=dict(type='sapa'))
    inputs = features(25, 43)
    laterals = [
        conv(x) for conv, x in zip(fpn.lateral_convs, inputs, strict=True)
    ]
    merged = laterals[3]
    for level in (2, 1, 0):
        layer = fpn.upsamplers[level].layer
        assert isinstance(layer, SAPA)
        merged = laterals[level] + layer(merged, laterals[level])
        expected = fpn.fpn_convs[level](merged)
        torch.testing.assert_close(fpn(inputs)[level], expected)


def test_stock_checkpoint_lacks_the_upsamplers_alone():
    parent = MMDetFPN(**SETTINGS, num_outs=5)
    child = FPN(**SETTINGS, num_outs=5, upsample_cfg=dict(type='sapa'))
    keys = child.load_state_dict(parent.state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert {key.split('.')[0] for key in keys.missing_keys} == {'upsamplers'}


def test_initialisation_survives_the_necks():
    settings = dict(SETTINGS, out_channels=256)
    fpn = FPN(**settings, num_outs=5, upsample_cfg=dict(type='sapa'))
    fpn.init_weights()
    for slot in fpn.upsamplers:
        assert_initialised(slot.layer)


def test_every_upsampler_is_trained():
    fpn = FPN(**SETTINGS, num_outs=5, upsample_cfg=dict(type='sapa'))
    sum(out.square().mean() for out in fpn(features())).backward()
    for name, p in fpn.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
