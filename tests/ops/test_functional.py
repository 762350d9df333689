import itertools
import os

import pytest
import torch
import torch.nn.functional as F

from mmsapa.ops import (
    sapa_kernels,
    sapa_upsample,
    sapa_upsample_reference,
    sapa_upsample_tiled,
)
from mmsapa.ops.functional import extend_to

from .helpers import (
    SIZES,
    TOLERANCES,
    assert_close,
    check_against_reference,
    make,
    with_grads,
)


def upsample(*inputs):
    return sapa_upsample(*inputs, 5, 2)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7])
@pytest.mark.parametrize('scale', [1, 2, 3, 4])
def test_equals_reference(scale, kernel_size, dtype, device):
    for name, short in itertools.product(('cell', 'odd', 'tiles'), (0, 1, 3)):
        if short < scale:
            inputs = make(
                SIZES[name], kernel_size, scale, dtype, device, short
            )
            check_against_reference(inputs, kernel_size, scale)


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_a_map_that_is_short_is_extended_by_its_border(dtype, device):
    """A pyramid that rounds down: x [16, 21] for a guide of [32, 43]."""
    for scale, size in (
        (2, (32, 43)),
        (2, (33, 42)),
        (3, (50, 65)),
        (4, (67, 81)),
    ):
        q, k, v = (
            torch.randn(1, c, h, w, dtype=torch.float64).to(device, dtype)
            for c, h, w in ((3, *size), (3, 16, 21), (4, 16, 21))
        )
        check_against_reference((q, k, v), 5, scale)
        cells = [-(-side // scale) for side in size]
        longer = [
            F.pad(
                x.double(),
                (0, cells[1] - 21, 0, cells[0] - 16),
                mode='replicate',
            )
            for x in (k, v)
        ]
        expected = sapa_upsample_reference(q.double(), *longer, 5, scale)
        for function in (
            sapa_upsample,
            sapa_upsample_reference,
            sapa_upsample_tiled,
        ):
            assert_close([function(q, k, v, 5, scale)], [expected], dtype)


def test_a_map_that_is_not_short_is_left_alone():
    x = torch.randn(1, 2, 3, 4)
    for size in ((6, 8), (5, 7)):
        assert extend_to(x, size, 2) is x
    assert extend_to(x, (7, 8), 2).shape == (1, 2, 4, 4)
    for size in ((8, 8), (6, 6), (4, 8)):
        with pytest.raises(ValueError, match=r'got \[\d, \d\] for .*\[3, 4\]'):
            extend_to(x, size, 2)


def test_many_channels(device):
    cases = itertools.product((torch.float64, torch.float32), ((5, 2), (3, 3)))
    for dtype, (kernel_size, scale) in cases:
        inputs = make(
            SIZES['wide'], kernel_size, scale, dtype, device, short=1
        )
        check_against_reference(inputs, kernel_size, scale)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
def test_half_precision_is_exact_but_for_rounding(sizes, dtype, device):
    for kernel_size, scale in ((5, 2), (3, 3)):
        inputs = make(sizes, kernel_size, scale, dtype, device, short=1)
        check_against_reference(inputs, kernel_size, scale)


def test_border_is_zero_padded_before_the_softmax(device):
    """Outside the map a logit is 0, not minus infinity, and a value 0."""
    query = torch.full((1, 1, 2, 2), 2.0, device=device)
    key = torch.full((1, 1, 1, 1), 3.0, device=device)
    value = torch.full((1, 1, 1, 1), 7.0, device=device)
    inside = torch.tensor(6.0).exp()  # 2 * 3, beside 8 times e^0
    expected = 7 * inside / (inside + 8)
    out = sapa_upsample(query, key, value, 3, 2)
    torch.testing.assert_close(
        out.cpu(), expected.expand(1, 1, 2, 2), rtol=1e-6, atol=0
    )


def test_kernels_are_the_weights_of_upsample(device):
    q, k, v = make((2, 4, 6, 5, 6), 3, 2, torch.float64, device, short=1)
    weights = sapa_kernels(q, k, 3, 2)
    total = weights.sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))
    windows = torch.nn.functional.unfold(v, 3, padding=1)
    windows = windows.view(2, 6, 9, 5, 6)
    windows = windows.repeat_interleave(2, 3).repeat_interleave(2, 4)
    expected = (windows[..., :9, :11] * weights.unsqueeze(1)).sum(2)
    torch.testing.assert_close(sapa_upsample(q, k, v, 3, 2), expected)


