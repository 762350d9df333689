"""What reassembly's CUDA kernels compute, found out without a GPU.

As test_cuda_on_cpu.py.
"""

import ctypes
import random

import pytest
import torch

from mmsapa.ops import reassemble_reference

from . import fuzz
from .helpers import (
    CUDA_DTYPES,
    TOLERANCES,
    assert_close,
    fenced,
    make_reassembly,
    one_further,
    unwritten,
    with_grads,
)


@pytest.fixture(scope='module')
def compute(library):
    """The result and the gradients, as the kernels have them."""

    def compute(weights, value, grad, k, s, order=0, wanted=(True, True)):
        n, window, hq, wq = weights.shape
        shape = (n, window, *value.shape[1:], hq, wq, k, s)
        grads = [
            unwritten(x) if want else None
            for x, want in zip((weights, value), wanted)
        ]
        out = unwritten(grad)
        for backward, high in enumerate((out, grad)):
            pointers = [
                None if x is None else x.data_ptr()
                for x in (weights, value, high, *grads)
            ]
            error = library.emulate_reassemble(
                backward,
                CUDA_DTYPES.index(value.dtype),
                (ctypes.c_int64 * 9)(*shape),
                (ctypes.c_void_p * 5)(*pointers),
                order,
            )
            assert error == 0
        return [out, *grads]

    return compute


def case(sizes, k, s, dtype, short=1):
    weights, value = make_reassembly(sizes, k, s, dtype, 'cpu', short)
    grad = torch.randn(*sizes[:2], *weights.shape[2:]).to(dtype)
    return weights, value, grad, k, s


def expect(weights, value, grad, k, s, wide=True):
    maps = weights, value, grad
    if wide:
        maps = [x.double() for x in maps]
    return with_grads(
        lambda *x: reassemble_reference(*x, k, s), maps[:2], maps[2]
    )


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(
    ('kernel_size', 'scale'), [(5, 2), (1, 1), (3, 3), (11, 2)]
)
def test_equals_reference(kernel_size, scale, dtype, compute):
    for sizes in ((1, 1, 1, 1), (2, 5, 7, 9), (1, 19, 6, 37), (1, 0, 2, 3)):
        arguments = case(sizes, kernel_size, scale, dtype)
        assert_close(compute(*arguments), expect(*arguments), dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_nothing_beyond_the_maps_is_read(dtype, compute):
    for short in (0, 1):
        *maps, k, s = case((1, 9, 5, 34), 5, 2, dtype, short)
        for at_end in (False, True):
            compute(*(fenced(x, at_end) for x in maps), k, s)


def test_nothing_but_the_numbers_matters(compute):
    *maps, k, s = case((2, 10, 5, 35), 5, 2, torch.float32)
    first = compute(*maps, k, s)
    for again in (
        compute(*maps, k, s, order=1),
        compute(*maps, k, s, order=7),
        compute(*map(one_further, maps), k, s),
    ):
        for x, y in zip(first, again, strict=True):
            assert torch.equal(x, y)
    for wanted in ((False, False), (True, False), (False, True)):
        for x, y in zip(compute(*maps, k, s, wanted=wanted), first):
            assert x is None or torch.equal(x, y)


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_what_is_no_number_comes_out_as_the_reference_has_it(dtype, compute):
    for number in range(12):
        *maps, k, s = case((1, 4, 5, 7), 3, 2, dtype, number % 2)
        fuzz.spoil(maps[::-1], random.Random(number), huge=True)
        plain = expect(*maps, k, s, wide=False)
        exact = expect(*maps, k, s)
        for got, x, y in zip(compute(*maps, k, s), plain, exact, strict=True):
            tolerance = fuzz.tolerance_of(x, y)
            wrong = fuzz.difference(got.double(), x.double(), tolerance)
            assert not wrong, (number, wrong)
