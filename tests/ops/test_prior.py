"""SAPA with a prior: where it interpolates, and all that takes one."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmsapa.ops import (
    interpolation_prior,
    sapa_kernels,
    sapa_upsample,
    sapa_upsample_reference,
    sapa_upsample_tiled,
)

from .helpers import (
    SIZES,
    TOLERANCES,
    check_against_reference,
    make,
    with_grads,
)

MODES = ['bilinear', 'nearest']
FORMS = [sapa_upsample, sapa_upsample_tiled, sapa_upsample_reference]


def make_prior(kernel_size, scale, device='cpu'):
    """Numbers of no interpolation, so that mixing up two of them shows."""
    return torch.randn(scale**2, kernel_size**2).to(device)


def interpolate(x, mode, scale):
    align_corners = False if mode == 'bilinear' else None
    return F.interpolate(
        x, scale_factor=scale, mode=mode, align_corners=align_corners
    )


# ---- interpolations -------------------------------------------------------


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('scale', [1, 2, 3, 4, 7])
@pytest.mark.parametrize('form', FORMS)
def test_zero_queries_interpolate(form, scale, mode, device):
    """Borders and corners too; up to a cell short, as SAPA takes it."""
    for kernel_size, (h, w), floor in itertools.product(
        (3, 5, 7), ((1, 1), (1, 6), (5, 9)), (-10.0, -40.0)
    ):
        x = torch.rand(2, 3, h, w, dtype=torch.float64, device=device)
        expected = interpolate(x, mode, scale)
        prior = interpolation_prior(mode, kernel_size, scale, floor)
        for short in {0, scale // 2}:
            high = expected[..., : h * scale - short, : w * scale - short]
            query = high.new_zeros(high[:, :2].shape)
            got = form(
                query, x[:, :2], x, kernel_size, scale, prior.to(device)
            )
            # What the floor leaves to other places, of numbers up to 1 apart,
            # and the rounding of the table.
            leak = 4 * kernel_size**2 * math.exp(floor)
            assert (got - high).abs().max() < leak + 1e-6


def test_the_floor_is_what_a_weight_of_zero_gets():
    for mode in MODES:
        prior = interpolation_prior(mode, 5, 2)
        assert prior.dtype == torch.float32 and prior.shape == (4, 25)
        assert prior.min() == -10 and interpolation_prior(mode).equal(prior)
        assert interpolation_prior(mode, floor=-5).min() == -5
    # The top left pixel of a cell is a quarter cell off its center.
    weights = interpolation_prior('bilinear', 3, 2)[0].exp().view(3, 3)
    along = torch.tensor([0.25, 0.75])
    torch.testing.assert_close(weights[:2, :2], along.outer(along))
    torch.testing.assert_close(weights[2], torch.full((3,), -10.0).exp())


@pytest.mark.parametrize(
    ('arguments', 'error', 'words'),
    [
        (('bicubic',), ValueError, "'bilinear' or 'nearest', got 'bicubic'"),
        (('nearest', 4), ValueError, 'odd kernel_size.*got 4'),
        (('nearest', 1), ValueError, 'kernel_size >= 3.*got 1'),
        (('nearest', 5, 0), ValueError, 'scale_factor >= 1, got 0'),
        (('nearest', 5, 2.0), TypeError, 'as an int, got float'),
        (('nearest', 5, 2, 0.0), ValueError, 'floor .*below 0, got 0.0'),
        (('nearest', 5, 2, math.nan), ValueError, 'floor .*got nan'),
        (('nearest', 5, 2, 'low'), ValueError, "floor .*got 'low'"),
    ],
)
def test_bad_interpolations_are_named(arguments, error, words):
    with pytest.raises(error, match=f'^interpolation_prior: .*{words}'):
        interpolation_prior(*arguments)


# ---- the operator ---------------------------------------------------------


def by_definition(query, key, value, kernel_size, scale, prior):
    """Pixel by pixel, with no place outside the map."""
    (n, c, h, w), r = value.shape, kernel_size // 2
    out = value.new_zeros(n, c, *query.shape[2:])
    for i, j in itertools.product(*map(range, query.shape[2:])):
        logits, values = [], []
        row = prior[i % scale * scale + j % scale]
        for o, (dy, dx) in enumerate(
            itertools.product(range(-r, r + 1), repeat=2)
        ):
            y, x = i // scale + dy, j // scale + dx
            if 0 <= y < h and 0 <= x < w:
                dot = (query[:, :, i, j] * key[:, :, y, x]).sum(1)
                logits.append(dot + row[o])
                values.append(value[:, :, y, x])
        weights = torch.stack(logits, -1).softmax(-1)
        out[:, :, i, j] = (torch.stack(values, -1) * weights[:, None]).sum(-1)
    return out


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
    ('kernel_size', 'scale'), [(5, 2), (3, 3), (1, 2), (7, 1)]
)
def test_follows_the_definition(kernel_size, scale, form, device):
    """Forward and backward."""
    sizes = (2, 3, 4, 3, 4)
    inputs = make(sizes, kernel_size, scale, torch.float64, device, short=1)
    rest = kernel_size, scale, make_prior(kernel_size, scale, device)
    torch.testing.assert_close(
        with_grads(lambda *x: form(*x, *rest), inputs),
        with_grads(lambda *x: by_definition(*x, *rest), inputs),
    )


def check(sizes, kernel_size, scale, dtype, device, short, form):
    inputs = make(sizes, kernel_size, scale, dtype, device, short)
    prior = make_prior(kernel_size, scale, device)
    check_against_reference(inputs, kernel_size, scale, form, prior)


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('form', FORMS[:2])
def test_equals_reference(form, dtype, device):
    for sizes, kernel_size, scale, short in (
        (SIZES['cell'], 5, 2, 0),
        (SIZES['odd'], 5, 2, 1),
        (SIZES['tiles'], 5, 2, 0),
        (SIZES['odd'], 3, 4, 1),
        (SIZES['tiles'], 7, 3, 1),
        (SIZES['odd'], 1, 1, 0),
    ):
        check(sizes, kernel_size, scale, dtype, device, short, form)


def test_equals_reference_on_large_maps(device):
    """Several bands of the backward pass, and tiles side by side."""
    sizes = 1, 3, 4, 40, 150
    check(sizes, 5, 2, torch.float32, device, 1, sapa_upsample)


def test_without_a_prior_nothing_changes(device):
    """A prior of zeros is another thing: it masks what is outside."""
    inputs = make(SIZES['odd'], 5, 2, torch.float32, device, 1)
    expected = with_grads(lambda *x: sapa_upsample(*x, 5, 2), inputs)
    zeros = torch.zeros_like(make_prior(5, 2, device))
    for prior in (None, zeros):
        got = with_grads(
            lambda *x, prior=prior: sapa_upsample(*x, 5, 2, prior), inputs
        )
        same = [torch.equal(x, y) for x, y in zip(got, expected, strict=True)]
        assert same == [prior is None] * 4
    inner = got[0][..., 4:10, 4:14], expected[0][..., 4:10, 4:14]
    torch.testing.assert_close(*inner)


def test_a_short_map_is_extended_before_it_is_masked(device):
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64, device=device)
    longer = F.pad(x, (0, 0, 0, 1), mode='replicate')
    query = torch.randn(1, 2, 7, 8, dtype=x.dtype, device=device)
    prior = make_prior(3, 2, device)
    expected = by_definition(query, longer, longer, 3, 2, prior)
    for form in FORMS:
        got = form(query, x, x, 3, 2, prior)
        torch.testing.assert_close(got, expected)


def test_weights_are_those_of_upsample_and_none_outside(device):
    q, k, v = make((2, 4, 6, 5, 6), 3, 2, torch.float64, device, short=1)
    prior = make_prior(3, 2, device)
    weights = sapa_kernels(q, k, 3, 2, prior)
    windows = F.unfold(v, 3, padding=1).view(2, 6, 9, 5, 6)
    windows = windows.repeat_interleave(2, 3).repeat_interleave(2, 4)
    expected = (windows[..., :9, :11] * weights.unsqueeze(1)).sum(2)
    torch.testing.assert_close(sapa_upsample(q, k, v, 3, 2, prior), expected)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(q[:, 0]))
    assert weights[:, :3, :2].eq(0).all()  # above the first row of cells
    assert weights[:, :, 2:8, 2:9].gt(0).all()


@pytest.mark.parametrize('number', [math.nan, math.inf, -math.inf])
def test_what_is_no_number_comes_out_as_the_reference_has_it(number, device):
    rest = 3, 2, make_prior(3, 2, device)
    for i, at in itertools.product(range(3), (0, -1)):
        inputs = make((1, 4, 3, 5, 20), 3, 2, torch.float32, device, 1)
        inputs[i][0, 1, at, at] = number
        results = [
            with_grads(lambda *x, form=form: form(*x, *rest), inputs)
            for form in (sapa_upsample, sapa_upsample_reference)
        ]
        torch.testing.assert_close(
            *results, equal_nan=True, rtol=1e-4, atol=1e-4
        )


def test_backward_is_deterministic_with_a_prior(device):
    inputs = make((2, 9, 12, 24, 33), 5, 2, torch.float32, device)
    rest = 5, 2, make_prior(5, 2, device)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(
                with_grads(lambda *x: sapa_upsample(*x, *rest), inputs)
            )
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for x, y in zip(result, results[0], strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_prior_may_have_another_dtype(dtype, device):
    """As one has that was cast with its layer."""
    prior = make_prior(5, 2, device).to(dtype)
    for maps in (torch.float64, torch.float16):
        inputs = make(SIZES['odd'], 5, 2, maps, device)
        for form in FORMS:
            check_against_reference(inputs, 5, 2, form, prior)


# ---- inside PyTorch -------------------------------------------------------


def test_gradcheck(device):
    inputs = make((1, 2, 2, 2, 3), 3, 2, torch.float64, device, 1)
    inputs = [x.requires_grad_() for x in inputs]
    prior = make_prior(3, 2, device)
    for form in (sapa_upsample, sapa_upsample_tiled):
        assert torch.autograd.gradcheck(
            lambda *x, form=form: form(*x, 3, 2, prior), inputs
        )


def test_a_prior_that_changes_before_backward_is_noticed(device):
    inputs = make((1, 3, 4, 5, 6), 3, 2, torch.float32, device)
    prior = make_prior(3, 2, device)
    out = sapa_upsample(*(x.requires_grad_() for x in inputs), 3, 2, prior)
    prior.zero_()
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        out.sum().backward()


def test_opcheck(device, opcheck):
    inputs = make((2, 3, 4, 5, 6), 3, 2, torch.bfloat16, device, 1)
    inputs = [x.requires_grad_() for x in inputs]
    op = torch.ops.mmsapa.sapa_upsample.default
    # What traces it stands below, and is quicker.
    tests = 'schema', 'autograd_registration', 'faketensor'
    opcheck(
        op,
        (*inputs, 3, 2, make_prior(3, 2, device)),
        test_utils=[f'test_{name}' for name in tests],
    )


@pytest.mark.parametrize('dynamic', [False, True])
def test_compiles_as_one_graph(dynamic, device):
    prior = make_prior(3, 2, device)
    torch._dynamo.reset()
    compiled = torch.compile(
        sapa_upsample, fullgraph=True, dynamic=dynamic, backend='aot_eager'
    )
    inputs = make((1, 3, 4, 5, 6), 3, 2, torch.float32, device)
    results = [
        with_grads(lambda *x, f=f: f(*x, 3, 2, prior), inputs)
        for f in (compiled, sapa_upsample)
    ]
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_functional_transforms(device):
    inputs = make((1, 2, 3, 3, 4), 3, 2, torch.float64, device, 1)
    prior = make_prior(3, 2, device)
    batches = [torch.stack([x, -x]) for x in inputs]
    results = []
    for form in (sapa_upsample, sapa_upsample_reference):

        def total(*x, form=form):
            return form(*x, 3, 2, prior).sin().sum()

        grad = torch.func.grad(total, (0, 1, 2))
        results.append([grad(*inputs), torch.func.vmap(grad)(*batches)])
    torch.testing.assert_close(*results)


def test_autocast_does_not_round_the_prior(device):
    inputs = make((1, 3, 4, 5, 6), 5, 2, torch.float32, device)
    prior = make_prior(5, 2, device)
    cast = [x.bfloat16() for x in inputs]
    expected = sapa_upsample(*cast, 5, 2, prior)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(sapa_upsample(*inputs, 5, 2, prior), expected)


def test_meta_tensors_and_flops():
    inputs = make((2, 3, 7, 5, 6), 3, 2, torch.float16, 'meta', 1)
    counts = []
    for prior in (None, make_prior(3, 2, 'meta')):
        leaves = [x.detach().requires_grad_() for x in inputs]
        with FlopCounterMode(display=False) as counter:
            out = sapa_upsample(*leaves, 3, 2, prior)
            grads = torch.autograd.grad(out.sum(), leaves)
        counts.append(counter.get_total_flops())
        assert out.shape == (2, 7, 9, 11) and out.dtype == torch.float16
        assert [x.shape for x in grads] == [x.shape for x in inputs]
    assert counts[0] == counts[1] > 0


# ---- errors ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('prior', 'error', 'words'),
    [
        ('bilinear', TypeError, r'dense torch.Tensor .*got str; interpol'),
        (torch.zeros(4, 9).int(), TypeError, 'torch.int32'),
        (torch.zeros(4, 9, device='meta'), TypeError, 'on cpu, got .*meta'),
        (torch.zeros(4, 9).to_sparse(), TypeError, 'dense .*sparse_coo'),
        (torch.zeros(4, 25), ValueError, r'\[4, 9\], got \[4, 25\]'),
        (torch.zeros(2, 2, 9), ValueError, r'got \[2, 2, 9\]'),
        (torch.zeros(4, 9).requires_grad_(), ValueError, r'detach\(\)'),
    ],
)
def test_bad_priors_are_named(prior, error, words):
    query, key, value = make((1, 2, 3, 4, 4), 3, 2, torch.float32, 'cpu')
    for form in FORMS:
        with pytest.raises(error, match=f'^{form.__name__}: .*{words}'):
            form(query, key, value, 3, 2, prior)
    with pytest.raises(error, match=f'^sapa_kernels: .*{words}'):
        sapa_kernels(query, key, 3, 2, prior)


def test_the_operator_itself_refuses_bad_priors(device):
    inputs = make((1, 4, 3, 4, 4), 3, 2, torch.float32, device)
    grad = torch.zeros(1, 3, 8, 8, device=device)
    good = make_prior(3, 2, device)
    ops = torch.ops.mmsapa
    for prior in (
        good[:, :4],
        good[0],
        good.double(),
        good.half(),
        good.clone().requires_grad_(),
    ):
        with pytest.raises(RuntimeError, match='expected a (constant )?prior'):
            ops.sapa_upsample(*inputs, 3, 2, prior)
        with pytest.raises(RuntimeError, match='expected a (constant )?prior'):
            ops.sapa_upsample_backward(grad, *inputs, 3, 2, [True] * 3, prior)