def test_large_logits_do_not_overflow(device):
    q, k, v = make((1, 8, 4, 6, 6), 5, 2, torch.float32, device)
    out = sapa_upsample(100 * q, 100 * k, v)
    expected = sapa_upsample_reference(
        100 * q.double(), 100 * k.double(), v.double()
    )
    # Logits of 1e5 leave float32 a step of 0.01.
    assert out.isfinite().all()
    assert (out - expected).abs().mean() < 0.02


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_layouts_do_not_matter(dtype, device):
    # channels_last is copied in blocks of 32 pixels and 64 bytes.
    q, k, v = make((2, 6, 40, 5, 7), 5, 2, dtype, device, short=1)
    expected = with_grads(upsample, (q, k, v))
    layouts = {
        'channels_last': lambda x: x.contiguous(
            memory_format=torch.channels_last
        ),
        'transposed': lambda x: x.mT.contiguous().mT,
        'strided': lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
        'expanded': lambda x: x[:1].expand_as(x),
    }
    for name, layout in layouts.items():
        inputs = [layout(x) for x in (q, k, v)]
        if name == 'expanded':
            expected = with_grads(upsample, [x.contiguous() for x in inputs])
        got = with_grads(upsample, inputs)
        for x, y in zip(got, expected, strict=True):
            assert torch.equal(x, y), name


@pytest.mark.parametrize('empty', ['N', 'C', 'E'])
def test_empty_inputs(empty, device):
    sizes = [0 if name == empty else 3 for name in 'NEC'] + [4, 5]
    inputs = make(sizes, 5, 2, torch.float32, device)
    out, *grads = with_grads(upsample, inputs)
    assert out.shape == (sizes[0], sizes[2], 8, 10)
    for grad, x in zip(grads, inputs, strict=True):
        assert grad.shape == x.shape
    assert sapa_kernels(*inputs[:2]).shape == (sizes[0], 25, 8, 10)
    if empty == 'E':  # all logits are 0
        check_against_reference(inputs, 5, 2)


def test_batches_are_independent(device):
    q, k, v = make((5, 4, 6, 7, 6), 5, 2, torch.float32, device)
    together = with_grads(upsample, (q, k, v))
    for i in range(5):
        one = [x[i : i + 1] for x in (q, k, v)]
        assert torch.equal(sapa_upsample(*one), together[0][i : i + 1])


def test_backward_is_deterministic(device):
    inputs = make((3, 9, 21, 24, 33), 5, 2, torch.float32, device)
    first = with_grads(upsample, inputs)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = with_grads(upsample, inputs)
            for x, y in zip(first, again, strict=True):
                assert torch.equal(x, y)
    finally:
        torch.set_num_threads(threads)


def test_not_a_number_stays_where_it_is(device):
    q, k, v = make((1, 4, 4, 12, 40), 5, 2, torch.float32, device)
    v[0, 0, 3, 20] = float('nan')
    out = sapa_upsample(q, k, v)
    touched = torch.zeros(24, 80, dtype=torch.bool, device=device)
    touched[2:12, 36:46] = True
    assert torch.equal(out[0, 0].isnan(), touched)
    assert not out[0, 1:].isnan().any()


# As a GPU writes it, of another payload, and negative.
@pytest.mark.parametrize('bits', [0x7FFFFFFF, 0x7F800001, -1])
def test_not_a_number_of_any_bits_is_one_in_the_result(bits, device):
    """A query or key with it has no weights, and gets no gradient."""
    nan = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    inputs = make((1, 4, 3, 5, 20), 3, 2, torch.float32, device)
    for i in range(2):
        spoiled = [x.clone() for x in inputs]
        spoiled[i][0, 1, 2, 3] = nan.to(device)
        check_kinds(spoiled)


@pytest.mark.parametrize('number', [float('inf'), -float('inf')])
@pytest.mark.parametrize('short', [0, 1])
def test_infinities_are_those_of_the_reference(number, short, device):
    """Also beside queries that the last cells do not have."""
    for i in range(3):
        inputs = make((1, 4, 3, 5, 20), 3, 2, torch.float32, device, short)
        inputs[i][0, 1, -1, -1] = number
        check_kinds(inputs)


