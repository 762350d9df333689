"""Every head and neck with slots, compared with its parent."""

import copy
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import NamedTuple

import pytest
import torch
from mmengine.config import ConfigDict
from torch.utils._pytree import tree_flatten

from mmsapa.upsamplers import SAPA

from .upsamplers.helpers import assert_initialized

CHANNELS = [4, 8, 12, 16]
GN = dict(type='GN', num_groups=2)


class Case(NamedTuple):
    """How to build a class, and what to expect of it."""

    parent: str
    child: str
    settings: dict
    own: dict = dict(type='nearest')  # the parent's interpolation
    steps: int = 3
    levels: int = 4
    divisible: bool = False  # the parent fails at odd sizes
    more: dict = {}  # what else its forward takes


FPN = dict(in_channels=CHANNELS, out_channels=8, num_outs=5)
FPNS = [
    FPN,
    dict(FPN, start_level=1, add_extra_convs='on_input'),
    dict(FPN, start_level=1, add_extra_convs='on_output'),
    dict(FPN, norm_cfg=GN),
]
HEAD = dict(
    in_channels=CHANNELS,
    in_index=[0, 1, 2, 3],
    channels=8,
    num_classes=5,
    norm_cfg=dict(type='BN'),
)
DECODER = dict(
    in_channels=CHANNELS, feat_channels=8, out_channels=8, norm_cfg=GN
)
ATTENTION = dict(embed_dims=8, num_heads=2, batch_first=True)
FFN = dict(embed_dims=8, feedforward_channels=8)
POSITIONS = dict(num_feats=4, normalize=True)
ENCODER = dict(
    num_layers=1, layer_cfg=dict(self_attn_cfg=ATTENTION, ffn_cfg=FFN)
)
DEFORMABLE = copy.deepcopy(ENCODER)
DEFORMABLE['layer_cfg']['self_attn_cfg'].update(num_levels=3)
YOLOX = dict(in_channels=CHANNELS[1:], out_channels=8, num_csp_blocks=1)
IMAGES = dict(
    batch_img_metas=[dict(batch_input_shape=(200, 336), img_shape=(180, 330))]
    * 2
)
BILINEAR = dict(type='bilinear', align_corners=False)

CASES = {
    **{
        f'{library}-fpn-{i}': Case(
            f'{library}.models.necks.FPN',
            f'mmsapa.{child}',
            settings,
            steps=3 - settings.get('start_level', 0),
        )
        for library, child in (('mmdet', 'det.FPN'), ('mmseg', 'seg.SegFPN'))
        for i, settings in enumerate(FPNS)
    },
    **{
        f'pafpn-{i}': Case(
            'mmdet.models.necks.PAFPN',
            'mmsapa.det.PAFPN',
            settings,
            steps=3 - settings.get('start_level', 0),
        )
        for i, settings in enumerate(FPNS)
    },
    **{
        name.lower(): Case(
            f'mmdet.models.necks.{name}',
            f'mmsapa.det.{name}',
            YOLOX,
            steps=2,
            levels=3,
            divisible=True,
        )
        for name in ('YOLOXPAFPN', 'CSPNeXtPAFPN')
    },
    'pixel-decoder': Case(
        'mmdet.models.layers.PixelDecoder',
        'mmsapa.det.PixelDecoder',
        DECODER,
        more=IMAGES,
    ),
    'transformer-pixel-decoder': Case(
        'mmdet.models.layers.TransformerEncoderPixelDecoder',
        'mmsapa.det.TransformerEncoderPixelDecoder',
        dict(DECODER, encoder=ENCODER, positional_encoding=POSITIONS),
        more=IMAGES,
    ),
    'deformable-pixel-decoder': Case(
        'mmdet.models.layers.MSDeformAttnPixelDecoder',
        'mmsapa.det.MSDeformAttnPixelDecoder',
        dict(
            DECODER,
            encoder=ConfigDict(DEFORMABLE),
            positional_encoding=POSITIONS,
        ),
        own=BILINEAR,
        steps=1,
    ),
    'uper-head': Case(
        'mmseg.models.decode_heads.UPerHead',
        'mmsapa.seg.UPerHead',
        HEAD,
        own=BILINEAR,
    ),
}
pytestmark = pytest.mark.parametrize('name', CASES)
# One of each class: compilation takes seconds.
COMPILED = [name for name in CASES if name[-2:] not in ('-1', '-2', '-3')]


def find(path):
    module, _, name = path.rpartition('.')
    return getattr(import_module(module), name)


def build(name, **more):
    case = CASES[name]
    pytest.importorskip(case.parent.partition('.')[0])
    settings = copy.deepcopy(case.settings)
    parent = find(case.parent)(**settings).eval()
    child = find(case.child)(**settings, **more).eval()
    keys = child.load_state_dict(parent.state_dict(), strict=False)
    assert not keys.unexpected_keys
    return parent, child, keys.missing_keys


def round_down(side):
    return side // 2


