import pytest

# Here, because whatever these modules import would fail before they can skip.
pytest.importorskip('mmcv', reason='mmengine and mmcv register the layers')
