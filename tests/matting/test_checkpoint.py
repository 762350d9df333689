"""Checkpoints by the names of A2U's release, which the reference spells."""

import pytest
import torch

from mmsapa.engine.checkpoint import load_weights
from mmsapa.matting import from_a2u

from ..helpers import call, error
from .helpers import WIDTH, make_mattor
from .reference import release_weights

CONVERTER = 'model_converters/a2u2mmsapa'


@pytest.fixture
def release():
    """What the release saves."""
    weights = release_weights(WIDTH)
    return dict(
        state_dict={f'module.{k}': value for k, value in weights.items()},
        epoch=30,
    )


def test_a_checkpoint_of_the_release_is_converted_whole(
    release, tmp_path, monkeypatch
):
    source, target = tmp_path / 'model.pth', tmp_path / 'a2u.pth'
    torch.save(release, source)
    call(monkeypatch, CONVERTER, source, target)
    model = make_mattor()
    # Strictly: nothing is missing, left over or of another size.
    model.load_state_dict(torch.load(target)['state_dict'])
    load_weights(model, str(target))
    weights = release['state_dict']
    for ours, theirs in {
        'backbone.layer3.0.downsample.0.weight': 'layer3_1.proj_conv.weight',
        'backbone.layer2.3.conv2.weight': 'layer2_2.block3.convs.conv2.weight',
        'decode_head.aspp.branches.2.1.0.weight': (
            'dconv_pp.aspp3.atrous_conv.2.weight'
        ),
        'decode_head.laterals.3.1.running_var': 'short0.1.running_var',
        'decode_head.fuse.1.0.downsample.1.bias': (
            'decoder_layer3.dconv.proj_bn.bias'
        ),
        'decode_head.conv_alpha.1.weight': 'pred.1.weight',
    }.items():
        value = weights[f'module.{theirs}']
        assert torch.equal(model.state_dict()[ours], value)


def test_weights_of_norms_become_positive(release):
    theirs = release['state_dict']['module.layer0.1.weight']
    assert theirs.min() < 0
    ours = from_a2u(release['state_dict'])['backbone.bn1.weight']
    torch.testing.assert_close(ours, theirs.abs() + 1e-5, rtol=0, atol=0)


def test_another_model_is_named(release, tmp_path, monkeypatch):
    release['state_dict']['module.index0.conv.weight'] = torch.rand(3)
    torch.save(release, tmp_path / 'model.pth')
    message = error(
        monkeypatch, CONVERTER, tmp_path / 'model.pth', tmp_path / 'a2u.pth'
    )
    assert "expected weights of A2U matting's baseline" in message
    assert 'got index0.conv.weight; take a checkpoint with max' in message
    assert not (tmp_path / 'a2u.pth').exists()
