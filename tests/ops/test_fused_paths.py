"""The paths of the fused CUDA kernels, on a GPU.

Each case is there for what it makes the kernels choose. test_cuda_on_cpu has
smaller ones for most of it.
"""

import pytest
import torch

from mmsapa.ops import sapa_upsample

from ..conftest import DEVICES
from .helpers import (
    TOLERANCES,
    check_against_reference,
    make,
    one_further,
    with_grads,
)

on_gpu = pytest.mark.parametrize('gpu', DEVICES[1:])
# N, E, C, H, W, and queries missing at the far border.
PATHS = {
    # Copies of two 16-bit numbers, loads of several queries at once.
    'even': (2, 32, 64, 5, 34, 0),
    # The wide gather, with few channels and with many.
    'images': (64, 2, 34, 5, 18, 0),
    'channels': (16, 32, 256, 32, 32, 0),
    'channels-short': (16, 32, 256, 32, 32, 1),
    # A backward pass in several bands.
    'bands': (1, 4, 40, 290, 260, 0),
}


@on_gpu
@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('kernel_size', [5, 3])
@pytest.mark.parametrize('path', PATHS)
def test_equals_reference(path, kernel_size, dtype, gpu):
    *sizes, short = PATHS[path]
    inputs = make(sizes, kernel_size, 2, dtype, gpu, short)
    check_against_reference(inputs, kernel_size, 2)


@on_gpu
@pytest.mark.parametrize('dtype', TOLERANCES)
def test_even_maps_may_begin_anywhere(dtype, gpu):
    *sizes, short = PATHS['even']
    inputs = make(sizes, 5, 2, dtype, gpu, short)
    results = [
        with_grads(lambda *x: sapa_upsample(*x, 5, 2), maps)
        for maps in (inputs, [one_further(x) for x in inputs])
    ]
    for x, y in zip(*results, strict=True):
        assert torch.equal(x, y)
