import itertools

import pytest
import torch

from mmsapa.ops import sapa_upsample_reference, sapa_upsample_tiled

from .test_functional import SIZES, assert_close, make


def results(function, inputs, kernel_size, scale):
    """The result of the function, and the gradients of all inputs."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, kernel_size, scale)
    grad = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out)
    return [out, *torch.autograd.grad(out, inputs, grad)]


def check(inputs, kernel_size, scale):
    exact = [x.double() for x in inputs]
    assert_close(
        results(sapa_upsample_tiled, inputs, kernel_size, scale),
        results(sapa_upsample_reference, exact, kernel_size, scale),
        inputs[0].dtype,
    )


@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7, 11])
@pytest.mark.parametrize('scale', [1, 2, 3])
def test_equals_reference(scale, kernel_size, device):
    for name, short in itertools.product(('cell', 'odd', 'tiles'), range(2)):
        if short < scale:
            inputs = make(
                SIZES[name], kernel_size, scale, torch.float64, device, short
            )
            check(inputs, kernel_size, scale)


@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16]
)
def test_accumulates_in_float32(dtype, device):
    check(make(SIZES['wide'], 5, 2, dtype, device, short=1), 5, 2)


@pytest.mark.parametrize('empty', ['N', 'C', 'E'])
def test_empty_inputs(empty, device):
    sizes = [0 if name == empty else 3 for name in 'NEC'] + [4, 5]
    check(make(sizes, 5, 2, torch.float32, device), 5, 2)


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
