"""Random calls against the reference; ``make fuzz`` makes more of them."""

import os
import subprocess
import sys

import pytest
import torch

from . import fuzz


def test_random_calls_equal_the_reference():
    """A failure names its number, which brings it back."""
    wrong = [fuzz.failure(number) for number in range(100)]
    assert not any(wrong), '\n'.join(filter(None, wrong))


@pytest.mark.parametrize('capability', ['default', 'avx2'])
def test_narrow_vectors_equal_the_reference(capability):
    if capability.upper() == torch.backends.cpu.get_cpu_capability():
        pytest.skip(f'the calls above use {capability}')
    result = subprocess.run(
        [
            *(sys.executable, '-m', 'tests.ops.fuzz'),
            *('--cases', '60', '--seed', '300'),
        ],
        env=dict(os.environ, ATEN_CPU_CAPABILITY=capability),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    if capability.upper() not in result.stdout.splitlines()[0]:
        pytest.skip(f'this CPU, or its PyTorch, has no {capability}')


@pytest.mark.parametrize('changed', ['numbers', 'NaN', 'infinities'])
def test_a_fault_would_be_found(changed, monkeypatch):
    """Otherwise all of the above shows nothing."""
    right = fuzz.sapa_upsample

    def wrong(*args):
        out = right(*args)
        if changed == 'numbers':
            return out * 1.1
        if changed == 'NaN':
            return out.where(out.isfinite() | out.isinf(), 0.5)
        return out.where(~out.isinf(), -out)

    monkeypatch.setattr(fuzz, 'sapa_upsample', wrong)
    assert any(fuzz.failure(number) for number in range(300))
