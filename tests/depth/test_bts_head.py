import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip('mmseg')

from mmengine.structures import PixelData  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from mmsapa.depth import (  # noqa: E402
    BTSHead,
    StemResNet,
    from_bts,
    local_planar_guidance,
    to_plane,
)

from ..upsamplers.helpers import assert_initialized, parameters  # noqa: E402
from .reference import decode, decoder_weights, depths_of_planes  # noqa: E402

CHANNELS = (4, 8, 6, 10, 16)
SAPA_B, SAPA_G = (dict(type='sapa', variant=variant) for variant in 'BG')


def features(height=64, width=96, n=2):
    return [
        torch.randn(n, c, height // s, width // s).relu()
        for c, s in zip(CHANNELS, (2, 4, 8, 16, 32), strict=True)
    ]


def samples(height=64, width=96, **metainfo):
    metainfo['img_shape'] = height, width
    depths = torch.rand(2, 1, height, width) * 9 + 0.5
    return [
        SegDataSample(gt_depth_map=PixelData(data=x), metainfo=metainfo)
        for x in depths
    ]


def head_of_release(**settings):
    """A head in float64 that holds weights by the release's names."""
    weights = decoder_weights(CHANNELS, 128)
    head = BTSHead(CHANNELS, 128, **settings)
    ours = {
        name.removeprefix('decode_head.'): weight
        for name, weight in from_bts(weights).items()
    }
    keys = head.load_state_dict(ours, strict=False)
    assert not keys.unexpected_keys
    assert all(key.startswith('upsamplers.') for key in keys.missing_keys)
    return head.double(), {k: v.double() for k, v in weights.items()}


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('upsample_cfg', [None, SAPA_B, SAPA_G])
def test_computes_the_formulas_of_bts(upsample_cfg, training):
    head, weights = head_of_release(upsample_cfg=upsample_cfg, max_depth=7.0)
    head.train(training)
    maps = [x.double() for x in features()]
    ups = {}
    if upsample_cfg:
        ups['ups'] = [slot.layer for slot in head.upsamplers]
    expected = decode(weights, maps, 7.0, training, **ups)
    outputs = head.decode(maps)
    assert len(outputs) == 5
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == (2, 1, 64, 96) and theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(head(maps), outputs[-1])


@pytest.mark.parametrize('scale', [2, 4, 8])
def test_depths_lie_on_the_planes(scale):
    logits = 2 * torch.randn(2, 3, 5, 7, dtype=torch.float64)
    normal, distance = to_plane(logits, 10.0)
    torch.testing.assert_close(
        normal.square().sum(1), torch.ones(2, 5, 7, dtype=torch.float64)
    )
    torch.testing.assert_close(
        local_planar_guidance(normal, distance, scale),
        depths_of_planes(*logits.sigmoid().unbind(1), scale, 10.0),
    )


def test_depths_stay_positive_where_a_ray_misses_its_plane():
    # A tilt of 60 degrees towards a corner.
    logits = torch.tensor([40.0, math.log(1 / 7), 0.0]).view(1, 3, 1, 1)
    logits.requires_grad_()
    depth = local_planar_guidance(*to_plane(logits, 10.0), 8)
    assert depth.min() > 0 and depth.max() == 5 / 1e-3
    depth.log().sum().backward()
    assert logits.grad.isfinite().all()


def on_meta(module, **settings):
    with torch.device('meta'):
        made = module(**settings)
    made.eval()
    return made


def macs(module, inputs):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs = module(inputs)
    # torch's counter takes a multiply-accumulate for two.
    return counter.get_total_flops() / 2e9, outputs


def test_parameters_are_the_published_ones():
    backbone, head = on_meta(StemResNet), on_meta(BTSHead)
    assert parameters(head) == 23_973_936
    assert parameters(backbone) + parameters(head) == 47_481_968
    # torchvision's classifier of 1000 classes, built and never called.
    classifier = 2048 * 1000 + 1000
    assert 47_481_968 + classifier == 49_530_968  # 49.53 M
    for upsample_cfg, more in ((SAPA_B, 159_104), (SAPA_G, 252_164)):
        other = on_meta(BTSHead, upsample_cfg=upsample_cfg)
        assert parameters(other) - parameters(head) == more


def test_carafe_adds_the_published_parameters():
    head = on_meta(BTSHead, upsample_cfg=dict(type='carafe'))
    assert parameters(head) - 23_973_936 == 411_280


def test_multiply_accumulates_of_the_training_crop():
    image = torch.empty(1, 3, 416, 544, device='meta')
    encoder, maps = macs(on_meta(StemResNet), image)
    decoder, depth = macs(on_meta(BTSHead), maps)
    assert (round(encoder, 2), round(decoder, 2)) == (18.43, 61.93)
    assert depth.shape == (1, 1, 416, 544)
    for upsample_cfg, more in ((SAPA_B, 0.80), (SAPA_G, 0.90)):
        head = on_meta(BTSHead, upsample_cfg=upsample_cfg)
        assert round(macs(head, maps)[0] - decoder, 2) == more


LAYERS = ['nearest', 'bilinear', 'deconv', 'pixel_shuffle', 'carafe', 'a2u']
LAYERS += ['indexnet', 'dysample', 'sapa', SAPA_B]
LAYERS += [dict(type='fade', gate=False)]


@pytest.mark.parametrize('kind', LAYERS, ids=str)
def test_every_layer_is_trained(kind, device):
    cfg = kind if isinstance(kind, dict) else dict(type=kind)
    head = BTSHead(CHANNELS, 64, upsample_cfg=cfg).to(device)
    head.init_weights()
    inputs = [x.to(device) for x in features()]
    truth = [sample.to(device) for sample in samples()]
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    values = []
    for _ in range(3):
        loss = head.loss(inputs, truth, None)['loss_silog']
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for name, p in head.named_parameters():
            assert p.grad.isfinite().all() and p.grad.any(), name
        optimizer.step()
    assert values[-1] < values[0]


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [
        (dict(type='sapa', variant='I'), "take variant 'B' or 'G'"),
        (dict(type='fade'), 'take gate=False'),
    ],
)
def test_layers_that_need_equal_channels_are_refused(kind, reason):
    with pytest.raises(ValueError, match=reason):
        BTSHead(CHANNELS, 64, upsample_cfg=kind)