def round_up(side):
    return -(-side // 2)


def features(name, divisible=False, size=(50, 84), half=round_up):
    """Maps of a backbone, the last ones of odd sizes if possible."""
    case = CASES[name]
    sizes = [(48, 80) if divisible else size]
    for _ in range(case.levels - 1):
        sizes.append(tuple(map(half, sizes[-1])))
    return [
        torch.randn(2, channels, *size)
        for channels, size in zip(
            case.settings['in_channels'], sizes, strict=True
        )
    ]


def run(module, inputs, name):
    """All maps that a module returns."""
    return tree_flatten(module(inputs, **CASES[name].more))[0]


@pytest.mark.parametrize('own', [False, True])
def test_computes_what_its_parent_computes(name, own):
    """Without an upsample_cfg, and with the parent's interpolation in it."""
    parent, child, missing = build(
        name, **(dict(upsample_cfg=CASES[name].own) if own else {})
    )
    assert not missing
    inputs = features(name, CASES[name].divisible)
    for theirs, ours in zip(
        run(parent, inputs, name), run(child, inputs, name), strict=True
    ):
        assert torch.equal(theirs, ours)


class Probe(torch.nn.Module):
    """An upsample layer that records its inputs."""

    def __init__(self, in_channels):
        super().__init__()
        self.calls = []

    def forward(self, x, guide):
        self.calls.append((x, guide))
        return guide


def test_a_prior_starts_as_the_parent(name):
    """But for what its floor leaves to other places."""
    prior = CASES[name].own['type']
    sapa = dict(type='sapa', prior=prior)
    parent, child, _ = build(name, upsample_cfg=sapa)
    inputs = features(name, divisible=True)
    for theirs, ours in zip(
        run(parent, inputs, name), run(child, inputs, name), strict=True
    ):
        assert (ours - theirs).abs().max() < 5e-3 * theirs.abs().max()


def test_guides_are_what_results_are_merged_with(name):
    _, module, _ = build(name, upsample_cfg=dict(type=Probe))
    inputs = features(name)
    run(module, inputs, name)
    guides = inputs[getattr(module, 'start_level', 0) :]
    if hasattr(module, 'lateral_convs'):
        guides = [
            conv(x)
            for conv, x in zip(module.lateral_convs, guides, strict=False)
        ]
    assert len(module.upsamplers) == CASES[name].steps
    for slot, expected in zip(module.upsamplers, guides, strict=False):
        ((x, guide),) = slot.layer.calls
        assert torch.equal(guide, expected)
        half = [-(-side // 2) for side in guide.shape[2:]]
        assert list(x.shape) == [*guide.shape[:2], *half]


@pytest.mark.parametrize('kind', ['sapa', 'fade', 'dysample', 'deconv'])
def test_levels_may_be_halved_by_rounding_down(name, kind):
    """As patch merging, strided convolutions and pooling do."""
    if CASES[name].divisible or name.startswith('pafpn'):
        pytest.skip("its parent's way up fails at these sizes")
    parent, child, _ = build(name, upsample_cfg=dict(type=kind))
    inputs = features(name, size=(58, 94), half=round_down)
    assert inputs[-1].shape[2:] == (7, 11)
    for theirs, ours in zip(
        run(parent, inputs, name), run(child, inputs, name), strict=True
    ):
        assert theirs.shape == ours.shape


def test_threads_share_a_module(name):
    _, child, _ = build(name, upsample_cfg=dict(type='sapa'))
    inputs = [features(name, size=(10, 12)) for _ in range(16)]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        expected = [run(child, x, name) for x in inputs]
        outs = pool.map(lambda x: run(child, x, name), inputs)
        for ours, theirs in zip(outs, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_stock_checkpoint_lacks_the_upsamplers_alone(name):
    _, child, missing = build(name, upsample_cfg=dict(type='sapa'))
    assert {key.split('.')[0] for key in missing} == {'upsamplers'}
    for slot in child.upsamplers:
        assert isinstance(slot.layer, SAPA)


def test_every_upsampler_is_trained(name):
    _, child, _ = build(name, upsample_cfg=dict(type='sapa'))
    outs = run(child, features(name), name)
    sum(out.square().mean() for out in outs).backward()
    for key, p in child.upsamplers.named_parameters():
        assert p.grad.isfinite().all() and p.grad.abs().sum() > 0, key


def test_initialization_survives_the_parents(name):
    sapa = dict(type='sapa', variant='B', embed_dims=512)
    _, child, _ = build(name, upsample_cfg=sapa)
    child.init_weights()
    for slot in child.upsamplers:
        assert_initialized(slot.layer)


def test_a_copy_has_guides_of_its_own(name):
    """mmengine's moving average of weights is a deep copy."""
    _, child, _ = build(name, upsample_cfg=dict(type='sapa'))
    inputs = features(name)
    expected = run(child, inputs, name)
    twin = copy.deepcopy(child)
    for p in child.parameters():
        torch.nn.init.constant_(p, 1.0)
    for ours, theirs in zip(run(twin, inputs, name), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_compiles(name):
    if name not in COMPILED:
        pytest.skip('compiled with other settings')
    _, child, _ = build(name, upsample_cfg=dict(type='sapa'))
    inputs = features(name)
    expected = run(child, inputs, name)
    torch.compiler.reset()
    # Mask2Former's takes sizes from tensors, which ends a graph by itself, and
    # torch 2.1 ends it where SAPA looks for hooks.
    whole = 'deformable' not in name and torch.__version__ >= (2, 4)
    child.compile(backend='eager', fullgraph=whole)
    for ours, theirs in zip(run(child, inputs, name), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('compiled', [False, True])
def test_laterals_may_be_replaced(name, compiled):
    parent, child, _ = build(name, upsample_cfg=dict(type='sapa'))
    if not hasattr(child, 'lateral_convs'):
        pytest.skip('its guides are the inputs')
    inputs = features(name)
    expected = run(child, inputs, name)
    child.lateral_convs[0] = parent.lateral_convs[0]  # of the same weights
    if compiled:
        if name not in ('mmdet-fpn-0', 'uper-head'):
            pytest.skip('compiled for one neck and one head')
        torch.compiler.reset()
        child.compile(backend='eager')
    for ours, theirs in zip(run(child, inputs, name), expected, strict=True):
        assert torch.equal(ours, theirs)
