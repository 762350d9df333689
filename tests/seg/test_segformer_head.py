import copy

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')

from mmseg.models.decode_heads import (  # noqa: E402
    SegformerHead as MMSegSegformerHead,
)

from mmsapa.seg import SegformerHead  # noqa: E402
from mmsapa.upsamplers import SAPA  # noqa: E402

SETTINGS = dict(
    in_channels=[4, 8, 12, 16],
    in_index=[0, 1, 2, 3],
    channels=8,
    num_classes=5,
    norm_cfg=dict(type='BN'),
)


def features(sizes=((32, 43), (16, 22), (8, 11), (4, 6))):
    """Of an image whose sides are not multiples of 32, by default."""
    return [
        torch.randn(2, channels, *size)
        for channels, size in zip(SETTINGS['in_channels'], sizes, strict=True)
    ]


@pytest.mark.parametrize('mode', ['bilinear', 'nearest', None])
def test_computes_what_its_parent_computes(mode):
    theirs = dict(interpolate_mode=mode) if mode else {}
    ours = dict(upsample_cfg=dict(type=mode)) if mode else {}
    align_corners = False if mode == 'bilinear' else None
    parent = MMSegSegformerHead(
        **SETTINGS, **theirs, align_corners=align_corners
    ).eval()
    child = SegformerHead(
        **SETTINGS, **ours, align_corners=align_corners
    ).eval()
    child.load_state_dict(parent.state_dict())
    inputs = features()
    assert torch.equal(parent(inputs), child(inputs))


class Doubled(torch.nn.Module):
    """Bilinear interpolation that a slot takes step by step."""

    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode='bilinear')


def test_a_prior_starts_as_bilinear_steps():
    """Its parent takes them at once, which is less smooth."""
    sapa = dict(type='sapa', prior='bilinear')
    head = SegformerHead(**SETTINGS, upsample_cfg=sapa).eval()
    steps = SegformerHead(**SETTINGS, upsample_cfg=dict(type=Doubled)).eval()
    at_once = MMSegSegformerHead(**SETTINGS, align_corners=False).eval()
    for other in (steps, at_once):
        keys = other.load_state_dict(head.state_dict(), strict=False)
        assert not keys.missing_keys
    inputs = features([(32, 40), (16, 20), (8, 10), (4, 5)])
    out, expected, parents = (f(inputs) for f in (head, steps, at_once))
    error = (out - expected).abs().max()
    assert error < 2e-3 * expected.abs().max()
    assert (out - parents).abs().max() > 5 * error


def test_guides_are_the_embedded_maps():
    head = SegformerHead(**SETTINGS, upsample_cfg=dict(type='sapa')).eval()
    inputs = features()
    c = [conv(x) for conv, x in zip(head.convs, inputs, strict=True)]
    outs = [c[0]]
    for level in (1, 2, 3):
        x = c[level]
        for step in reversed(range(level)):
            layer = head.upsamplers[level - 1][step].layer
            assert isinstance(layer, SAPA)
            x = layer(x, c[step])
        outs.append(x)
    expected = head.cls_seg(head.fusion_conv(torch.cat(outs, 1)))
    torch.testing.assert_close(head(inputs), expected)
    assert sum(isinstance(m, SAPA) for m in head.modules()) == 6


def test_stock_checkpoint_lacks_the_upsamplers_alone():
    parent = MMSegSegformerHead(**SETTINGS)
    child = SegformerHead(**SETTINGS, upsample_cfg=dict(type='sapa'))
    keys = child.load_state_dict(parent.state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert {key.split('.')[0] for key in keys.missing_keys} == {'upsamplers'}


def test_linear_embedding_has_neither_norm_nor_activation():
    head = SegformerHead(**SETTINGS, embedding='linear')
    for conv, channels in zip(
        head.convs, SETTINGS['in_channels'], strict=True
    ):
        assert type(conv) is torch.nn.Conv2d
        assert conv.weight.shape == (8, channels, 1, 1)
    with pytest.raises(ValueError, match="got 'mlp'"):
        SegformerHead(**SETTINGS, embedding='mlp')


@pytest.mark.parametrize(
    'kind', ['sapa', 'fade', 'a2u', 'indexnet', 'deconv', 'pixel_shuffle']
)
def test_every_upsampler_is_trained(kind):
    head = SegformerHead(**SETTINGS, upsample_cfg=dict(type=kind))
    head(features()).square().mean().backward()
    for name, p in head.upsamplers.named_parameters():
        assert p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


@pytest.mark.skipif(
    not hasattr(torch.compiler, 'is_exporting'), reason='needs torch 2.7'
)
def test_exports_with_its_hooks():
    head = SegformerHead(**SETTINGS, upsample_cfg=dict(type='sapa')).eval()
    inputs = features()
    program = torch.export.export(head, (inputs,), strict=False)
    torch.testing.assert_close(program.module()(inputs), head(inputs))


@pytest.mark.skipif(
    torch.__version__ < (2, 4),
    reason='torch 2.1 ends the graph where SAPA looks for hooks; tested from '
    '2.4 on',
)
@pytest.mark.parametrize('embedding', ['conv', 'linear'])
def test_compiles_and_is_copied(embedding):
    sapa = dict(type='sapa')
    head = SegformerHead(
        **SETTINGS, upsample_cfg=sapa, embedding=embedding
    ).eval()
    inputs = features()
    expected = head(inputs)
    twin = copy.deepcopy(head)
    torch.compiler.reset()
    head.compile(backend='eager', fullgraph=True)
    torch.testing.assert_close(head(inputs), expected)
    for p in head.parameters():
        torch.nn.init.zeros_(p)
    assert torch.equal(twin(inputs), expected)
