import copy

import pytest
import torch
from torch.nn.utils import prune

from mmsapa.upsamplers import (
    A2U,
    FADE,
    SAPA,
    DySample,
    IndexNet,
    MaxUnpool,
)

LAYERS = [A2U, FADE, IndexNet]
GUIDED = [*LAYERS, MaxUnpool, SAPA]


@pytest.mark.parametrize('layer_type', LAYERS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_close(layer_type, dtype, device, float16):
    layer = layer_type(8).to(device).eval()
    x = torch.randn(2, 8, 4, 5, device=device).to(dtype)
    guide = torch.randn(2, 8, 7, 10, device=device).to(dtype)
    with torch.no_grad():
        expected = layer(x.float(), guide.float())
        out = layer.to(dtype)(x, guide)
    assert out.dtype == dtype
    assert (out - expected).abs().max() < 0.06


@pytest.mark.parametrize('layer_type', LAYERS)
def test_trains_under_autocast(layer_type, device):
    layer = layer_type(8).to(device)
    x = torch.randn(2, 8, 4, 5, device=device, requires_grad=True)
    guide = torch.randn(2, 8, 7, 9, device=device, requires_grad=True)
    expected = layer(x, guide)
    with torch.autocast(device, torch.bfloat16):
        out = layer(x.bfloat16(), guide.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out - expected).abs().max() < 0.1
    out.float().square().sum().backward()
    for tensor in (x, guide, *layer.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


@pytest.mark.skipif(
    torch.__version__ < (2, 8), reason='tested from torch 2.8 on'
)
@pytest.mark.parametrize('layer_type', GUIDED)
def test_an_exported_layer_takes_odd_and_even_sizes(layer_type):
    layer = layer_type(8).eval()
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    sizes = (2, 6, 7, 12, 14), (3, 5, 9, 10, 17), (2, 8, 4, 17, 8)
    for n, h, w, *high in sizes:
        args = torch.randn(n, 8, h, w), torch.randn(n, 8, *high)
        if n == 2 and h == 6:
            exported = torch.export.export(
                layer, args, strict=False, dynamic_shapes=(dynamic, dynamic)
            ).module()
        torch.testing.assert_close(exported(*args), layer(*args))


@pytest.mark.parametrize('layer_type', [*GUIDED, DySample])
def test_no_images_make_no_maps(layer_type):
    maps = torch.zeros(0, 8, 4, 5), torch.zeros(0, 8, 8, 10)
    with torch.no_grad():  # PyTorch's pixel shuffle has no gradient of none
        out = layer_type(8)(*maps[: 1 + (layer_type in GUIDED)])
    assert out.shape == (0, 8, 8, 10)


@pytest.mark.parametrize('layer_type', GUIDED)
@pytest.mark.parametrize(
    ('x', 'guide', 'error', 'words'),
    [
        ((1, 6, 4, 4), None, TypeError, 'got x alone'),
        ((6, 4, 4), (1, 6, 8, 8), ValueError, r'\[6, 4, 4\]'),
        ((2, 6, 4, 4), (1, 6, 8, 8), ValueError, r'same images, .*\[2, 6'),
        ((1, 6, 4, 4), (1, 3, 8, 8), ValueError, 'guide with 6'),
        ((1, 6, 8, 8), (1, 6, 4, 4), ValueError, 'swapped'),
        ((1, 6, 4, 4), (1, 6, 8, 10), ValueError, r'\[8, 10\] for \[4, 4\]'),
    ],
)
def test_bad_inputs_are_named(layer_type, x, guide, error, words):
    guide = guide and torch.zeros(guide)
    with pytest.raises(error, match=f'^{layer_type.__name__}: .*{words}'):
        layer_type(6)(torch.zeros(x), guide)


@pytest.mark.parametrize('layer_type', [SAPA, A2U, FADE])
@pytest.mark.parametrize(
    ('kernel_size', 'words'),
    [(4, 'an odd.*got 4'), (-1, '.*>= 1, got -1'), (257, '.*got 257 . 2')],
)
def test_windows_of_no_size_are_refused(layer_type, kernel_size, words):
    words = f'^{layer_type.__name__}: expected {words}'
    with pytest.raises(ValueError, match=words):
        layer_type(8, kernel_size=kernel_size)


class LoRA(torch.nn.Module):
    """A wrapper that adds a low-rank term, as in fine-tuning."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = torch.nn.Conv2d(base.in_channels, 2, 1, bias=False)
        self.up = torch.nn.Conv2d(
            2,
            base.out_channels,
            base.kernel_size,
            base.stride,
            base.padding,
            bias=False,
        )

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))

    def merged(self):
        plain = copy.deepcopy(self.base)
        term = torch.einsum(
            'orhw,ri->oihw', self.up.weight, self.down.weight[..., 0, 0]
        )
        plain.weight.data += term
        return plain


def wrap(module, kind):
    """Change what a convolution computes without changing its weight.

    Returns:
        tuple: The changed module, and a plain one that does the same.
    """
    plain = copy.deepcopy(module)
    if kind == 'pruned':
        prune.random_unstructured(module, 'weight', 0.5)
        with torch.no_grad():
            module.weight_orig *= 2  # seen by a call alone
            plain.weight.copy_(module.weight_orig * module.weight_mask)
    elif kind == 'weight_norm':
        torch.nn.utils.weight_norm(module)
        with torch.no_grad():
            module.weight_g *= 2
            plain.weight *= 2
    elif kind == 'parametrized':
        torch.nn.utils.parametrizations.weight_norm(module)
        with torch.no_grad():
            module.parametrizations.weight.original0 *= 2
            plain.weight *= 2
    elif kind == 'hooked':
        module.register_forward_pre_hook(lambda _, args: (2 * args[0],))
        with torch.no_grad():
            plain.weight *= 2
    elif kind == 'replaced':  # as tools do that offload or checkpoint
        forward = module.forward
        module.forward = lambda x: forward(2 * x)
        with torch.no_grad():
            plain.weight *= 2
    else:
        module = LoRA(module)
        plain = module.merged()
    return module, plain


@pytest.mark.filterwarnings('ignore::FutureWarning')
@pytest.mark.parametrize('layer', ['SAPA-B', 'SAPA-G', 'FADE', 'A2U', 'Index'])
@pytest.mark.parametrize(
    'kind',
    ['pruned', 'weight_norm', 'parametrized', 'hooked', 'replaced', 'LoRA'],
)
def test_changed_convolutions_are_called(layer, kind):
    """Every convolution of a layer, one at a time."""
    name, _, variant = layer.partition('-')
    make = dict(SAPA=SAPA, FADE=FADE, A2U=A2U, Index=IndexNet)[name]
    layer = make(8, **(dict(variant=variant) if variant else {}))
    layer = layer.double().eval()
    x, guide = (
        torch.randn(2, 8, side, side, dtype=torch.double) for side in (4, 8)
    )
    names = [
        name
        for name, module in layer.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    assert len(names) > 1
    for name in names:
        ours, theirs = (copy.deepcopy(layer) for _ in range(2))
        changed = wrap(ours.get_submodule(name), kind)
        for twin, module in zip((ours, theirs), changed):
            parent, _, last = name.rpartition('.')
            setattr(twin.get_submodule(parent), last, module.double())
        torch.testing.assert_close(ours(x, guide), theirs(x, guide))
        assert not torch.equal(ours(x, guide), layer(x, guide)), name
        ours.init_weights()


def test_changed_norms_are_called():
    layer = SAPA(8, variant='G').double()
    x, guide = (
        torch.randn(2, 8, side, side, dtype=torch.double) for side in (4, 8)
    )
    before = layer(x, guide)
    for norm in (layer.norm_x, layer.norm_guide):
        handle = norm.register_forward_hook(lambda *_: None)
        torch.testing.assert_close(layer(x, guide), before)
        handle.remove()
        norm.register_forward_hook(lambda module, args, out: 2 * out)
        after = layer(x, guide)
        assert not torch.allclose(after, before)
        before = after


@pytest.mark.parametrize('layer_type', [SAPA, *LAYERS])
@pytest.mark.parametrize('scale', [2.0, 0])
def test_a_scale_is_a_whole_number(layer_type, scale):
    words = f'^{layer_type.__name__}: expected an int scale.*got {scale}'
    with pytest.raises(ValueError, match=words):
        layer_type(8, scale_factor=scale)
