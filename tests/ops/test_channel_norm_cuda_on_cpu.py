"""What the norm's CUDA kernels compute, found out without a GPU.

As test_cuda_on_cpu.py.
"""

import ctypes
import random

import pytest
import torch

from mmsapa.ops import channel_norm_reference

from . import fuzz
from .helpers import (
    CUDA_DTYPES,
    TOLERANCES,
    assert_close,
    fenced,
    make_projection,
    one_further,
    unwritten,
    with_grads,
)


@pytest.fixture(scope='module')
def compute(library):
    """The result and the gradients, as the kernels have them."""

    def compute(x, weight, bias, grad, order=0, wanted=(True, True)):
        n, c, h, w = x.shape
        out = unwritten(x)
        mean, rstd = (weight.new_full((n, 1, h, w), torch.nan) for _ in '12')
        dx = unwritten(x) if wanted[0] else None
        dw, db = (unwritten(weight) if wanted[1] else None for _ in '12')
        for backward, map in enumerate((out, grad)):
            pointers = [
                None if t is None else t.data_ptr()
                for t in (x, weight, bias, map, mean, rstd, dx, dw, db)
            ]
            error = library.emulate_channel_norm(
                backward,
                CUDA_DTYPES.index(x.dtype),
                (ctypes.c_int64 * 4)(n, c, c, h * w),
                ctypes.c_double(1e-5),
                (ctypes.c_void_p * 9)(*pointers),
                order,
            )
            assert error == 0
        return [out, dx, dw, db]

    return compute


def case(sizes, dtype):
    """Map and gradient of ``dtype``, and the parameters' as they are taken."""
    n, c, h, w = sizes
    x, weight, bias, *_ = make_projection(
        (n, c, 1, h, w), torch.float64, 'cpu'
    )
    sums = torch.promote_types(dtype, torch.float32)
    grad = torch.randn(sizes).to(dtype)
    return x.to(dtype), weight.to(sums), bias.to(sums), grad


def expect(x, weight, bias, grad, wide=True):
    maps = x, weight, bias, grad
    if wide:
        maps = [t.double() for t in maps]
    return with_grads(channel_norm_reference, maps[:3], maps[3])


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(
    'sizes',
    [(2, 3, 7, 9), (1, 17, 4, 6), (3, 70, 11, 13), (0, 4, 3, 3)],
    ids=str,
)
def test_equals_reference(sizes, dtype, compute):
    arguments = case(sizes, dtype)
    got, expected = compute(*arguments), expect(*arguments)
    assert_close(got[:2], expected[:2], dtype)
    assert_close(got[2:], expected[2:], arguments[1].dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_nothing_beyond_the_maps_is_read(dtype, compute):
    for sizes in ((1, 17, 5, 7), (2, 35, 2, 8)):
        for at_end in (False, True):
            compute(*(fenced(t, at_end) for t in case(sizes, dtype)))


def test_nothing_but_the_numbers_matters(compute):
    arguments = case((2, 10, 5, 36), torch.float32)
    first = compute(*arguments)
    for again in (
        compute(*arguments, order=1),
        compute(*arguments, order=7),
        compute(*map(one_further, arguments)),
    ):
        for x, y in zip(first, again, strict=True):
            assert torch.equal(x, y)
    for wanted in ((False, False), (True, False), (False, True)):
        for x, y in zip(compute(*arguments, wanted=wanted), first):
            assert x is None or torch.equal(x, y)


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_what_is_no_number_comes_out_as_the_reference_has_it(dtype, compute):
    for number in range(12):
        arguments = case((1, 9, 4, 5), dtype)
        fuzz.spoil([*arguments[::-1]], random.Random(number), huge=True)
        plain = expect(*arguments, wide=False)
        exact = expect(*arguments)
        for got, x, y in zip(compute(*arguments), plain, exact, strict=True):
            tolerance = fuzz.tolerance_of(x, y)
            wrong = fuzz.difference(got.double(), x.double(), tolerance)
            assert not wrong, (number, wrong)
