"""Checkpoints by the names of BTS's release, which the reference spells."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.registry import MODELS  # noqa: E402

from mmsapa.depth import StemResNet, from_bts  # noqa: E402
from mmsapa.engine.checkpoint import load_weights  # noqa: E402

from ..helpers import call, error  # noqa: E402
from .reference import decoder_weights  # noqa: E402

CHANNELS = (64, 8, 16, 32, 64)
BACKBONE = dict(depth=18, base_channels=8)
MODEL = dict(
    type='DepthEstimator',
    backbone=dict(type='mmsapa.StemResNet', **BACKBONE),
    decode_head=dict(
        type='mmsapa.BTSHead', in_channels=CHANNELS, num_features=128
    ),
    test_cfg=dict(mode='whole'),
)
CONVERTER = 'model_converters/bts2mmseg'


@pytest.fixture
def release():
    """What the release saves, with optimizer, step and best figures."""
    encoder = StemResNet(**BACKBONE).state_dict()
    classifier = {'fc.weight': torch.rand(1000, 64), 'fc.bias': torch.rand(9)}
    weights = {
        f'encoder.base_model.{name}': value
        for name, value in (encoder | classifier).items()
    }
    weights |= decoder_weights(CHANNELS, 128)
    return dict(
        global_step=np.int64(302_900),
        model={f'module.{name}': value for name, value in weights.items()},
        best_eval_steps=np.zeros(9, np.int32),
    )


def test_a_checkpoint_of_the_release_is_converted_whole(
    release, scope, tmp_path, monkeypatch
):
    scope('mmseg')
    source, target = tmp_path / 'model', tmp_path / 'bts.pth'
    torch.save(release, source)
    call(monkeypatch, CONVERTER, source, target)
    model = MODELS.build(MODEL)
    # Strictly: nothing is missing, left over or of another size.
    model.load_state_dict(torch.load(target)['state_dict'])
    load_weights(model, str(target))
    weights = release['model']
    for ours, theirs in {
        'backbone.layer4.0.downsample.1.bias': (
            'encoder.base_model.layer4.0.downsample.1.bias'
        ),
        'decode_head.up_conv2.0.weight': 'decoder.upconv2.conv.weight',
        'decode_head.norm4_merged.running_var': 'decoder.bn4_2.running_var',
        'decode_head.reduce8.2.weight': (
            'decoder.reduc8x8.reduc.inter_32_16.0.weight'
        ),
        'decode_head.reduce1.0.weight': (
            'decoder.reduc1x1.reduc.final.0.weight'
        ),
    }.items():
        value = weights[f'module.{theirs}']
        assert torch.equal(model.state_dict()[ours], value)


def test_the_order_of_weights_does_not_matter(release):
    weights = release['model']
    expected = from_bts(weights)
    found = from_bts(dict(reversed([*weights.items()])))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def test_another_encoder_is_named(release, tmp_path, monkeypatch):
    weights = release['model']
    weights['module.encoder.base_model.denseblock1.norm.bias'] = torch.rand(3)
    torch.save(release, tmp_path / 'model')
    message = error(
        monkeypatch, CONVERTER, tmp_path / 'model', tmp_path / 'bts.pth'
    )
    assert 'expected weights of BTS with a ResNet' in message
    assert 'got encoder.base_model.denseblock1.norm.bias' in message
    assert not (tmp_path / 'bts.pth').exists()
