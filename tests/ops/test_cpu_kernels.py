"""Every instruction set that the CPU kernels are compiled for."""

import os
import subprocess
import sys

import pytest
import torch

from .helpers import check_against_reference, make

CAPABILITIES = ['default', 'avx2', 'avx512']
SCRIPT = """
import torch
torch.manual_seed(0)
torch.set_num_threads(1)
print(torch.backends.cpu.get_cpu_capability())
from tests.ops import helpers
for dtype in helpers.TOLERANCES:
    for sizes in helpers.SIZES.values():
        for kernel_size, scale in ((5, 2), (3, 3)):
            for prior in (None, torch.randn(scale**2, kernel_size**2)):
                helpers.check_against_reference(
                    helpers.make(sizes, kernel_size, scale, dtype, 'cpu', 1),
                    kernel_size, scale, prior=prior)
    for kernel_size, scale in ((5, 2), (3, 3)):
        helpers.check_reassembly(
            (2, 17, 6, 70), kernel_size, scale, dtype, 'cpu', 1)
    for sizes in helpers.PROJECTION_SIZES.values():
        helpers.check_projection_against_two_steps(sizes, dtype, 'cpu')
"""

THREADS = """
import os
import torch
from mmsapa.ops import sapa_upsample
maps = [torch.ones(1, 4, size, size) for size in (64, 32, 32)]
counts = []
def count():
    counts.append(len(os.listdir('/proc/self/task')))
count()
for number in (1, 3):
    torch.set_num_threads(number)
    sapa_upsample(*maps, 5, 2)
    count()
torch.ones(10**6).exp()
count()
print(*counts)
"""


@pytest.mark.parametrize('capability', CAPABILITIES)
def test_matches_the_reference(capability):
    # A forced capability that is not there ends the process.
    here = torch.backends.cpu.get_cpu_capability().lower()
    rank = CAPABILITIES.index(here) if here in CAPABILITIES else 0
    if CAPABILITIES.index(capability) > rank:
        pytest.skip(f'this CPU, or its PyTorch, has no {capability}')
    if capability == here:
        pytest.skip(f'all other tests use {capability}')
    result = subprocess.run(
        [sys.executable, '-c', SCRIPT],
        env=dict(os.environ, ATEN_CPU_CAPABILITY=capability),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    # What PyTorch calls default today was NO AVX in 2.1.
    names = ('default', 'no avx') if capability == 'default' else [capability]
    assert result.stdout.splitlines()[0].lower() in names


def test_threads_are_those_of_pytorch():
    """As many as torch.set_num_threads says, and no OpenMP library twice."""
    result = subprocess.run(
        [sys.executable, '-c', THREADS], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    before, *counts = map(int, result.stdout.split())
    assert [count - before for count in counts] == [0, 2, 2]


@pytest.mark.parametrize('width', [64, 70])
def test_large_results_are_written_past_the_caches(width):
    """From 2 MiB on; aligned rows and rows that are not."""
    inputs = make((1, 3, 70, 30, width), 3, 2, torch.float32, 'cpu')
    check_against_reference(inputs, 3, 2)
