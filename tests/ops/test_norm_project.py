"""Normalization and projection in one, against PyTorch's two."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmsapa.ops import norm_project, norm_project_reference

from .helpers import (
    PROJECTION_SIZES,
    TOLERANCES,
    check_projection_against_two_steps,
    layer_norm_and_linear,
    make_projection,
    with_grads,
)


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('sizes', PROJECTION_SIZES.values(), ids=str)
def test_matches_layer_norm_and_linear(sizes, dtype, device):
    check_projection_against_two_steps(sizes, dtype, device)


def test_variance_is_sound_far_from_zero(device):
    """The mean of the squares less the squared mean would be noise here."""
    inputs = make_projection(
        (1, 64, 8, 9, 10), torch.float32, device, offset=3000
    )
    got = norm_project(*inputs)
    expected = layer_norm_and_linear(*(x.double() for x in inputs))
    # The input itself is rounded to 1 / 4096 of its deviation.
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_channels_last_and_slices(device):
    inputs = make_projection((2, 6, 4, 5, 7), torch.float32, device)
    expected = with_grads(norm_project, inputs, torch.ones(2, 4, 5, 7))
    x = inputs[0].to(memory_format=torch.channels_last)
    padded = torch.zeros(2, 6, 5, 9, device=device)
    padded[..., 1:8] = x
    for other in (x, padded[..., 1:8]):
        got = with_grads(
            norm_project, [other, *inputs[1:]], torch.ones(2, 4, 5, 7)
        )
        torch.testing.assert_close(got, expected)


def test_empty_maps(device):
    for sizes in ((0, 4, 3, 5, 5), (2, 4, 3, 0, 5), (2, 4, 0, 5, 5)):
        inputs = make_projection(sizes, torch.float32, device)
        out, *grads = with_grads(
            norm_project, inputs, torch.ones(sizes[0], *sizes[2:])
        )
        assert out.shape == (sizes[0], *sizes[2:])
        assert all(grad.abs().sum() == 0 for grad in grads)


def test_any_number_of_threads_gives_the_same():
    inputs = make_projection(PROJECTION_SIZES['tiles'], torch.float32, 'cpu')
    grad = torch.randn(3, 33, 37, 41)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(with_grads(norm_project, inputs, grad))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize('wanted', range(1, 8))
def test_gradients_flow_only_where_they_are_asked(wanted, device):
    x, _, _, weight, bias = make_projection(
        (2, 5, 3, 4, 6), torch.float64, device
    )
    inputs = [x, weight - weight.mean(1, keepdim=True), bias]

    def apply(*args):
        return torch.ops.mmsapa.norm_project(*args, 1e-5)[0].sin().sum()

    leaves = [t.clone().requires_grad_() for t in inputs]
    everything = torch.autograd.grad(apply(*leaves), leaves)
    leaves = [
        t.clone().requires_grad_(bool(wanted >> i & 1))
        for i, t in enumerate(inputs)
    ]
    apply(*leaves).backward()
    for leaf, grad in zip(leaves, everything, strict=True):
        if leaf.requires_grad:
            torch.testing.assert_close(leaf.grad, grad)
        else:
            assert leaf.grad is None


def test_gradcheck(device):
    inputs = make_projection((2, 4, 3, 2, 3), torch.float64, device)
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(norm_project, inputs)
    (grad,) = torch.autograd.grad(
        norm_project(*inputs).square().sum(), inputs[:1], create_graph=True
    )
    with pytest.raises(RuntimeError, match='no second derivative'):
        grad.sum().backward()


def test_opcheck(device, opcheck):
    x, _, _, weight, bias = make_projection(
        (2, 5, 3, 4, 6), torch.float32, device
    )
    weight = weight - weight.mean(1, keepdim=True)
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [x.to(dtype), weight, bias]
        inputs = [t.detach().requires_grad_() for t in inputs]
        opcheck(torch.ops.mmsapa.norm_project.default, (*inputs, 1e-5))


def test_compiles_as_one_graph(device):
    inputs = make_projection((1, 5, 3, 4, 6), torch.float32, device)
    torch._dynamo.reset()
    compiled = torch.compile(norm_project, fullgraph=True, backend='aot_eager')
    grad = torch.randn(1, 3, 4, 6)
    torch.testing.assert_close(
        with_grads(compiled, inputs, grad),
        with_grads(norm_project, inputs, grad),
    )


def test_parameters_keep_their_precision_under_autocast(device):
    """Folded in bfloat16, the weight's rows would not sum to zero."""
    inputs = make_projection(
        (1, 64, 8, 9, 10), torch.float32, device, offset=100
    )
    inputs[0] = inputs[0].bfloat16()
    expected = norm_project(*inputs)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(norm_project(*inputs), expected)


def test_meta_tensors_give_shapes():
    inputs = make_projection((2, 5, 3, 4, 6), torch.float16, 'meta')
    inputs = [x.requires_grad_() for x in inputs]
    out = norm_project(*inputs)
    assert out.shape == (2, 3, 4, 6) and out.dtype == torch.float16
    for x, grad in zip(inputs, torch.autograd.grad(out.sum(), inputs)):
        assert x.shape == grad.shape


