import pytest
import torch
import torch.nn.functional as F

from mmsapa.upsamplers import MaxUnpool


@pytest.mark.parametrize('ceil_mode', [True, False])
@pytest.mark.parametrize('s', [2, 3])
@pytest.mark.parametrize('more', [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_equals_torchs(s, more, ceil_mode, device):
    """At even and odd sizes, pooled by rounding up and by rounding down."""
    size = [4 * s + more[0], 5 * s + more[1]]
    guide = torch.randn(2, 3, *size, device=device)
    # Of several maxima, as a ReLU leaves them, both take the same.
    guide = guide.relu()
    pooled, indices = F.max_pool2d(
        guide, s, s, ceil_mode=ceil_mode, return_indices=True
    )
    x = torch.randn_like(pooled).requires_grad_()
    out = MaxUnpool(3, scale_factor=s)(x, guide)
    expected = F.max_unpool2d(x, indices, s, s, output_size=size)
    assert torch.equal(out, expected)
    slope = torch.randn_like(out)
    grads = [torch.autograd.grad(y, x, slope)[0] for y in (out, expected)]
    assert torch.equal(*grads) and grads[0].any()


def test_pooling_again_gives_back_the_map():
    guide = torch.rand(1, 4, 23, 30)
    x = F.max_pool2d(guide, 2, 2, ceil_mode=True)
    out = MaxUnpool(4)(x, guide)
    assert out.count_nonzero() == x.numel()
    assert torch.equal(F.max_pool2d(out, 2, 2, ceil_mode=True), x)
    assert torch.equal(out[out != 0], guide[out != 0])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_values_stay_exact_in_half_precision(dtype, device, float16):
    x = torch.randn(2, 3, 4, 4, device=device).to(dtype)
    guide = torch.randn(2, 3, 8, 7, device=device).to(dtype)
    out = MaxUnpool(3)(x, guide)
    assert out.dtype == dtype
    assert torch.equal(out.float(), MaxUnpool(3)(x.float(), guide.float()))


def test_the_guide_has_as_many_channels():
    with pytest.raises(ValueError, match='^MaxUnpool: .* got 3 and 4; take'):
        MaxUnpool(4, 3)


@pytest.mark.parametrize(
    ('size', 'words'),
    [((9, 12), 'a guide 2 times the size of x'), (None, 'got x alone')],
)
def test_what_does_not_fit_is_named(size, words):
    guide = size and torch.randn(1, 2, *size)
    with pytest.raises(
        (TypeError, ValueError), match=f'^MaxUnpool: .*{words}'
    ):
        MaxUnpool(2)(torch.randn(1, 2, 4, 4), guide)
