"""Time, memory, and the machine that they were measured on."""

import ctypes
import gc
import math
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import mmcv
import numpy as np
import torch
from torch.utils.benchmark import Timer

import mmsapa
import mmsapa.memory

# A measurement lasts at least so long, in seconds.
SHORTEST = 0.15
# glibc's malloc keeps to one heap and returns what is freed.
TIDY_MALLOC = dict(
    MALLOC_MMAP_MAX_='65536',
    MALLOC_ARENA_MAX='1',
    MALLOC_MMAP_THRESHOLD_='65536',
    MALLOC_TRIM_THRESHOLD_='0',
    MALLOC_TOP_PAD_='0',
)
PR_SET_THP_DISABLE = 41
CLEAR_REFS = Path('/proc/self/clear_refs')


def make_run(function, inputs, parameters=(), backward=False):
    """Make a function without arguments that does one pass.

    Args:
        function (Callable): Takes the inputs, returns a Tensor.
        inputs (list[Tensor]): First a map of the result's size, last the map
            that is upsampled.
        parameters (list[Tensor]): Get gradients too.
        backward (bool): Whether gradients are computed.

    Returns:
        Callable: Returns a list of the result and, with backward, of the
        gradients that there are.
    """
    if not backward:

        def forward():
            with torch.no_grad():
                return [function(*inputs)]

        return forward

    inputs = [x.detach().requires_grad_() for x in inputs]
    wanted = [*inputs, *parameters]
    # The same on every device and, but for rounding, in every dtype.
    shape = *inputs[-1].shape[:2], *inputs[0].shape[2:]
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(shape, generator=generator).to(inputs[0])

    def forward_backward():
        out = function(*inputs)
        # An interpolation does not use queries and keys.
        grads = torch.autograd.grad(out, wanted, grad, allow_unused=True)
        return [out, *(grad for grad in grads if grad is not None)]

    return forward_backward


def time_in_rounds(runs, rounds, threads, tick, shortest=SHORTEST):
    """Time all runs in turn, as often as there are rounds.

    What disturbs the machine for a while disturbs all of them alike.

    Args:
        runs (dict[Hashable, Callable]): What to time.
        rounds (int): Measurements of each.
        threads (int): For PyTorch on a CPU.
        tick (Callable): Called with the key of each run before it is timed.
        shortest (float): Seconds that a measurement lasts at least; it
            repeats the call for so long.

    Returns:
        dict: For each key either ``dict(calls=..., seconds=[...])``, seconds
        of one call in each round, or ``dict(reason=...)``.
    """
    results, timers = {}, {}
    for key, run in runs.items():
        tick(key)
        timer = Timer('run()', globals=dict(run=run), num_threads=threads)
        try:
            calls = _calls(timer, shortest)
        except Exception as error:  # out of memory, mostly
            results[key] = dict(reason=first_line(error))
            continue
        timers[key] = timer
        results[key] = dict(calls=calls, seconds=[])
    for _ in range(rounds):
        for key, timer in timers.items():
            tick(key)
            measurement = timer.timeit(results[key]['calls'])
            results[key]['seconds'].append(measurement.mean)
    return results


def _calls(timer, shortest):
    """Calls that last long enough; one alone may mostly wait for a GPU."""
    calls, lasted = 1, timer.timeit(1).mean
    while lasted < shortest:
        calls = math.ceil(1.1 * calls * shortest / lasted)
        lasted = calls * timer.timeit(calls).mean
    return calls


def first_line(error):
    """The first line of an error's message, or its type without one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def cuda_extra_bytes(run):
    """Measure the peak of a run's memory beyond inputs and results, on a GPU.

    Args:
        run (Callable): Returns its results, a list of tensors.

    Returns:
        int: Bytes.
    """
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outputs = run()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    return peak - before - sum(x.nbytes for x in outputs)


def cpu_extra_bytes(make, *arguments):
    """Measure the peak of a run's memory beyond inputs and results, on a CPU.

    It is the memory of the process, because compiled kernels may allocate
    without PyTorch; and of a new one, because an old one reuses freed memory.

    Args:
        make (Callable): Function of a module, called in that process; returns
            a small run that loads all code, and the run to measure.
        *arguments: Its arguments, which can be pickled.

    Returns:
        int | None: Bytes; None where the system (any but Linux) does not
        tell, or ended the process for its memory.
    """
    if not os.access(CLEAR_REFS, os.W_OK):
        return None
    # Forked from a server that has loaded everything and computed nothing.
    context = get_context('forkserver')
    context.set_forkserver_preload([make.__module__])
    with (
        mock.patch.dict(os.environ, TIDY_MALLOC, OMP_NUM_THREADS='1'),
        ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        try:
            return pool.submit(_peak, make, arguments).result()
        except BrokenProcessPool:  # ended for its memory
            return None


def _peak(make, arguments):
    torch.set_num_threads(1)
    # A huge page counts whole, however little of it is used.
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    small, run = make(*arguments)
    for _ in range(2):
        small()
    gc.collect()
    before, code = memory('VmRSS'), memory('RssFile')
    CLEAR_REFS.write_text('5')  # the high-water mark starts anew
    outputs = run()
    code = memory('RssFile') - code  # which the small run had no use for
    return memory('VmHWM') - before - code - sum(x.nbytes for x in outputs)


def memory(field):
    """Read the memory of this process, on Linux.

    Args:
        field (str): Of /proc/self/status, such as VmRSS or VmHWM.

    Returns:
        int: Bytes.

    Raises:
        RuntimeError: If there is no such field.
    """
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'/proc/self/status: expected {field}, got none.')


def free_bytes(device):
    """Bytes of memory that are available on 'cpu' or 'cuda'."""
    if device == 'cuda':
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    return mmsapa.memory.free_bytes()


def copy_bandwidth():
    """Bytes per second that a copy on the GPU reads and writes."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device='cuda')
    target = torch.empty_like(source)
    timer = Timer('target.copy_(source)', globals=locals())
    return 2 * source.nbytes / timer.blocked_autorange().median


def quartiles(seconds):
    """Lower quartile, median, upper quartile."""
    return np.percentile(seconds, [25, 50, 75])


def environment(device):
    """Describe the machine and the software of a measurement.

    Args:
        device (str): 'cpu' or 'cuda'.

    Returns:
        dict[str, str | None]: From ``machine`` to ``command``.
    """
    if device == 'cuda':
        machine = torch.cuda.get_device_name()
    else:
        machine = f'{_cpu_name()}, {os.cpu_count()} cores'
        machine += f', {torch.backends.cpu.get_cpu_capability()}'
    return dict(
        machine=machine,
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        mmcv=mmcv.__version__,
        mmsapa=mmsapa.__version__,
        commit=_commit(),
        date=time.strftime('%Y-%m-%d %H:%M'),
        command=' '.join(['python', *sys.argv]),
    )


def _commit():
    """The commit of the clone, where there is one, and git."""
    root = Path(__file__).parents[2]
    try:
        found = subprocess.run(
            ['git', '-C', root, 'describe', '--always', '--dirty'],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return found.stdout.strip() or None


def _cpu_name():
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(
            line.split(': ')[1] for line in lines if line.startswith('model n')
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