def test_torch_counts_flops(device):
    inputs = make_projection((2, 5, 3, 4, 6), torch.float32, device)
    with FlopCounterMode(display=False) as counter:
        norm_project(inputs[0].requires_grad_(), *inputs[1:]).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * (2 * 4 * 6 * 5 * 3)


def test_reference_gives_the_statistics_too(device):
    x, _, _, weight, bias = make_projection(
        (2, 5, 3, 4, 6), torch.float64, device
    )
    weight = weight - weight.mean(1, keepdim=True)
    torch.testing.assert_close(
        torch.ops.mmsapa.norm_project(x, weight, bias, 1e-5),
        norm_project_reference(x, weight, bias, 1e-5),
    )


def test_bad_arguments_are_named(device):
    inputs = make_projection((1, 5, 3, 4, 6), torch.float32, device)
    with pytest.raises(ValueError, match=r'norm_weight \[C\].*\[4\], \[5\]'):
        norm_project(inputs[0], inputs[1][:4], *inputs[2:])
    with pytest.raises(ValueError, match=r'expected x \[N, C, H, W\]'):
        norm_project(inputs[0][0], *inputs[1:])
    with pytest.raises(TypeError, match='got torch.int64'):
        norm_project(inputs[0].long(), *inputs[1:])
    with pytest.raises(TypeError, match='got list'):
        norm_project([1.0], *inputs[1:])
    op = torch.ops.mmsapa.norm_project
    x, _, _, weight, bias = inputs
    for arguments in (
        (x[0], weight, bias),
        (x, weight[:, :4], bias),
        (x, weight, bias[:2]),
        (x, weight.double(), bias),
    ):
        with pytest.raises(RuntimeError, match='expected'):
            op(*arguments, 1e-5)
        with pytest.raises((TypeError, ValueError), match='expected'):
            op(*(t.to('meta') for t in arguments), 1e-5)
    with pytest.raises(RuntimeError, match='expected eps >= 0'):
        op(x, weight, bias, float('nan'))


def test_bad_parameters_are_named(device):
    good = make_projection((1, 5, 3, 4, 6), torch.float32, device)
    with pytest.raises(TypeError, match='norm_bias .* got NoneType'):
        norm_project(*good[:2], None, *good[3:])
    with pytest.raises(TypeError, match='weight .* got one of torch.int64'):
        norm_project(*good[:3], good[3].long(), good[4])
    with pytest.raises(ValueError, match='eps >= 0, got nan'):
        norm_project(*good, float('nan'))
    with pytest.raises(TypeError, match='eps as a float, got str'):
        norm_project(*good, '1e-5')


def test_backward_takes_only_what_forward_gives(device):
    x, _, _, weight, bias = make_projection(
        (1, 5, 3, 4, 6), torch.float32, device
    )
    results = torch.ops.mmsapa.norm_project(x, weight, bias, 1e-5)
    grad = torch.ones_like(results[0])
    backward = torch.ops.mmsapa.norm_project_backward
    for i in range(3):
        for wrong in (results[i][..., :3], results[i].half()):
            given = [wrong if j == i else r for j, r in enumerate(results)]
            with pytest.raises(RuntimeError, match='expected'):
                backward(grad, x, weight, bias, *given, [True] * 3)


def test_more_channels_than_the_cache_holds(device):
    """Of one pixel even."""
    inputs = make_projection((1, 70000, 1, 1, 2), torch.float32, device)
    expected = layer_norm_and_linear(*(t.double() for t in inputs))
    # So many numbers are added up in float32.
    torch.testing.assert_close(
        norm_project(*inputs).double(), expected, rtol=1e-4, atol=0.05
    )


@pytest.mark.parametrize(
    ('dtype', 'number'),
    # Of the last one, differences overflow too.
    [(torch.float64, 1e200), (torch.float32, 1e30), (torch.float32, 3e38)],
)
def test_squares_that_overflow(dtype, number, device):
    """The deviation is infinite then, as in the reference, and what is
    divided by it is 0; the other pixels do not notice.
    """
    x, _, _, weight, bias = make_projection((1, 5, 3, 4, 6), dtype, device)
    weight -= weight.mean(1, keepdim=True)
    x[0, 0, 1, 1], x[0, 2, 1, 1] = -number, number
    results = []
    for function in (torch.ops.mmsapa.norm_project, norm_project_reference):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        out, mean, rstd = function(*leaves, 1e-5)
        grads = torch.autograd.grad(out.sin().sum(), leaves)
        results.append([out, mean, rstd, *grads])
    torch.testing.assert_close(*results)
    assert torch.equal(results[0][0][0, :, 1, 1], bias)


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_a_bias_that_is_no_number_leaves_the_gradient_of_x(number, device):
    x, _, _, weight, bias = make_projection(
        (1, 5, 3, 4, 6), torch.float32, device
    )
    weight -= weight.mean(1, keepdim=True)
    bias[1] = number
    results = []
    for function in (torch.ops.mmsapa.norm_project, norm_project_reference):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        out = function(*leaves, 1e-5)[0]
        results.append(torch.autograd.grad(out, leaves, torch.ones_like(out)))
        assert results[-1][0].isfinite().all()
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
