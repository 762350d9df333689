"""What the CUDA kernels compute, found out without a GPU.

The very sources of csrc/cuda are compiled as C++ and run thread by thread
(tests/cuda_on_cpu). That shows the arithmetic, the indices, the borders and
the barriers to be right; whether a GPU runs them is for the tests marked
`cuda`.
"""

import ctypes
import random

import pytest
import torch
from torch.nn import functional

from mmsapa.ops import norm_project_reference, sapa_upsample_reference

from . import fuzz
from .helpers import (
    CUDA_DTYPES,
    SIZES,
    TOLERANCES,
    assert_close,
    fenced,
    make,
    one_further,
    unwritten,
    with_grads,
)

UPSAMPLE, UPSAMPLE_BACKWARD = range(2)


@pytest.fixture(scope='module')
def run(library):
    function = library.emulate_run

    def run(op, shape, maps, order=0, workspace_bytes=64 << 20):
        pointers = [None if m is None else m.data_ptr() for m in maps]
        error = function(
            op,
            CUDA_DTYPES.index(maps[0].dtype),
            (ctypes.c_int64 * 9)(*shape),
            (ctypes.c_void_p * 8)(*pointers),
            order,
            ctypes.c_int64(workspace_bytes),
        )
        assert error == 0

    return run


def compute(run, inputs, grad, kernel_size, scale, prior=None, **options):
    """The result and the gradients, as the kernels have them."""
    q, k, v = inputs
    n, e, hq, wq = q.shape
    shape = (n, e, v.shape[1], *k.shape[2:], hq, wq, kernel_size, scale)
    out = unwritten(grad)
    run(UPSAMPLE, shape, [q, k, v, out, None, None, None, prior], **options)
    grads = [unwritten(x) for x in inputs]
    run(UPSAMPLE_BACKWARD, shape, [q, k, v, grad, *grads, prior], **options)
    return [out, *grads]


def expect(inputs, grad, kernel_size, scale, prior=None, wide=True):
    if wide:
        inputs, grad = [x.double() for x in inputs], grad.double()
    return with_grads(
        lambda *x: sapa_upsample_reference(*x, kernel_size, scale, prior),
        inputs,
        grad,
    )


def case(sizes, kernel_size, scale, dtype, short=1):
    inputs = make(sizes, kernel_size, scale, dtype, 'cpu', short)
    n, _, hq, wq = inputs[0].shape
    grad = torch.randn(n, sizes[2], hq, wq).to(dtype)
    return inputs, grad, kernel_size, scale


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(
    # Those with kernels of their own, and some for the general ones.
    ('kernel_size', 'scale'),
    [(5, 2), (3, 2), (1, 1), (7, 3), (3, 4)],
)
def test_equals_reference(kernel_size, scale, dtype, run):
    for sizes in (SIZES['cell'], SIZES['odd'], (1, 9, 19, 6, 37)):
        arguments = case(sizes, kernel_size, scale, dtype)
        assert_close(compute(run, *arguments), expect(*arguments), dtype)


def make_prior(kernel_size, scale, dtype):
    """Numbers of no interpolation, of the dtype that kernels sum in."""
    exact = torch.promote_types(dtype, torch.float32)
    return torch.randn(scale**2, kernel_size**2, dtype=exact)


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(
    ('kernel_size', 'scale'), [(5, 2), (3, 2), (1, 1), (7, 3), (11, 1)]
)
def test_a_prior_equals_reference(kernel_size, scale, dtype, run):
    prior = make_prior(kernel_size, scale, dtype)
    for sizes in (SIZES['cell'], SIZES['odd'], (1, 9, 19, 6, 37)):
        arguments = case(sizes, kernel_size, scale, dtype)
        expected = expect(*arguments, prior)
        for options in ({}, dict(workspace_bytes=1), dict(order=7)):
            got = compute(run, *arguments, prior, **options)
            assert_close(got, expected, dtype)


