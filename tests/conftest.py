import functools
import gc
import signal

import pytest
import torch

from mmsapa.ops import registrations

try:
    from mmengine.fileio import load
except ImportError:  # operators and layers need torch alone
    load = None

# The maps are small: threads would wait for each other longer than they work.
# Tests of threads set a number of their own.
torch.set_num_threads(1)
MINUTES = 45  # that any test takes at most, on a slow machine


def _cuda():
    reason = None
    if not torch.cuda.is_available():
        reason = 'there is no CUDA device'
    elif not registrations.has_kernel('cuda'):
        reason = 'mmsapa was built without its CUDA operators'
    skip = pytest.mark.skipif(reason is not None, reason=str(reason))
    return pytest.param('cuda', marks=[skip, pytest.mark.cuda])


# Every test with a `device` has a twin on the GPU.
DEVICES = ['cpu', _cuda()]


def pytest_generate_tests(metafunc):
    if 'device' in metafunc.fixturenames:
        metafunc.parametrize('device', DEVICES)


@pytest.fixture(autouse=True, scope='module')
def frozen_modules():
    """Leave what is imported out when garbage is collected.

    mmengine has it collected for every data set, for half a second each.
    Tests import as they run, so it is left out anew.
    """
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def limit():
    """No test waits without limit."""

    def stop(*_):
        raise TimeoutError(f'this test takes longer than {MINUTES} minutes')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60 * MINUTES)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def float16(device, dtype):
    """PyTorch's own float16, where the test's dtype is that."""
    old = torch.__version__ < (2, 4)
    if old and device == 'cpu' and dtype == torch.float16:
        pytest.skip(
            "PyTorch's layers and autocast in float16 on a CPU are tested "
            'from 2.4 on; 2.1 does not have them'
        )


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@functools.cache
def load_once(path):
    """Read a library's list of models, or a part of it."""
    return load(path)


@pytest.fixture(autouse=True)
def quick_configs(monkeypatch):
    """Configs without what takes longer than most tests.

    They are logged and written without yapf's layout, and mmengine reads the
    hundred lists of a library's models once, not for every config.
    """
    if not load:
        return
    monkeypatch.setattr('mmengine.config.utils.load', load_once)
    # mmengine has the function by itself, its fork not.
    for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
        monkeypatch.setattr(
            f'{module}.FormatCode',
            lambda text, **kwargs: (text, False),
            raising=False,
        )


@pytest.fixture(autouse=True)
def own_scope():
    """No test leaves a default scope to the next."""
    if not load:
        yield
        return
    from mmengine.registry import DefaultScope

    saved = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(saved)


@pytest.fixture
def scope():
    """Set the default scope for one test."""
    from mmengine.registry import init_default_scope

    return init_default_scope


@pytest.fixture
def carafe():
    """MMCV's module, which registers the layer."""
    reason = 'this mmcv was built without operators, and carafe is one'
    return pytest.importorskip('mmcv.ops.carafe', reason=reason)