def test_upsample_layers_keep_their_own_initialization():
    head = BTSHead([128] * 5, 512, upsample_cfg=SAPA_G)
    head.init_weights()
    for slot in head.upsamplers:
        assert_initialized(slot.layer)
    weight = head.conv5[0].weight.detach()
    fan_in, fan_out = 9 * (512 + 128), 9 * 512
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


@pytest.mark.parametrize('size', [(64, 80), (48, 64)])
def test_other_sides_than_multiples_of_32_are_refused(size):
    head = BTSHead(CHANNELS, 64)
    maps = [torch.randn(1, 3, *size)]
    for c in CHANNELS:
        half = [math.ceil(side / 2) for side in maps[-1].shape[2:]]
        maps.append(torch.randn(1, c, *half))
    with pytest.raises(ValueError, match='multiples of 32.*size_divisor=32'):
        head(maps[1:])


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match='five maps.*multiple of 16'):
        BTSHead(CHANNELS[1:], 64)
    with pytest.raises(ValueError, match='num_features=40'):
        BTSHead(CHANNELS, 40)


def test_depths_scale_with_the_focal_length():
    plain, scaled = (
        BTSHead(CHANNELS, 64, reference_focal=focal).eval()
        for focal in (None, 700.0)
    )
    scaled.load_state_dict(plain.state_dict())
    maps = features()
    metas = [sample.metainfo for sample in samples()]
    depth = plain.predict(maps, metas, None)
    with pytest.raises(ValueError, match="metainfo without 'focal'"):
        scaled.predict(maps, metas, None)
    for meta, focal in zip(metas, (700.0, 1050.0), strict=True):
        meta['focal'] = focal
    expected = depth * torch.tensor([1.0, 1.5]).view(2, 1, 1, 1)
    torch.testing.assert_close(scaled.predict(maps, metas, None), expected)
    truth = samples(focal=1050.0)
    expected = plain.loss(maps, truth, None)
    for sample in truth:
        sample.gt_depth_map.data = 1.5 * sample.gt_depth_map.data
    torch.testing.assert_close(scaled.loss(maps, truth, None), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_left_for_planes_and_depths(dtype, device, float16):
    head = BTSHead(CHANNELS, 64).eval().to(device)
    maps = [x.to(device) for x in features()]
    with torch.no_grad():
        expected = head.decode(maps)
        outputs = head.to(dtype).decode([x.to(dtype) for x in maps])
    assert [x.dtype for x in outputs] == [dtype] * 4 + [torch.float32]
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.1, atol=0.1)
