"""mmengine's counter knows the operators of mmcv's layers too."""

import pytest
import torch
from mmengine.analysis import FlopAnalyzer

from mmsapa.upsamplers import UpsampleSlot


@pytest.mark.parametrize('groups', [1, 2])
def test_carafes_reassembly_is_counted(groups, carafe, monkeypatch):
    # It has no CPU kernel, and a count needs no values.
    monkeypatch.setattr(
        carafe.ext_module, 'carafe_forward', lambda *args, **kwargs: None
    )
    slot = UpsampleSlot(dict(type='carafe', up_group=groups), 16)
    inputs = torch.randn(1, 16, 5, 6), torch.randn(1, 16, 10, 12)
    counter = FlopAnalyzer(slot, inputs)
    assert counter.by_operator() == dict(
        conv=5 * 6 * (16 * 64 + 9 * 64 * 4 * 25 * groups),
        # K * K for each of 4 * C numbers a low-res pixel.
        carafe=5 * 6 * 4 * 25 * 16,
    )


@pytest.mark.parametrize(('kind', 'kernel_size'), [('a2u', 3), ('fade', 5)])
def test_reassembly_in_pytorch_is_counted(kind, kernel_size):
    slot = UpsampleSlot(dict(type=kind, kernel_size=kernel_size), 16)
    inputs = torch.randn(1, 16, 5, 6), torch.randn(1, 16, 10, 12)
    count = FlopAnalyzer(slot, inputs).by_operator()['addcmul']
    assert count == 5 * 6 * 4 * kernel_size**2 * 16
