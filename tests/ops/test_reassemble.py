"""Reassembly by given weights, as an operator."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmsapa.ops import (
    reassemble,
    reassemble_reference,
    sapa_kernels,
    sapa_upsample,
)

from .helpers import (
    SIZES,
    TOLERANCES,
    check_reassembly,
    make,
    make_reassembly,
    with_grads,
)


def by_definition(weights, value, k, s, groups):
    """CARAFE's formula, pixel by pixel."""
    n, c, h, w = value.shape
    out = weights.new_zeros(n, c, *weights.shape[2:])
    for image, y, x in itertools.product(range(n), *map(range, out.shape[2:])):
        for channel in range(c):
            group = channel // (c // groups)
            for dy, dx in itertools.product(range(k), repeat=2):
                i, j = y // s + dy - k // 2, x // s + dx - k // 2
                if 0 <= i < h and 0 <= j < w:
                    out[image, channel, y, x] += (
                        weights[image, (group * k + dy) * k + dx, y, x]
                        * value[image, channel, i, j]
                    )
    return out


@pytest.mark.parametrize(
    ('k', 's', 'groups'), [(1, 1, 1), (3, 2, 2), (5, 2, 1), (3, 3, 4)]
)
@pytest.mark.parametrize('short', [0, 1])
def test_equals_the_definition(k, s, groups, short, device):
    inputs = make_reassembly(
        (2, 4, 3, 4), k, s, torch.float32, device, short, groups
    )
    expected = by_definition(*(x.cpu().double() for x in inputs), k, s, groups)
    for function in (reassemble, reassemble_reference):
        out = function(*inputs, k, s, groups).cpu().double()
        assert out.shape == expected.shape
        assert (out - expected).abs().max() < 1e-6 * expected.abs().max()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7])
@pytest.mark.parametrize('scale', [1, 2, 3, 4])
def test_equals_reference(scale, kernel_size, dtype, device):
    for name, short in itertools.product(('cell', 'odd', 'tiles'), (0, 1, 3)):
        if short < scale:
            n, _, *rest = SIZES[name]
            check_reassembly(
                (n, *rest), kernel_size, scale, dtype, device, short
            )


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_every_dtype_and_many_channels(dtype, device):
    for sizes in ((1, 1030, 3, 4), (2, 6, 7, 33)):
        for kernel_size, scale in ((5, 2), (3, 3)):
            check_reassembly(sizes, kernel_size, scale, dtype, device, 1)
    check_reassembly((2, 6, 7, 9), 5, 2, dtype, device, 1, groups=3)


def test_is_what_sapa_does_with_its_weights(device):
    q, k, v = make((2, 4, 6, 5, 6), 3, 2, torch.float64, device, short=1)
    torch.testing.assert_close(
        reassemble(sapa_kernels(q, k, 3, 2), v, 3, 2),
        sapa_upsample(q, k, v, 3, 2),
    )


