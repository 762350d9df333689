import itertools

import pytest
import torch

from mmsapa.ops import sapa_upsample_reference, sapa_upsample_tiled

from .helpers import SIZES, check_against_reference, make


@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7, 11])
@pytest.mark.parametrize('scale', [1, 2, 3])
def test_equals_reference(scale, kernel_size, device):
    for name, short in itertools.product(('cell', 'odd', 'tiles'), range(2)):
        if short < scale:
            inputs = make(
                SIZES[name], kernel_size, scale, torch.float64, device, short
            )
            check_against_reference(
                inputs, kernel_size, scale, sapa_upsample_tiled
            )


@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16]
)
def test_accumulates_in_float32(dtype, device):
    inputs = make(SIZES['wide'], 5, 2, dtype, device, short=1)
    check_against_reference(inputs, 5, 2, sapa_upsample_tiled)


@pytest.mark.parametrize('empty', ['N', 'C', 'E'])
def test_empty_inputs(empty, device):
    sizes = [0 if name == empty else 3 for name in 'NEC'] + [4, 5]
    inputs = make(sizes, 5, 2, torch.float32, device)
    check_against_reference(inputs, 5, 2, sapa_upsample_tiled)


def test_result_is_contiguous(device):
    inputs = make(SIZES['odd'], 5, 2, torch.float32, device, short=1)
    assert sapa_upsample_tiled(*inputs).is_contiguous()


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_a_key_that_is_no_number_stays_in_its_windows(number, device):
    q, k, v = make((1, 4, 3, 9, 10), 3, 2, torch.float64, device)
    k[0, 2, 4, 5] = number
    torch.testing.assert_close(
        sapa_upsample_tiled(q, k, v, 3, 2),
        sapa_upsample_reference(q, k, v, 3, 2),
        equal_nan=True,
    )