@pytest.mark.parametrize(('kernel_size', 'scale'), [(5, 2), (3, 3)])
def test_nothing_beyond_a_prior_is_read(kernel_size, scale, run):
    arguments = case((1, 3, 4, 5, 7), kernel_size, scale, torch.float16)
    prior = make_prior(kernel_size, scale, torch.float16)
    for at_end in (False, True):
        compute(run, *arguments, fenced(prior, at_end))


# What the kernels for one size distinguish: channels around those staged at
# once, widths that are odd or even, several parts, many blocks.
FUSED_SIZES = [
    (1, 1, 7, 5, 34),
    (1, 7, 8, 4, 33),
    (1, 8, 9, 1, 2),
    (1, 9, 17, 9, 64),
    (2, 17, 1, 3, 36),
    (1, 16, 70, 5, 31),
    (64, 2, 34, 5, 18),
]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('kernel_size', [5, 3])
@pytest.mark.parametrize('short', [0, 1])
@pytest.mark.parametrize('sizes', FUSED_SIZES, ids=str)
def test_fused_kernels_equal_reference(sizes, short, kernel_size, dtype, run):
    arguments = case(sizes, kernel_size, 2, dtype, short)
    assert_close(compute(run, *arguments), expect(*arguments), dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('kernel_size', [5, 3])
# Fetched by words, or by whole vectors.
@pytest.mark.parametrize('width', [34, 36])
def test_maps_may_begin_anywhere(width, kernel_size, dtype, run):
    inputs, grad, *sizes = case((1, 9, 10, 5, width), kernel_size, 2, dtype, 0)
    first = compute(run, inputs, grad, *sizes)
    moved = [one_further(x) for x in inputs]
    again = compute(run, moved, one_further(grad), *sizes)
    for x, y in zip(first, again, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize(('kernel_size', 'scale'), [(5, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize('short', [0, 1])
@pytest.mark.parametrize('at_end', [False, True])
@pytest.mark.parametrize('width', [34, 36])
def test_nothing_beyond_the_maps_is_read(
    width, at_end, short, kernel_size, scale, dtype, run
):
    inputs, grad, *sizes = case(
        (1, 9, 10, 5, width), kernel_size, scale, dtype, short
    )
    maps = [fenced(x, at_end) for x in inputs]
    compute(run, maps, fenced(grad, at_end), *sizes)


@pytest.mark.parametrize(
    ('kernel_size', 'scale', 'channels', 'dtype'),
    [
        (5, 2, 10, torch.float32),
        (5, 2, 70, torch.float32),
        (5, 2, 70, torch.float16),
        (3, 2, 10, torch.float16),
        (3, 3, 10, torch.float32),
    ],
)
def test_order_of_threads_and_size_of_workspace_do_not_matter(
    kernel_size, scale, channels, dtype, run
):
    sizes = (2, 9, channels, 11, 35)
    arguments = case(sizes, kernel_size, scale, dtype)
    first = compute(run, *arguments)
    for options in (
        dict(order=1),
        dict(order=7),
        dict(workspace_bytes=1),
        dict(workspace_bytes=1 << 20),
    ):
        again = compute(run, *arguments, **options)
        for x, y in zip(first, again, strict=True):
            assert torch.equal(x, y), options


def test_only_the_wanted_gradients_are_computed(run):
    inputs, grad, *sizes = case(SIZES['odd'], 5, 2, torch.float32)
    everything = compute(run, inputs, grad, *sizes)[1:]
    q, k, v = inputs
    n, e, hq, wq = q.shape
    shape = (n, e, v.shape[1], *k.shape[2:], hq, wq, *sizes)
    for wanted in range(8):
        got = [
            unwritten(x) if wanted >> i & 1 else None
            for i, x in enumerate(inputs)
        ]
        run(UPSAMPLE_BACKWARD, shape, [q, k, v, grad, *got, None])
        for x, y in zip(got, everything, strict=True):
            assert x is None or torch.equal(x, y)


def assert_same_kinds(got, plain, exact, rounded=0):
    """The same NaN and infinities, and numbers close to each other."""
    for i, (x, y, z) in enumerate(zip(got, plain, exact, strict=True)):
        tolerance = fuzz.tolerance_of(y, z, rounded)
        wrong = fuzz.difference(x.double(), y.double(), tolerance)
        assert not wrong, f'{i}: {wrong}'


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(('kernel_size', 'scale'), [(5, 2), (3, 2), (3, 3)])
def test_what_is_no_number_comes_out_as_the_reference_has_it(
    kernel_size, scale, dtype, run
):
    for number in range(12):
        inputs, grad, *sizes = case(
            (1, 3, 4, 5, 7), kernel_size, scale, dtype, number % 2
        )
        if number % 3 == 2:
            sizes.append(make_prior(kernel_size, scale, dtype))
        fuzz.spoil([grad, *inputs], random.Random(number), huge=True)
        assert_same_kinds(
            compute(run, inputs, grad, *sizes),
            expect(inputs, grad, *sizes, wide=False),
            expect(inputs, grad, *sizes),
        )


@pytest.fixture(scope='module')
def norm_project(library):
    """Its results and gradients for (x, weight, bias, grad)."""

    def pointers(*tensors):
        data = [None if t is None else t.data_ptr() for t in tensors]
        return (ctypes.c_void_p * len(data))(*data)

    def compute(x, weight, bias, grad, eps=1e-5, order=0, wanted=(True, True)):
        n, c, h, w = x.shape
        sizes = (ctypes.c_int64 * 4)(n, c, weight.shape[0], h * w)
        out, mean = unwritten(grad), weight.new_full((n, 1, h, w), torch.nan)
        rstd = unwritten(mean)
        call = CUDA_DTYPES.index(x.dtype), sizes, ctypes.c_double(eps)
        maps = [x, weight, bias, out, mean, rstd]
        run = library.emulate_norm_project
        assert run(0, *call, pointers(*maps), order) == 0
        partial = dx = dw = None
        if library.emulate_needs_partial(sizes):
            partial = weight.new_full(x.shape, torch.nan)
        if wanted[0]:
            dx = unwritten(x)
        if wanted[1]:
            parts = library.emulate_grad_weight_parts(sizes)
            dw = weight.new_full((parts, *weight.shape), torch.nan)
        maps += [grad, partial, dx, dw]
        assert run(1, *call, pointers(*maps), order) == 0
        return [out, mean, rstd, dx, dw if dw is None else dw.sum(0)]

    return compute


def norm_project_case(n, c, e, h, w, dtype, mean=0):
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.randn(e, c, dtype=torch.float64) / c**0.5
    weight -= weight.mean(1, keepdim=True)
    x = torch.randn(n, c, h, w) * torch.rand(n, 1, h, w).add(0.5) + mean
    bias, grad = torch.randn(e), torch.randn(n, e, h, w)
    return x.to(dtype), weight.to(sums), bias.to(sums), grad.to(dtype)


def norm_project_expect(x, weight, bias, grad, eps=1e-5):
    x, weight, bias, grad = (t.double() for t in (x, weight, bias, grad))
    x.requires_grad_()
    weight.requires_grad_()
    last = x.movedim(1, -1)
    normed = functional.layer_norm(last, last.shape[-1:], eps=eps)
    out = functional.linear(normed, weight, bias).movedim(-1, 1)
    mean = x.detach().mean(1, keepdim=True)
    rstd = ((x.detach() - mean).square().mean(1, keepdim=True) + eps).rsqrt()
    return [out, mean, rstd, *torch.autograd.grad(out, [x, weight], grad)]


def assert_norm_project_close(got, expected, dtype):
    sums = got[1].dtype
    for x, y, rounded in zip(
        got, expected, (dtype, sums, sums, dtype, sums), strict=True
    ):
        assert_close([x], [y], rounded)


# N, C, E, H, W: around the channels staged at once and those read ahead, the
# outputs and the channels of a block, odd and even pixels; more of these than
# blocks that share them; nothing at all.
NORM_PROJECT_SIZES = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 7, 9),
    (1, 8, 32, 5, 3),
    (3, 17, 33, 4, 11),
    (1, 32, 36, 1, 2),
    (2, 33, 37, 3, 5),
    (1, 70, 70, 2, 9),
    (1, 256, 32, 20, 17),
    (2, 256, 33, 3, 3),
    (1, 2049, 1, 2, 2),
    (2, 1100, 70, 5, 26),
    (0, 8, 5, 3, 3),
    (2, 8, 0, 3, 3),
    (1, 8, 5, 0, 3),
]


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('sizes', NORM_PROJECT_SIZES, ids=str)
def test_norm_project_equals_reference(sizes, dtype, norm_project):
    arguments = norm_project_case(*sizes, dtype)
    assert_norm_project_close(
        norm_project(*arguments), norm_project_expect(*arguments), dtype
    )


def test_norm_project_far_from_zero(norm_project):
    dtype = torch.float32
    arguments = norm_project_case(2, 64, 33, 5, 7, dtype, mean=1000)
    got = norm_project(*arguments)
    expected = norm_project_expect(*arguments)
    # What mean is rounded by, all channels have alike: it is no part of what
    # goes on into a centered weight.
    for maps in (got, expected):
        maps[4] -= maps[4].mean(1, keepdim=True)
    assert_norm_project_close(got, expected, dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_maps_of_norm_project_may_begin_anywhere(dtype, norm_project):
    arguments = norm_project_case(2, 17, 33, 4, 6, dtype)
    first = norm_project(*arguments)
    again = norm_project(*(one_further(x) for x in arguments))
    for x, y in zip(first, again, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('sizes', [(1, 17, 33, 5, 7), (2, 35, 70, 2, 8)])
@pytest.mark.parametrize('at_end', [False, True])
def test_norm_project_reads_nothing_beyond_its_maps(
    at_end, sizes, dtype, norm_project
):
    arguments = norm_project_case(*sizes, dtype)
    norm_project(*(fenced(x, at_end) for x in arguments))


def test_order_of_threads_does_not_matter_to_norm_project(norm_project):
    for sizes in ((2, 70, 33, 9, 11), (2, 1100, 70, 5, 26)):
        arguments = norm_project_case(*sizes, torch.float32)
        first = norm_project(*arguments)
        for order in (1, 7):
            again = norm_project(*arguments, order=order)
            for x, y in zip(first, again, strict=True):
                assert torch.equal(x, y), order


def test_only_the_wanted_gradients_of_norm_project(norm_project):
    arguments = norm_project_case(2, 17, 33, 4, 6, torch.float32)
    everything = norm_project(*arguments)
    for wanted in ((False, False), (True, False), (False, True)):
        got = norm_project(*arguments, wanted=wanted)
        for x, y in zip(got, everything, strict=True):
            assert x is None or torch.equal(x, y)


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('sizes', [(1, 9, 7, 4, 5), (2, 3, 70, 3, 3)], ids=str)
def test_what_is_no_number_comes_out_of_norm_project(
    sizes, dtype, norm_project
):
    for number in range(12):
        x, weight, bias, grad = norm_project_case(*sizes, dtype)
        fuzz.spoil([grad, x, weight, bias], random.Random(number), huge=True)
        weight -= weight.mean(1, keepdim=True)
        out, _, _, dx, dw = norm_project(x, weight, bias, grad)
        expected = []
        for t in (x.dtype, torch.float64):
            wide = weight.to(torch.promote_types(t, weight.dtype))
            leaves = [x.to(t).requires_grad_(), wide.requires_grad_()]
            y = norm_project_reference(*leaves, bias.to(wide), 1e-5)[0]
            grads = torch.autograd.grad(y, leaves, grad.to(y))
            expected.append([y.detach(), *grads])
        rounded = fuzz.rounding((x, weight, bias), grad)
        assert_same_kinds([out, dx, dw], *expected, rounded)
