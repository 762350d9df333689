"""The CUDA kernels, compiled for the CPU (tests/cuda_on_cpu)."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def cuda_headers():
    nvcc = shutil.which('nvcc')
    homes = [os.environ.get('CUDA_HOME'), '/usr/local/cuda']
    if nvcc:
        homes.append(Path(nvcc).resolve().parents[1])
    for home in filter(None, homes):
        if (Path(home) / 'include' / 'cuda_runtime_api.h').exists():
            return Path(home) / 'include'
    return None


@pytest.fixture(scope='session')
def library():
    headers = cuda_headers()
    if headers is None:
        pytest.skip('there is no CUDA toolkit, whose headers are needed')
    command = [
        *('g++', '-std=c++17', '-O1', '-fPIC', '-shared', '-w'),
        # A GPU reads no number from where it is not aligned.
        *('-fsanitize=alignment', '-fsanitize-undefined-trap-on-error'),
        *('-D__CUDA_NO_HALF_OPERATORS__', '-I', ROOT / 'csrc'),
        *('-I', ROOT / 'csrc' / 'cuda', '-isystem', headers),
        ROOT / 'tests' / 'cuda_on_cpu' / 'library.cpp',
    ]
    # It takes a quarter of a minute; the processes of a run share it, and the
    # next run has it.
    digest = hashlib.sha256(repr(command).encode())
    for folder in ('csrc', 'tests/cuda_on_cpu'):
        for path in sorted(ROOT.glob(f'{folder}/**/*.*')):
            digest.update(path.read_bytes())
    folder = ROOT / 'build' / 'cuda-on-cpu'
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f'{digest.hexdigest()[:16]}.so'
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            for old in folder.glob('*.so'):
                old.unlink()
            unfinished = folder / 'unfinished'
            subprocess.run([*command, '-o', unfinished], check=True)
            unfinished.rename(library)
    return ctypes.CDLL(str(library))


@pytest.fixture
def opcheck():
    """PyTorch's own tests of an operator's registration."""
    if not hasattr(torch.library, 'opcheck'):
        pytest.skip('torch.library.opcheck came with torch 2.4')
    return torch.library.opcheck
