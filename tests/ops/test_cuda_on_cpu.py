"""What the CUDA kernels compute, found out without a GPU.

The very sources of csrc/cuda are compiled as C++ and run thread by thread
(tests/cuda_on_cpu). That shows the arithmetic, the indices, the borders and
the barriers to be right; whether a GPU runs them is for the tests marked
`cuda`.
"""

import ctypes
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from mmsapa.ops import sapa_kernels_reference, sapa_upsample_reference

from .test_functional import SIZES, TOLERANCES, assert_close, make

ROOT = Path(__file__).parents[2]
UPSAMPLE, UPSAMPLE_BACKWARD, KERNELS, KERNELS_BACKWARD = range(4)
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def cuda_headers():
    nvcc = shutil.which('nvcc')
    homes = [os.environ.get('CUDA_HOME'), '/usr/local/cuda']
    if nvcc:
        homes.append(Path(nvcc).resolve().parents[1])
    for home in filter(None, homes):
        if (Path(home) / 'include' / 'cuda_runtime_api.h').exists():
            return Path(home) / 'include'
    return None


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    headers = cuda_headers()
    if headers is None:
        pytest.skip('there is no CUDA toolkit, whose headers are needed')
    library = tmp_path_factory.mktemp('cuda_on_cpu') / 'library.so'
    subprocess.run(
        [
            *('g++', '-std=c++17', '-O1', '-fPIC', '-shared', '-w'),
            *('-D__CUDA_NO_HALF_OPERATORS__', '-I', ROOT / 'csrc'),
            *('-I', ROOT / 'csrc' / 'cuda', '-isystem', headers),
            *(ROOT / 'tests' / 'cuda_on_cpu' / 'library.cpp', '-o', library),
        ],
        check=True,
    )
    function = ctypes.CDLL(str(library)).emulate_run

    def run(op, shape, maps, order=0, workspace_bytes=64 << 20):
        pointers = [None if m is None else m.data_ptr() for m in maps]
        error = function(
            op,
            DTYPES.index(maps[0].dtype),
            (ctypes.c_int64 * 9)(*shape),
            (ctypes.c_void_p * 7)(*pointers),
            order,
            ctypes.c_int64(workspace_bytes),
        )
        assert error == 0

    return run


def unwritten(like):
    return torch.full_like(like, float('nan'))


def compute(run, inputs, grads, kernel_size, scale, **options):
    """Results and gradients of both functions, as the kernels have them."""
    q, k, v = inputs
    n, e, hq, wq = q.shape
    shape = (n, e, v.shape[1], *k.shape[2:], hq, wq, kernel_size, scale)
    out, weights = (unwritten(grad) for grad in grads)
    run(UPSAMPLE, shape, [q, k, v, out, None, None, None], **options)
    dq, dk, dv = (unwritten(x) for x in inputs)
    maps = [q, k, v, grads[0], dq, dk, dv]
    run(UPSAMPLE_BACKWARD, shape, maps, **options)
    shape = (n, e, 0, *shape[3:])
    run(KERNELS, shape, [q, k, None, weights, None, None, None], **options)
    dq2, dk2 = unwritten(q), unwritten(k)
    maps = [q, k, None, grads[1], dq2, dk2, None]
    run(KERNELS_BACKWARD, shape, maps, **options)
    return [out, dq, dk, dv, weights, dq2, dk2]


def expect(inputs, grads, kernel_size, scale):
    q, k, v = leaves = [x.double().requires_grad_() for x in inputs]
    out = sapa_upsample_reference(q, k, v, kernel_size, scale)
    weights = sapa_kernels_reference(q, k, kernel_size, scale)
    return [
        out,
        *torch.autograd.grad(out, leaves, grads[0].double()),
        weights,
        *torch.autograd.grad(weights, leaves[:2], grads[1].double()),
    ]


def case(sizes, kernel_size, scale, dtype, short=1):
    inputs = make(sizes, kernel_size, scale, dtype, 'cpu', short)
    n, _, hq, wq = inputs[0].shape
    grads = [
        torch.randn(n, channels, hq, wq).to(dtype)
        for channels in (sizes[2], kernel_size**2)
    ]
    return inputs, grads, kernel_size, scale


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


def one_further(x):
    """The same numbers, an element away from where words begin."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('kernel_size', [5, 3])
def test_maps_may_begin_anywhere(kernel_size, dtype, run):
    inputs, grads, *sizes = case((1, 9, 10, 5, 34), kernel_size, 2, dtype, 0)
    first = compute(run, inputs, grads, *sizes)
    moved = ([one_further(x) for x in maps] for maps in (inputs, grads))
    again = compute(run, *moved, *sizes)
    for x, y in zip(first, again, strict=True):
        assert torch.equal(x, y)


def fenced(x, at_end):
    """The same numbers, with memory nobody may touch before or after."""
    page = mmap.PAGESIZE
    size = x.numel() * x.element_size()
    room = -(-size // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (start, start + page + room):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(fence), page, 0) == 0
    offset = page + (room - size if at_end else 0)
    y = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=offset)
    return y.view(x.shape).copy_(x)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize(('kernel_size', 'scale'), [(5, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize('short', [0, 1])
@pytest.mark.parametrize('at_end', [False, True])
def test_nothing_beyond_the_maps_is_read(
    at_end, short, kernel_size, scale, dtype, run
):
    inputs, grads, *sizes = case(
        (1, 9, 10, 5, 34), kernel_size, scale, dtype, short
    )
    maps = ([fenced(x, at_end) for x in maps] for maps in (inputs, grads))
    compute(run, *maps, *sizes)


@pytest.mark.parametrize(
    ('kernel_size', 'scale', 'channels'), [(5, 2, 10), (5, 2, 70), (3, 3, 10)]
)
def test_order_of_threads_and_size_of_workspace_do_not_matter(
    kernel_size, scale, channels, run
):
    sizes = (2, 9, channels, 11, 35)
    arguments = case(sizes, kernel_size, scale, torch.float32)
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
    inputs, grads, *sizes = case(SIZES['odd'], 5, 2, torch.float32)
    everything = compute(run, inputs, grads, *sizes)[1:4]
    q, k, v = inputs
    n, e, hq, wq = q.shape
    shape = (n, e, v.shape[1], *k.shape[2:], hq, wq, *sizes)
    for wanted in range(8):
        got = [
            unwritten(x) if wanted >> i & 1 else None
            for i, x in enumerate(inputs)
        ]
        run(UPSAMPLE_BACKWARD, shape, [q, k, v, grads[0], *got])
        for x, y in zip(got, everything, strict=True):
            assert x is None or torch.equal(x, y)