def check_kinds(inputs):
    """NaN, infinities and numbers where the reference has them."""
    results = [
        with_grads(lambda *x, f=f: f(*x, 3, 2), inputs)
        for f in (sapa_upsample, sapa_upsample_reference)
    ]
    torch.testing.assert_close(*results, equal_nan=True, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(
    os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') < 20 << 30,
    reason='needs 20 GiB of memory',
)
def test_more_than_2_to_the_31_elements(device):
    channels, side = 2080, 1024
    value = torch.zeros(1, channels, side // 2, side // 2, dtype=torch.int16)
    value = value.view(torch.bfloat16).to(device)
    value[0, -1, -1, -1] = 3
    query = torch.zeros(1, 1, side, side, dtype=value.dtype, device=device)
    key = torch.zeros_like(value[:, :1])
    out = sapa_upsample(query, key, value, 1, 2)
    assert out.numel() > 2**31
    assert out[0, -1, -2:, -2:].eq(3).all()
    assert out[0, -1].sum() == 12
    assert out[0, 0].eq(0).all()


# ---- errors ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'error', 'words'),
    [
        (dict(query='q'), TypeError, 'query as a torch.Tensor, got str'),
        (dict(query=torch.zeros(4, 4)), ValueError, r'got \[4, 4\]'),
        (dict(key=torch.zeros(1, 4, 4, 4).int()), TypeError, 'torch.int32'),
        (dict(key=torch.zeros(1, 3, 4, 4)), ValueError, 'same N and E'),
        (dict(key=torch.zeros(2, 4, 4, 4)), ValueError, 'same N and E'),
        (dict(value=torch.zeros(1, 2, 4, 5)), ValueError, 'same N, H and W'),
        (dict(value=torch.zeros(2, 2, 4, 4)), ValueError, 'same N, H and W'),
        (
            dict(value=torch.zeros(1, 2, 4, 4).double()),
            ValueError,
            'float32 and value of torch.float64',
        ),
        (
            dict(value=torch.zeros(1, 2, 4, 4, device='meta')),
            ValueError,
            'query on cpu and value on meta',
        ),
        (dict(kernel_size=4), ValueError, 'odd kernel_size.*got 4'),
        (dict(kernel_size=0), ValueError, 'kernel_size >= 1, got 0'),
        (dict(kernel_size=5.0), TypeError, 'as an int, got float'),
        (dict(scale_factor=0), ValueError, 'scale_factor >= 1, got 0'),
        (dict(scale_factor=True), TypeError, 'as an int, got bool'),
        (dict(kernel_size=2**62 + 1), ValueError, r'<= 512, got 461168'),
        (dict(scale_factor=2**32), ValueError, r'<= 512, got 5 \* 4294967296'),
        (
            dict(value=torch.zeros(1, 2, 4, 4).to_sparse()),
            TypeError,
            'value as a dense tensor.*sparse_coo',
        ),
        (dict(scale_factor=3), ValueError, r'3 times.*\[8, 8\] for \[4, 4\]'),
        (
            dict(
                query=torch.zeros(1, 4, 4, 4),
                key=torch.zeros(1, 4, 8, 8),
                value=torch.zeros(1, 4, 8, 8),
            ),
            ValueError,
            'swapped',
        ),
    ],
)
def test_bad_arguments_are_named(change, error, words):
    arguments = dict(
        query=torch.zeros(1, 4, 8, 8),
        key=torch.zeros(1, 4, 4, 4),
        value=torch.zeros(1, 2, 4, 4),
        kernel_size=5,
        scale_factor=2,
    )
    sapa_upsample(**arguments)
    arguments.update(change)
    with pytest.raises(error, match=words):
        sapa_upsample(**arguments)
    if 'value' not in change:
        del arguments['value']
        with pytest.raises(error, match=words):
            sapa_kernels(**arguments)


def test_the_operator_itself_refuses_what_would_crash(device):
    q, k, v = make((1, 4, 2, 4, 4), 5, 2, torch.float32, device)
    op = torch.ops.mmsapa.sapa_upsample
    backward = torch.ops.mmsapa.sapa_upsample_backward
    for arguments in (
        (q[..., :3], k, v, 5, 2),
        (q, k[:, :2], v, 5, 2),
        (q, k, v[..., :3], 5, 2),
        (q, k, v.double(), 5, 2),
        (q, k, v, 4, 2),
        (q, k, v, 5, 0),
        (q, k, v, 257, 2),
        (q, k, v, 2**62 + 1, 2),
        (q, k, v, 5, 2**62),
        # One cell fits any scale.
        (q, k[..., :1, :1], v[..., :1, :1], 5, 2**32),
        # The functions extend a map that is short; the operator does not.
        (q, k[..., :3], v[..., :3], 5, 2),
    ):
        with pytest.raises(RuntimeError, match='expected'):
            op(*arguments)
        with pytest.raises(RuntimeError, match='expected'):
            backward(q[:, :2], *arguments, [True] * 3)
        meta = [
            x.to('meta') if isinstance(x, torch.Tensor) else x
            for x in arguments
        ]
        with pytest.raises(ValueError, match='expected'):
            op(*meta)
    with pytest.raises(RuntimeError, match='expected a gradient'):
        backward(q[:, :1], q, k, v, 5, 2, [True] * 3)
