"""What the operators' tests share: sizes, inputs and comparisons."""

import ctypes
import mmap

import torch
import torch.nn.functional as F

from mmsapa.ops import (
    norm_project,
    reassemble,
    reassemble_reference,
    sapa_upsample,
    sapa_upsample_reference,
)

# Largest error allowed, as a share of the largest number of the result.
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}
# As tests/cuda_on_cpu numbers them.
CUDA_DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# N, E, C, H, W: one cell; odd numbers of everything; more than one vector,
# tile and block of channels; more channels than a CUDA block has threads.
SIZES = {
    'cell': (1, 1, 1, 1, 1),
    'odd': (2, 3, 5, 7, 9),
    'tiles': (1, 18, 17, 6, 70),
    'wide': (1, 8, 1030, 3, 4),
}
# N, C, E, H, W: one pixel; odd numbers of everything; several tiles of pixels
# and parts of a sum; more channels than a tile of pixels has room for.
PROJECTION_SIZES = {
    'pixel': (1, 1, 1, 1, 1),
    'odd': (2, 5, 3, 7, 9),
    'tiles': (3, 70, 33, 37, 41),
    'wide': (1, 2050, 9, 5, 7),
}


def make(sizes, kernel_size, scale, dtype, device, short=0):
    """Query, key, value; `short` queries are missing at the far border."""
    n, e, c, h, w = sizes
    short = min(short, scale - 1)
    shapes = (
        (n, e, h * scale - short, w * scale - short),
        (n, e, h, w),
        (n, c, h, w),
    )
    return [
        torch.randn(shape, dtype=torch.float64).to(device, dtype)
        for shape in shapes
    ]


def make_reassembly(
    sizes, kernel_size, scale, dtype, device, short=0, groups=1
):
    """Weights and value, of N, C, H, W; `short` as in make."""
    n, c, h, w = sizes
    short = min(short, scale - 1)
    shapes = (
        (n, groups * kernel_size**2, h * scale - short, w * scale - short),
        sizes,
    )
    return [
        torch.randn(shape, dtype=torch.float64).to(device, dtype)
        for shape in shapes
    ]


def make_projection(sizes, dtype, device, offset=0.5):
    """The map, the norm's parameters, and the projection's."""
    n, c, e, h, w = sizes
    x = torch.randn(n, c, h, w, dtype=torch.float64) + offset
    shapes = ((c,), (c,), (e, c), (e,))
    parameters = [torch.randn(s, dtype=torch.float64) for s in shapes]
    return [t.to(device, dtype) for t in (x, *parameters)]


def layer_norm_and_linear(x, norm_weight, norm_bias, weight, bias, eps=1e-5):
    """What norm_project fuses, in PyTorch's two steps."""
    x = x.movedim(1, -1)
    x = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    return F.linear(x, weight, bias).movedim(-1, 1)


def with_grads(function, inputs, grad=None):
    """A function's result, and the gradients of all inputs.

    Args:
        function (callable): Of the inputs.
        inputs (list[Tensor]): Taken as leaves.
        grad (Tensor, optional): Of the result. Default: numbers that differ.

    Returns:
        list[Tensor]: The result, then the gradients.
    """
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves)
    if grad is None:
        grad = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return [out, *torch.autograd.grad(out, leaves, grad.to(out))]


def assert_close(got, expected, dtype):
    """Every tensor of ``dtype``, and as close as that can be."""
    for x, y in zip(got, expected, strict=True):
        assert x.dtype == dtype
        largest = max(1, y.abs().max().item()) if y.numel() else 1
        error = (
            (x.double() - y.double()).abs().max().item() if y.numel() else 0
        )
        assert error <= TOLERANCES[dtype] * largest, (error, largest)


def check_against_reference(
    inputs, kernel_size, scale, function=sapa_upsample, prior=None
):
    """Forward and backward, against the reference in float64."""
    dtype = inputs[0].dtype
    rest = kernel_size, scale, prior
    got = with_grads(lambda *x: function(*x, *rest), inputs)
    expected = with_grads(
        lambda *x: sapa_upsample_reference(*x, *rest),
        [x.double() for x in inputs],
        # As it was rounded.
        torch.linspace(-1, 1, got[0].numel()).to(got[0]).view(got[0].shape),
    )
    assert_close(got, expected, dtype)


def check_reassembly(
    sizes, kernel_size, scale, dtype, device, short=0, groups=1
):
    """Forward and backward, against the reference in float64."""
    numbers = kernel_size, scale, groups
    inputs = make_reassembly(
        sizes, kernel_size, scale, dtype, device, short, groups
    )
    grad = torch.randn(*sizes[:2], *inputs[0].shape[2:]).to(inputs[0])
    got = with_grads(lambda *x: reassemble(*x, *numbers), inputs, grad)
    expected = with_grads(
        lambda *x: reassemble_reference(*x, *numbers),
        [x.double() for x in inputs],
        grad.double(),
    )
    assert_close(got, expected, dtype)


def check_projection_against_two_steps(sizes, dtype, device):
    """Forward and backward of norm_project, against float64."""
    n, c, e, h, w = sizes
    inputs = make_projection(sizes, dtype, device)
    grad = torch.randn(n, e, h, w, dtype=torch.float64, device=device)
    grad = grad.to(dtype).double()
    got = with_grads(norm_project, inputs, grad)
    expected = with_grads(
        layer_norm_and_linear, [x.double() for x in inputs], grad
    )
    assert got[0].is_contiguous()
    if c == 1:  # 0 / sqrt(eps) times rounding errors: only the bias is left
        got, expected = got[:1], expected[:1]
    assert_close(got, expected, dtype)


def unwritten(like):
    return torch.full_like(like, float('nan'))


def one_further(x):
    """The same numbers, an element away from where words begin."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def fenced(x, at_end):
    """The same numbers, with memory nobody may touch before or after."""
    page = mmap.PAGESIZE
    size = x.numel() * x.element_size()
    room = -(-size // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (start, start + page + room):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(fence), page, 0) == 0
    offset = page + (room - size if at_end else 0)
    y = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=offset)
    return y.view(x.shape).copy_(x)
