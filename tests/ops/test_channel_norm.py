"""Layer normalization over channels, against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmsapa.ops import channel_norm, channel_norm_reference

from .helpers import (
    PROJECTION_SIZES,
    TOLERANCES,
    assert_close,
    make_projection,
    with_grads,
)

SIZES = {k: (n, c, h, w) for k, (n, c, _, h, w) in PROJECTION_SIZES.items()}


def make_norm(sizes, dtype, device, offset=0.5):
    """The map and the norm's parameters, of N, C, H, W."""
    n, c, h, w = sizes
    return make_projection((n, c, 1, h, w), dtype, device, offset)[:3]


def layer_norm(x, weight, bias, eps=1e-5):
    x = x.movedim(1, -1)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps).movedim(-1, 1)


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
def test_equals_layer_norm(sizes, dtype, device):
    inputs = make_norm(sizes, dtype, device)
    grad = torch.randn(sizes, dtype=torch.float64, device=device).to(dtype)
    expected = with_grads(
        layer_norm, [x.double() for x in inputs], grad.double()
    )
    for function in (channel_norm, channel_norm_reference):
        got = with_grads(function, inputs, grad)
        assert got[0].is_contiguous()
        if sizes[1] == 1:  # rounding errors: only the bias is left
            got, expected = got[:1], expected[:1]
        assert_close(got, expected, dtype)


def test_variance_is_sound_far_from_zero(device):
    """The mean of the squares less the squared mean would be noise here."""
    inputs = make_norm((1, 64, 9, 10), torch.float32, device, offset=3000)
    expected = layer_norm(*(x.double() for x in inputs))
    # The input itself is rounded to 1 / 4096 of its deviation.
    error = (channel_norm(*inputs) - expected).abs().max()
    assert error <= 2e-4 * expected.abs().max()


def test_layouts_do_not_matter(device):
    inputs = make_norm((2, 6, 5, 7), torch.float32, device)
    expected = with_grads(channel_norm, inputs)
    x = inputs[0]
    for other in (
        x.to(memory_format=torch.channels_last),
        x.mT.contiguous().mT,
        torch.cat([x, x], 3)[..., :7],
    ):
        got = with_grads(channel_norm, [other, *inputs[1:]])
        for a, b in zip(got, expected, strict=True):
            assert torch.equal(a, b)


def test_empty_maps(device):
    for sizes in ((0, 4, 5, 5), (2, 4, 0, 5)):
        out, *grads = with_grads(
            channel_norm, make_norm(sizes, torch.float32, device)
        )
        assert out.shape == sizes
        assert all(grad.abs().sum() == 0 for grad in grads)


def test_any_number_of_threads_gives_the_same():
    inputs = make_norm(SIZES['tiles'], torch.float32, 'cpu')
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(with_grads(channel_norm, inputs))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize('wanted', range(1, 8))
def test_gradients_flow_only_where_they_are_asked(wanted, device):
    inputs = make_norm((2, 5, 4, 6), torch.float64, device)
    everything = with_grads(channel_norm, inputs)[1:]
    leaves = [
        t.clone().requires_grad_(bool(wanted >> i & 1))
        for i, t in enumerate(inputs)
    ]
    out = channel_norm(*leaves)
    grad = torch.linspace(-1, 1, out.numel()).view(out.shape)
    out.backward(grad.to(out))
    for leaf, grad in zip(leaves, everything, strict=True):
        if leaf.requires_grad:
            torch.testing.assert_close(leaf.grad, grad)
        else:
            assert leaf.grad is None


def test_gradcheck(device):
    inputs = make_norm((2, 4, 2, 3), torch.float64, device)
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(channel_norm, inputs)
    (grad,) = torch.autograd.grad(
        channel_norm(*inputs).square().sum(), inputs[:1], create_graph=True
    )
    with pytest.raises(RuntimeError, match='no second derivative'):
        grad.sum().backward()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_opcheck(dtype, device, opcheck):
    inputs = make_norm((2, 5, 4, 6), torch.float32, device)
    inputs[0] = inputs[0].to(dtype)
    inputs = [t.detach().requires_grad_() for t in inputs]
    opcheck(torch.ops.mmsapa.channel_norm.default, (*inputs, 1e-5))