def test_a_map_that_is_short_is_extended_by_its_border(device):
    for s, size in ((2, (32, 43)), (2, (33, 42)), (4, (67, 81))):
        value = torch.randn(1, 4, 16, 21, dtype=torch.double, device=device)
        weights = torch.randn(1, 9, *size, dtype=torch.double, device=device)
        more = [-(-a // s) - b for a, b in zip(size, (16, 21))]
        longer = F.pad(value, (0, more[1], 0, more[0]), mode='replicate')
        expected = reassemble_reference(weights, longer, 3, s)
        for function in (reassemble, reassemble_reference):
            out = function(weights, value, 3, s)
            torch.testing.assert_close(out, expected)


def test_layouts_do_not_matter(device):
    inputs = make_reassembly((2, 8, 5, 7), 5, 2, torch.float32, device, 1, 2)

    def function(*x):
        return reassemble(*x, 5, 2, 2)

    expected = with_grads(function, inputs)
    assert expected[0].is_contiguous()
    for layout in (
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.mT.contiguous().mT,
        lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    ):
        got = with_grads(function, [layout(x) for x in inputs])
        for x, y in zip(got, expected, strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize('empty', range(4))
def test_empty_inputs(empty, device):
    sizes = [0 if i == empty else 3 for i in range(4)]
    check_reassembly(sizes, 3, 2, torch.float32, device)


def test_any_number_of_threads_gives_the_same():
    inputs = make_reassembly((3, 21, 24, 70), 5, 2, torch.float32, 'cpu')
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(with_grads(lambda *x: reassemble(*x, 5, 2), inputs))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
@pytest.mark.parametrize('scale', [2, 3])
def test_what_is_no_number_comes_out_as_the_reference_has_it(
    scale, number, device
):
    for i in range(3):
        weights, value = make_reassembly(
            (1, 3, 5, 20), 3, scale, torch.float32, device, i % 2
        )
        grad = torch.ones(1, 3, *weights.shape[2:])
        [weights, value, grad][i][0, 1, -1, -1] = number
        results = [
            with_grads(lambda *x, f=f: f(*x, 3, scale), (weights, value), grad)
            for f in (reassemble, reassemble_reference)
        ]
        torch.testing.assert_close(*results, equal_nan=True)


# ---- inside PyTorch -------------------------------------------------------


def test_gradcheck(device):
    for k, s, groups in ((3, 2, 1), (5, 1, 2), (1, 3, 1)):
        inputs = make_reassembly(
            (2, 2, 3, 4), k, s, torch.float64, device, 1, groups
        )
        inputs = [x.requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(
            lambda *x, k=k, s=s, g=groups: reassemble(*x, k, s, g), inputs
        )


@pytest.mark.parametrize('wanted', range(1, 4))
def test_gradients_flow_only_where_they_are_asked(wanted, device):
    inputs = make_reassembly((1, 4, 5, 6), 5, 2, torch.float64, device)
    everything = with_grads(lambda *x: reassemble(*x, 5, 2).sin(), inputs)[1:]
    leaves = [
        x.clone().requires_grad_(bool(wanted >> i & 1))
        for i, x in enumerate(inputs)
    ]
    out = reassemble(*leaves, 5, 2).sin()
    out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape).to(out))
    for leaf, grad in zip(leaves, everything, strict=True):
        if leaf.requires_grad:
            torch.testing.assert_close(leaf.grad, grad)
        else:
            assert leaf.grad is None


def test_derivatives_that_there_are_not_are_refused(device):
    weights, value = make_reassembly((1, 2, 3, 3), 3, 2, torch.double, device)

    def f(x):
        return reassemble(weights, x, 3, 2).square().sum()

    with pytest.raises(RuntimeError, match='reassemble has no second deriv'):
        torch.func.grad(lambda x: torch.func.grad(f)(x).sum())(value)
    with pytest.raises(RuntimeError, match='no forward-mode derivative'):
        torch.func.jvp(f, (value,), (value,))


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_functional_transforms(device):
    inputs = make_reassembly((2, 4, 3, 4), 3, 2, torch.double, device, 1, 2)
    stacked = [torch.stack([x, -x]) for x in inputs]
    results = []
    for function in (reassemble, reassemble_reference):

        def total(*x, function=function):
            return function(*x, 3, 2, 2).sin().sum()

        results.append(
            [
                torch.func.grad(total, (0, 1))(*inputs),
                torch.func.vmap(torch.func.grad(total))(*stacked),
            ]
        )
    torch.testing.assert_close(*results)


def test_opcheck(device, opcheck):
    inputs = make_reassembly((2, 4, 5, 6), 5, 2, torch.bfloat16, device, 1)
    inputs = [x.requires_grad_() for x in inputs]
    opcheck(torch.ops.mmsapa.reassemble.default, (*inputs, 5, 2))


def test_compiles_as_one_graph(device):
    def function(*x):
        return reassemble(*x, 5, 2, 2)

    torch._dynamo.reset()
    compiled = torch.compile(
        function, fullgraph=True, dynamic=True, backend='aot_eager'
    )
    for sizes, short in (((1, 4, 5, 6), 0), ((2, 4, 6, 8), -1)):
        inputs = make_reassembly(sizes, 5, 2, torch.float32, device, short, 2)
        torch.testing.assert_close(
            with_grads(compiled, inputs), with_grads(function, inputs)
        )


def test_autocast_takes_any_mixture(device):
    dtype = torch.bfloat16
    weights, value = make_reassembly((1, 4, 5, 6), 5, 2, torch.float32, device)
    expected = reassemble(weights.to(dtype), value.to(dtype), 5, 2)
    weights.requires_grad_()
    with torch.autocast(device, dtype):
        out = reassemble(weights, value.to(dtype), 5, 2)
    assert torch.equal(out, expected)
    out.float().sum().backward()
    assert weights.grad.dtype == torch.float32


def test_meta_tensors_give_shapes():
    inputs = make_reassembly((2, 6, 5, 6), 5, 2, torch.float16, 'meta', 1, 2)
    inputs = [x.requires_grad_() for x in inputs]
    out = reassemble(*inputs, 5, 2, 2)
    assert out.shape == (2, 6, 9, 11) and out.dtype == torch.float16
    for x, grad in zip(inputs, torch.autograd.grad(out.sum(), inputs)):
        assert x.shape == grad.shape


@pytest.mark.parametrize('groups', [1, 3])
def test_torch_counts_flops(groups, device):
    """Two for each multiply-accumulate: K^2 of them a number."""
    inputs = make_reassembly(
        (2, 12, 5, 6), 5, 2, torch.float32, device, 1, groups
    )
    inputs[0].requires_grad_()
    with FlopCounterMode(display=False) as counter:
        reassemble(*inputs, 5, 2, groups).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * (2 * 9 * 11 * 25 * 12)


# ---- errors ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'error', 'words'),
    [
        (dict(weights='w'), TypeError, 'weights as a torch.Tensor, got str'),
        (dict(weights=torch.zeros(2, 9, 8, 8)), ValueError, r'N of value'),
        (dict(weights=torch.zeros(1, 25, 8, 8)), ValueError, r'\[N, 9, Hq'),
        (dict(groups=2), ValueError, r'\[N, 18, Hq, Wq\].*\[1, 9, 8, 8\]'),
        (dict(groups=4), ValueError, r'divisible by 4 groups.*\[1, 6, 4'),
        (dict(groups=0), ValueError, 'groups >= 1, got 0'),
        (dict(groups=1.0), TypeError, 'groups as an int, got float'),
        (dict(kernel_size=4), ValueError, 'odd kernel_size'),
        (dict(scale_factor=2**32), ValueError, '<= 512'),
        (dict(scale_factor=3), ValueError, r'3 times.*\[8, 8\] for \[4, 4\]'),
        (
            dict(value=torch.zeros(1, 6, 4, 4).double()),
            ValueError,
            'weights of torch.float32 and value of torch.float64',
        ),
        (
            dict(value=torch.zeros(1, 6, 4, 4, device='meta')),
            ValueError,
            'weights on cpu and value on meta',
        ),
    ],
)
def test_bad_arguments_are_named(change, error, words):
    arguments = dict(
        weights=torch.zeros(1, 9, 8, 8),
        value=torch.zeros(1, 6, 4, 4),
        kernel_size=3,
        scale_factor=2,
    )
    reassemble(**arguments)
    with pytest.raises(error, match=f'^reassemble: .*{words}'):
        reassemble(**{**arguments, **change})


def test_the_operator_itself_refuses_what_would_crash(device):
    weights, value = make_reassembly((1, 2, 4, 4), 5, 2, torch.float, device)
    op = torch.ops.mmsapa.reassemble
    backward = torch.ops.mmsapa.reassemble_backward
    grad = torch.zeros(1, 2, 8, 8, device=device)
    for arguments in (
        (weights[..., :3], value, 5, 2),
        (weights[:, :9], value, 5, 2),
        (weights, value[..., :3], 5, 2),
        (weights, value.double(), 5, 2),
        (weights, value, 4, 2),
        (weights, value, 5, 0),
        (weights, value, 2**62 + 1, 2),
        (weights, value, 5, 2**62),
    ):
        with pytest.raises(RuntimeError, match='expected'):
            op(*arguments)
        with pytest.raises(RuntimeError, match='expected'):
            backward(grad, *arguments, [True] * 2)
        meta = [
            x.to('meta') if isinstance(x, torch.Tensor) else x
            for x in arguments
        ]
        with pytest.raises(ValueError, match='expected'):
            op(*meta)
    with pytest.raises(RuntimeError, match='expected a gradient'):
        backward(grad[:, :1], weights, value, 5, 2, [True] * 2)


def test_half_precision_accumulates_in_float32(device):
    value = torch.ones(1, 1, 5, 5, dtype=torch.bfloat16, device=device)
    value[0, 0, 0, 0] = 512  # bfloat16 has no 513
    weights = torch.ones(1, 25, 5, 5, dtype=torch.bfloat16, device=device)
    for function in (reassemble, reassemble_reference):
        assert function(weights, value, 5, 1)[0, 0, 2, 2] == 536
