import pytest


@pytest.fixture
def carafe():
    """MMCV's module, which registers the layer."""
    reason = 'this mmcv was built without operators, and carafe is one'
    return pytest.importorskip('mmcv.ops.carafe', reason=reason)
