"""What a bug report needs: ``python -m mmsapa.info``.

Prints versions, what was built and found, and whether the operator agrees
with its reference on each device. What is missing or broken gets a line, too.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path


def main() -> int:
    """Print everything, a line each.

    Returns:
        int: Exit code: 0 if the self-test passes on each device, otherwise 1.
    """
    passed = True
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for name, value, *failed in _lines():
            print(f'{name:<17}{value}', flush=True)
            passed = passed and not failed
    return 0 if passed else 1


def _lines() -> Iterator[tuple]:
    """Yield names and values, and a third item where the self-test failed."""
    yield 'Python', f'{platform.python_version()}, {sys.executable}'
    yield 'platform', platform.platform()
    yield 'C++ compiler', _compiler(os.environ.get('CXX') or 'c++')
    toolkit = os.environ.get('CUDA_HOME') or '/usr/local/cuda'
    yield 'nvcc', _compiler(shutil.which('nvcc') or f'{toolkit}/bin/nvcc')
    distributions = metadata.packages_distributions()
    for name in ('torch', 'mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmsapa'):
        yield name, _library(name, sorted({*distributions.get(name, ())}))
    yield 'mmsapa folder', Path(__file__).parent
    yield 'mmcv operators', _try_import('mmcv._ext')
    yield 'sapa layer', _try_import('mmsapa.upsamplers')
    yield 'upsampler slot', _try_import('mmsapa.upsamplers.slot')
    try:
        import torch

        from mmsapa import ops
    except Exception as error:
        yield 'self-test', f'not run, {_words(error)}', 'failed'
        return
    yield 'CPU operators', _operators('cpu')
    yield 'CUDA operators', _operators('cuda')
    yield 'instruction set', torch.backends.cpu.get_cpu_capability()
    devices = ['cpu']
    if torch.cuda.is_available():
        devices += [f'cuda:{i}' for i in range(torch.cuda.device_count())]
        for device in devices[1:]:
            yield device, torch.cuda.get_device_name(device)
    else:
        cuda = torch.version.cuda
        build = f'a build for CUDA {cuda}' if cuda else 'a CPU build'
        yield 'GPU', f'none that PyTorch can use, which is {build}'
    for device in devices:
        try:
            _compare_with_reference(torch, ops, device)
        except Exception as error:
            yield f'self-test {device}', f'failed, {_words(error)}', 'failed'
        else:
            yield f'self-test {device}', 'passed'


def _words(error):
    words = ' '.join(f'{type(error).__name__}: {error}'.split())
    return words if len(words) < 300 else f'{words[:300]} …'


def _compiler(command):
    try:
        output = subprocess.run(
            [*shlex.split(command), '--version'],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f'none, {_words(error)}'
    # nvcc prints its name first.
    lines = re.findall(r'^.*\d\.\d.*$', output, re.M)
    return lines[0] if lines else command


def _library(name, distributions):
    if find_spec(name) is None:
        return 'not installed'
    # Two of them mean that a fork lies over the official one.
    known = ', '.join(f'{x} {metadata.version(x)}' for x in distributions)
    try:
        module = import_module(name)
    except Exception as error:
        return f'cannot be imported, {_words(error)} ({known})'
    version = getattr(module, '__version__', 'of no version')
    return f'{version} ({known or "not installed by pip"})'


def _try_import(name):
    try:
        import_module(name)
    except Exception as error:
        return f'none, {_words(error)}'
    return 'found'


def _operators(device_type):
    from mmsapa.ops import registrations

    if registrations.has_kernel(device_type):
        return 'found'
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        loaded = registrations.load_kernels()
    if loaded:
        return 'none, mmsapa was built without them'
    reasons = [str(warning.message) for warning in caught]
    return f'none, {" ".join(reasons) or registrations.how_to_build()}'


def _compare_with_reference(torch, ops, device):
    """Run the operator forward and backward, and its reference.

    Raises:
        AssertionError: If results or gradients differ.
    """
    torch.manual_seed(0)
    # Odd sizes, whose last cells are not full.
    sizes = (2, 16, 13, 21), (2, 16, 7, 11), (2, 24, 7, 11)
    results = []
    inputs = [torch.randn(size) for size in sizes]
    grad = torch.randn(2, 24, 13, 21)
    for upsample in (ops.sapa_upsample, ops.sapa_upsample_reference):
        tensors = [x.to(device).requires_grad_() for x in inputs]
        out = upsample(*tensors)
        grads = torch.autograd.grad(out, tensors, grad.to(device))
        results.append([out, *grads])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


if __name__ == '__main__':
    sys.exit(main())
