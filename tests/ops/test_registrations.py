"""The operator inside PyTorch: autograd, compile, autocast, counters."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import mmsapa
from mmsapa.ops import (
    norm_project,
    sapa_kernels,
    sapa_upsample,
    sapa_upsample_reference,
)

from .helpers import layer_norm_and_linear, make, make_projection


def test_gradcheck(device):
    for kernel_size, scale in ((3, 2), (5, 1), (1, 3)):
        inputs = make(
            (2, 2, 2, 3, 4), kernel_size, scale, torch.float64, device, 1
        )
        inputs = [x.requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(
            lambda *x, k=kernel_size, s=scale: sapa_upsample(*x, k, s), inputs
        )


@pytest.mark.parametrize('wanted', range(1, 8))
def test_gradients_flow_only_where_they_are_asked(wanted, device):
    inputs = make((1, 3, 4, 5, 6), 5, 2, torch.float64, device)
    leaves = [x.clone().requires_grad_() for x in inputs]
    everything = torch.autograd.grad(
        sapa_upsample(*leaves).sin().sum(), leaves
    )
    leaves = [
        x.requires_grad_(bool(wanted >> i & 1)) for i, x in enumerate(inputs)
    ]
    sapa_upsample(*leaves).sin().sum().backward()
    for leaf, grad in zip(leaves, everything, strict=True):
        if leaf.requires_grad:
            torch.testing.assert_close(leaf.grad, grad)
        else:
            assert leaf.grad is None


def test_second_derivative_is_refused(device):
    inputs = [
        x.requires_grad_()
        for x in make((1, 2, 2, 3, 3), 3, 2, torch.float64, device)
    ]
    out = sapa_upsample(*inputs, 3, 2).square().sum()
    (grad,) = torch.autograd.grad(out, inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='no second derivative'):
        grad.sum().backward()


TRANSFORMS = {
    'grad': lambda f, x: torch.func.grad(
        lambda *y: f(*y).sin().sum(), tuple(range(len(x)))
    )(*x),
    'vjp': lambda f, x: torch.func.vjp(f, *x)[1](torch.ones_like(f(*x))),
    'jacrev': lambda f, x: torch.func.jacrev(lambda y: f(y, *x[1:])[:, :1])(
        x[0]
    ),
    'vmap': lambda f, x: torch.func.vmap(f)(*(y[None] for y in x)),
    'vmap of grad': lambda f, x: torch.func.vmap(
        torch.func.grad(lambda *y: f(*y).sin().sum())
    )(*(torch.stack([y, -y]) for y in x)),
    'grad of vmap': lambda f, x: torch.func.grad(
        lambda *y: torch.func.vmap(f)(*y).sin().sum()
    )(*(torch.stack([y, -y]) for y in x)),
}


@pytest.mark.filterwarnings('ignore:There is a performance drop')
@pytest.mark.parametrize('transform', TRANSFORMS.values(), ids=TRANSFORMS)
def test_functional_transforms(transform, device):
    inputs = make((2, 2, 3, 3, 4), 3, 2, torch.float64, device, 1)
    torch.testing.assert_close(
        transform(lambda *x: sapa_upsample(*x, 3, 2), inputs),
        transform(lambda *x: sapa_upsample_reference(*x, 3, 2), inputs),
    )


def test_functional_transforms_of_norm_project(device):
    inputs = make_projection((2, 4, 3, 3, 3), torch.float64, device)
    for name in ('grad', 'vjp'):
        transform = TRANSFORMS[name]
        torch.testing.assert_close(
            transform(norm_project, inputs),
            transform(layer_norm_and_linear, inputs),
        )


def test_derivatives_that_there_are_not_are_refused(device):
    """In a sentence; a zero would be worse."""
    inputs = make((1, 2, 2, 3, 3), 5, 2, torch.float64, device)

    def f(x):
        return sapa_upsample(x, *inputs[1:]).square().sum()

    grad = torch.func.grad
    with pytest.raises(RuntimeError, match='no second derivative'):
        grad(lambda x: grad(f)(x).sum())(inputs[0])
    with pytest.raises(RuntimeError, match='no forward-mode derivative'):
        torch.func.jvp(f, (inputs[0],), (inputs[0],))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_opcheck(dtype, device, opcheck):
    op = torch.ops.mmsapa.sapa_upsample.default
    for sizes in ((2, 3, 4, 5, 6), (1, 1, 1, 1, 1)):
        inputs = [
            x.requires_grad_() for x in make(sizes, 5, 2, dtype, device, 1)
        ]
        opcheck(op, (*inputs, 5, 2))


# Inductor once, with a C++ compiler; aot_eager traces as much, and is quick.
@pytest.mark.parametrize(
    ('backend', 'dynamic'),
    [('inductor', False), ('aot_eager', False), ('aot_eager', True)],
)
def test_compiles_as_one_graph(backend, dynamic, device):
    def double(*inputs):
        return 2 * sapa_upsample(*(x * 1 for x in inputs))

    torch._dynamo.reset()
    compiled = torch.compile(
        double, fullgraph=True, dynamic=dynamic, backend=backend
    )
    # The last guide is larger than the map: that is one cell short.
    cases = [((1, 3, 4, 5, 6), 0), ((2, 3, 4, 6, 8), -1)]
    if backend == 'inductor':
        cases = cases[1:]  # all that the first has, and the extension
    for sizes, short in cases:
        inputs = [
            x.requires_grad_()
            for x in make(sizes, 5, 2, torch.float32, device, short)
        ]
        for f, g in (
            (compiled, double),
            (
                lambda *x: torch.autograd.grad(compiled(*x).sin().sum(), x),
                lambda *x: torch.autograd.grad(double(*x).sin().sum(), x),
            ),
        ):
            torch.testing.assert_close(f(*inputs), g(*inputs))


def test_compiles_under_autocast(device):
    inputs = make((1, 3, 4, 5, 6), 5, 2, torch.float32, device)
    compiled = torch.compile(
        sapa_upsample, fullgraph=True, backend='aot_eager'
    )
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(compiled(*inputs), sapa_upsample(*inputs))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_takes_any_mixture(dtype, device, float16):
    inputs = make((1, 3, 4, 5, 6), 5, 2, torch.float32, device)
    cast = [x.to(dtype) for x in inputs]
    expected = sapa_upsample(*cast)
    mixed = [inputs[0].requires_grad_(), *cast[1:]]
    with torch.autocast(device, dtype):
        out = sapa_upsample(*mixed)
        assert out.dtype == dtype
        assert torch.equal(out, expected)
    out.float().sum().backward()
    assert inputs[0].grad.dtype == torch.float32
    with torch.autocast(device, dtype):
        double = [x.double() for x in inputs]
        assert sapa_upsample(*double).dtype == torch.float64


def test_meta_tensors_give_shapes():
    inputs = make((2, 3, 7, 5, 6), 5, 2, torch.float16, 'meta', 1)
    inputs = [x.requires_grad_() for x in inputs]
    out = sapa_upsample(*inputs)
    assert out.shape == (2, 7, 9, 11)
    assert out.dtype == torch.float16
    grads = torch.autograd.grad(out.sum(), inputs)
    for x, grad in zip(inputs, grads, strict=True):
        assert x.shape == grad.shape


def test_torch_counts_flops(device):
    """Two for each multiply-accumulate: K^2 (E + C) of them a pixel."""
    q, k, v = make((2, 8, 12, 5, 6), 5, 2, torch.float32, device, 1)
    pixels = 2 * 9 * 11
    with FlopCounterMode(display=False) as counter:
        sapa_upsample(q, k, v)
    assert counter.get_total_flops() == 2 * pixels * 25 * (8 + 12)
    with FlopCounterMode(display=False) as counter:
        sapa_upsample(q.requires_grad_(), k, v).sum().backward()
    assert counter.get_total_flops() == 2 * pixels * 25 * (4 * 8 + 3 * 12)


def run_without(tmp_path, hidden, code):
    """Run code where some installed packages cannot be found."""
    site = tmp_path / 'site'
    site.mkdir()
    (site / 'mmsapa').mkdir()
    for package in Path(mmsapa.__file__).parent.iterdir():
        if not package.name.startswith(('_C', '__pycache__')):
            (site / 'mmsapa' / package.name).symlink_to(package)
    for package in Path(torch.__file__).parents[1].iterdir():
        if not package.name.startswith(('mmsapa', *hidden)):
            (site / package.name).symlink_to(package)
    result = subprocess.run(
        [sys.executable, '-S', '-c', textwrap.dedent(code)],
        cwd=tmp_path,  # the clone has mmsapa too
        env=dict(PYTHONPATH=str(site), PATH=''),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_works_without_openmmlab_and_without_compiled_kernels(tmp_path):
    out = run_without(
        tmp_path,
        ('mm', '__editable__'),
        """
        import warnings, torch
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            from mmsapa.ops import sapa_upsample, sapa_upsample_reference
            q, k, v = (torch.randn(1, 3, s, s) for s in (8, 4, 4))
            for x in (q, k, v):
                x.requires_grad_()
            for _ in range(2):
                out = sapa_upsample(q, k, v)
                out.sum().backward()
        same = torch.testing.assert_close
        same(out, sapa_upsample_reference(q, k, v))
        with torch.inference_mode():
            same(out, sapa_upsample(q, k, v))
        with torch.autocast('cpu', torch.bfloat16):
            assert sapa_upsample(q, k, v).dtype == torch.bfloat16
        words = [str(w.message) for w in caught if 'mmsapa' in str(w.message)]
        assert len(words) == 1 and 'plain PyTorch serves' in words[0], words
        import sys
        assert 'mmengine' not in sys.modules
        print('fine')
        """,
    )
    assert out == 'fine\n'


def test_reference_is_differentiable_twice():
    inputs = make((1, 2, 2, 2, 3), 3, 2, torch.float64, 'cpu')
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradgradcheck(
        lambda *x: sapa_upsample_reference(*x, 3, 2), inputs
    )


# ---- sapa_kernels, which is plain PyTorch ---------------------------------


def test_weights_are_differentiable_twice_and_forward(device):
    inputs = make((1, 2, 2, 2, 3), 3, 2, torch.float64, device, 1)[:2]
    inputs = [x.requires_grad_() for x in inputs]

    def weights(*x):
        return sapa_kernels(*x, 3, 2)

    assert torch.autograd.gradcheck(weights, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(weights, inputs)


def test_weights_compile_as_one_graph(device):
    inputs = make((1, 3, 4, 5, 6), 5, 2, torch.float32, device, 1)[:2]
    torch._dynamo.reset()
    compiled = torch.compile(sapa_kernels, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*inputs), sapa_kernels(*inputs))


def test_autocast_does_not_round_weights(device):
    query, key, _ = make((1, 3, 4, 5, 6), 5, 2, torch.float32, device)
    expected = sapa_kernels(query, key)
    half = sapa_kernels(query, key.bfloat16().float())
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(sapa_kernels(query, key), expected)
        assert torch.equal(sapa_kernels(query, key.bfloat16()), half)


def test_weights_of_meta_tensors_have_a_shape():
    inputs = make((2, 3, 7, 5, 6), 5, 2, torch.float16, 'meta', 1)[:2]
    weights = sapa_kernels(*inputs)
    assert weights.shape == (2, 25, 9, 11) and weights.dtype == torch.float16