def test_compiles_as_one_graph(device):
    inputs = make_norm((1, 5, 4, 6), torch.float32, device)
    torch._dynamo.reset()
    compiled = torch.compile(channel_norm, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(
        with_grads(compiled, inputs), with_grads(channel_norm, inputs)
    )


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_follows_functional_transforms(device):
    x, weight, bias = make_norm((3, 4, 3, 3), torch.float64, device)

    def total(function):
        return lambda *y: function(*y, weight, bias).sin().sum()

    for transform in (
        lambda f: torch.func.grad(f)(x),
        lambda f: torch.func.vmap(torch.func.grad(f))(x[None]),
    ):
        torch.testing.assert_close(
            transform(total(channel_norm)), transform(total(layer_norm))
        )


def test_autocast_changes_nothing(device):
    inputs = make_norm((1, 64, 9, 10), torch.float32, device)
    for x in (inputs[0], inputs[0].bfloat16()):
        expected = channel_norm(x, *inputs[1:])
        with torch.autocast(device, torch.bfloat16):
            assert torch.equal(channel_norm(x, *inputs[1:]), expected)


def test_meta_tensors_give_shapes():
    inputs = make_norm((2, 5, 4, 6), torch.float16, 'meta')
    inputs = [x.requires_grad_() for x in inputs]
    out = channel_norm(*inputs)
    assert out.shape == (2, 5, 4, 6) and out.dtype == torch.float16
    for x, grad in zip(inputs, torch.autograd.grad(out.sum(), inputs)):
        assert x.shape == grad.shape


def test_no_products_are_counted(device):
    inputs = make_norm((2, 5, 4, 6), torch.float32, device)
    with FlopCounterMode(display=False) as counter:
        with_grads(channel_norm, inputs)
    assert counter.get_total_flops() == 0


@pytest.mark.parametrize(
    ('dtype', 'number'),
    # Of the last one, differences overflow too.
    [(torch.float64, 1e200), (torch.float32, 1e30), (torch.float32, 3e38)],
)
def test_squares_that_overflow(dtype, number, device):
    """The deviation is infinite then, and what is divided by it is 0; the
    other pixels do not notice.
    """
    x, weight, bias = make_norm((1, 5, 4, 6), dtype, device)
    x[0, 0, 1, 1], x[0, 2, 1, 1] = -number, number
    results = [
        with_grads(function, (x, weight, bias))
        for function in (channel_norm, channel_norm_reference)
    ]
    torch.testing.assert_close(*results)
    assert torch.equal(results[0][0][0, :, 1, 1], bias)


def test_bad_arguments_are_named(device):
    x, weight, bias = make_norm((1, 5, 4, 6), torch.float32, device)
    with pytest.raises(ValueError, match=r'norm_weight \[C\].*\[4\] and \[5'):
        channel_norm(x, weight[:4], bias)
    with pytest.raises(ValueError, match=r'expected x \[N, C, H, W\]'):
        channel_norm(x[0], weight, bias)
    with pytest.raises(TypeError, match='got torch.int64'):
        channel_norm(x.long(), weight, bias)
    with pytest.raises(TypeError, match='norm_bias .* got NoneType'):
        channel_norm(x, weight, None)
    with pytest.raises(TypeError, match='norm_weight .* one of torch.int64'):
        channel_norm(x, weight.long(), bias)
    with pytest.raises(ValueError, match='eps >= 0, got nan'):
        channel_norm(x, weight, bias, float('nan'))
    op = torch.ops.mmsapa.channel_norm
    for arguments in (
        (x[0], weight, bias),
        (x, weight[:4], bias),
        (x, weight, bias[:2]),
        (x, weight.double(), bias),
    ):
        with pytest.raises(RuntimeError, match='expected'):
            op(*arguments, 1e-5)
        with pytest.raises((TypeError, ValueError), match='expected'):
            op(*(t.to('meta') for t in arguments), 1e-5)


def test_backward_takes_only_what_forward_gives(device):
    inputs = make_norm((1, 5, 4, 6), torch.float32, device)
    out, *results = torch.ops.mmsapa.channel_norm(*inputs, 1e-5)
    backward = torch.ops.mmsapa.channel_norm_backward
    for i in range(2):
        for wrong in (results[i][..., :3], results[i].half()):
            given = [wrong if j == i else r for j, r in enumerate(results)]
            with pytest.raises(RuntimeError, match='expected'):
                backward(out, *inputs, *given, [True] * 3)
