"""Random shapes, layouts, dtypes and numbers, against the reference.

``python -m tests.ops.fuzz --cases 10000`` tries as many cases, forward and
backward, and says which number brings a failing one back:
``python -m tests.ops.fuzz --seed NUMBER --cases 1``.
"""

import argparse
import random
import sys

import torch
from tqdm import tqdm

from mmsapa.ops import (
    channel_norm,
    channel_norm_reference,
    norm_project_reference,
    reassemble,
    reassemble_reference,
    sapa_upsample,
    sapa_upsample_reference,
    sapa_upsample_tiled,
)
from mmsapa.ops.functional import extend_to

# Largest error allowed, as a share of the largest number of the result.
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 2e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
# So large that squares overflow and sums of products with others do not.
HUGE = {
    torch.float64: 2.0**600,
    torch.float32: 2.0**80,
    torch.float16: 2.0**12,
    torch.bfloat16: 2.0**80,
}
TINY = {
    torch.float64: 2.0**-1060,
    torch.float32: 2.0**-140,
    torch.float16: 2.0**-20,
    torch.bfloat16: 2.0**-130,
}
# What the reference may unfold, so that ten thousand cases take minutes.
MOST_NUMBERS = 600_000
NAN_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def norm_project(x, weight, bias, eps):
    """The operator itself, of which only the map has a gradient."""
    return torch.ops.mmsapa.norm_project(x, weight, bias, eps)[0]


def norm_project_plain(x, weight, bias, eps):
    """The same by its reference."""
    return norm_project_reference(x, weight, bias, eps)[0]


# ---- cases ----------------------------------------------------------------


def lay_out(x, rng):
    """The same numbers, arranged otherwise in memory."""
    kind = rng.choice(
        'plain plain channels_last transposed sliced negated'.split()
    )
    if kind == 'channels_last' and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if kind == 'transposed' and x.dim() > 1:
        return x.mT.contiguous().mT
    if kind == 'sliced':
        wide = x.new_full((*x.shape[:-1], x.shape[-1] + 3), torch.nan)
        wide[..., 1:-2] = x
        return wide[..., 1:-2]
    if kind == 'negated':
        return torch._neg_view(-x)
    return x


def nan_of_any_bits(dtype, rng):
    """A NaN of random sign and payload."""
    info = torch.finfo(dtype)
    bits = torch.tensor(float('inf'), dtype=dtype)
    integers = NAN_BITS[info.bits // 8]
    bits = bits.view(integers) | rng.randrange(1, round(2 / info.eps / 2))
    if rng.random() < 0.5:
        bits = bits | torch.iinfo(integers).min
    return bits.view(dtype)


def spoil(tensors, rng, huge):
    """Put numbers into some tensors that are none, or hardly.

    Args:
        tensors (list[Tensor]): The last one stays free of what is huge.
        rng (random.Random): Where chance comes from.
        huge (bool): Whether numbers may be.

    Returns:
        bool: Whether there are any.
    """
    if rng.random() < 0.4:
        return False
    # Two that are huge are too many: an order of summation would decide
    # what overflows.
    dtype = tensors[0].dtype  # a weight may be wider than its map
    huge = huge and rng.random() < 0.2
    if huge:
        tensors = rng.sample(tensors[:-1], 1)
    for x in rng.sample(tensors, rng.randint(1, len(tensors))):
        if not x.numel():
            continue
        flat = x.view(-1)  # as they come: contiguous
        for _ in range(1 if huge else rng.choice((1, 1, 2, 5, 40))):
            at = rng.randrange(x.numel())
            sign = rng.choice((-1, 1))
            if huge:
                flat[at] = sign * HUGE[dtype]
                continue
            kind = rng.choice(('nan', 'nan', 'inf', 'tiny', 'zero'))
            flat[at] = {
                'nan': nan_of_any_bits(x.dtype, rng),
                'inf': sign * float('inf'),
                'tiny': sign * TINY[x.dtype],
                'zero': sign * 0.0,
            }[kind]
    return True


def numbers(rng, dtype, *shape):
    """Ordinary ones."""
    generator = torch.Generator().manual_seed(rng.getrandbits(60))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (x * rng.choice((0.1, 1, 3))).to(dtype)


def sapa_case(rng, dtype):
    """A function and its reference, inputs, sizes and a gradient."""
    while True:
        k = rng.choice((1, 3, 3, 5, 5, 5, 7, 9))
        s = rng.choice((1, 2, 2, 2, 3, 4, 5))
        n, e, c = rng.randint(1, 2), rng.randint(0, 20), rng.randint(0, 20)
        h, w = (rng.choice((1, 2, rng.randint(1, 80))) for _ in range(2))
        if n * (e + c) * k * k * h * w * s * s <= MOST_NUMBERS:
            break
    # Up to a cell short, or too long by less than a cell.
    hq, wq = (side * s + rng.randint(1 - s, s - 1) for side in (h, w))
    query = numbers(rng, dtype, n, e, hq, wq)
    key = numbers(rng, dtype, n, e, h, w)
    inputs = [query, key, numbers(rng, dtype, n, c, h, w)]
    out = (n, c, hq, wq)
    functions = sapa_upsample, sapa_upsample_reference
    if rng.random() < 0.1:
        functions = sapa_upsample_tiled, sapa_upsample_reference
    prior = None
    if rng.random() < 0.4:
        exact = torch.promote_types(dtype, torch.float32)
        prior = lay_out(numbers(rng, exact, s * s, k * k), rng)
    return functions, inputs, (k, s, prior), numbers(rng, dtype, *out)


def reassemble_case(rng, dtype):
    """As above."""
    while True:
        k = rng.choice((1, 3, 3, 5, 5, 5, 7, 9))
        s, groups = rng.choice((1, 2, 2, 2, 3, 4)), rng.choice((1, 1, 2, 3))
        n, c = rng.randint(1, 2), groups * rng.randint(0, 12)
        h, w = (rng.choice((1, 2, rng.randint(1, 80))) for _ in range(2))
        if n * (groups + c) * k * k * h * w * s * s <= MOST_NUMBERS:
            break
    size = (side * s + rng.randint(1 - s, s - 1) for side in (h, w))
    weights = numbers(rng, dtype, n, groups * k * k, *size)
    inputs = [weights, numbers(rng, dtype, n, c, h, w)]
    functions = reassemble, reassemble_reference
    grad = numbers(rng, dtype, n, c, *weights.shape[2:])
    return functions, inputs, (k, s, groups), grad


def norm_project_case(rng, dtype):
    """As above."""
    n, e = rng.randint(1, 2), rng.randint(1, 40)
    c = rng.choice((1, 2, rng.randint(1, 300)))
    h, w = (rng.randint(1, 20) for _ in range(2))
    exact = torch.promote_types(dtype, torch.float32)
    x = numbers(rng, dtype, n, c, h, w) + rng.choice((0, 0, 1, 10))
    inputs = [x, numbers(rng, exact, e, c), numbers(rng, exact, e)]
    functions = norm_project, norm_project_plain
    return functions, inputs, (1e-5,), numbers(rng, dtype, n, e, h, w)


def channel_norm_case(rng, dtype):
    """As above."""
    n, c = rng.randint(1, 2), rng.choice((3, 4, rng.randint(3, 300)))
    h, w = (rng.randint(1, 20) for _ in range(2))
    exact = torch.promote_types(dtype, torch.float32)
    x = numbers(rng, dtype, n, c, h, w) + rng.choice((0, 0, 1, 10))
    inputs = [x, numbers(rng, exact, c), numbers(rng, exact, c)]
    functions = channel_norm, channel_norm_reference
    return functions, inputs, (1e-5,), numbers(rng, dtype, n, c, h, w)


def make_case(number):
    """Whatever belongs to the case of this number.

    Returns:
        tuple: (functions, inputs, other arguments, gradient, whether some
        numbers are unusual).
    """
    rng = random.Random(number)
    dtype = rng.choice(list(TOLERANCES))
    norms = norm_project_case, channel_norm_case
    make = rng.choice((*norms, reassemble_case, sapa_case, sapa_case))
    functions, inputs, rest, grad = make(rng, dtype)
    short = make not in norms and is_short(inputs, rest)
    spoiled = False
    # The fallback is documented to let such numbers spread.
    if functions[0] is not sapa_upsample_tiled:
        # A huge bias leaves no digit of what it is added to, which is what
        # backward takes from the result.
        spoiled = spoil([grad, *inputs], rng, huge=not short)
    if make is norm_project_case:  # as the operator takes it
        inputs[1] = inputs[1] - inputs[1].mean(1, keepdim=True)
    inputs = [lay_out(x, rng) for x in inputs]
    if rng.random() < 0.1:
        inputs = [x[:1].expand(x.shape) if x.dim() == 4 else x for x in inputs]
        grad = grad[:1, :, :1].expand(grad.shape)
    return functions, inputs, rest, lay_out(grad, rng), spoiled


# ---- comparison -----------------------------------------------------------


def with_gradients(function, inputs, rest, grad):
    """The function's result, and the gradients of its inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves, *rest)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def rounding(inputs, grad):
    """How large the numbers are whose roundings end in x's gradient.

    Their differences may be small: of two channels, gradients are 0.
    """
    x, weight, bias = (x.double().nan_to_num(0, 0, 0) for x in inputs)
    out, mean, rstd = norm_project_reference(x, weight, bias, 1e-5)
    grad = grad.double().nan_to_num(0, 0, 0).abs()
    products = torch.einsum('ec,nehw->nchw', weight.abs(), grad)
    sums = (grad * out.abs()).sum(1, keepdim=True)
    normed = ((x - mean) * rstd).abs() / x.shape[1]
    return ((products + sums * normed) * rstd).max().item()


def largest_of(x):
    """The largest number that is finite, or 0."""
    x = x[x.isfinite()]
    return x.abs().max().item() if x.numel() else 0


def difference(got, expected, tolerance):
    """What is wrong with ``got``, both in float64, or None."""
    finite = expected.isfinite()
    for kind, wrong in (
        ('NaN', got.isnan() != expected.isnan()),
        ('infinities', (got != expected) & ~finite & ~expected.isnan()),
        ('finite numbers', got.isfinite() != finite),
    ):
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            return (
                f'{kind} differ at {int(wrong.sum())} of {wrong.numel()} '
                f'places, first at {at}: expected {expected[at]}, got '
                f'{got[at]}'
            )
    error = largest_of(got - expected)
    if error > tolerance:
        return f'off by {error}, {tolerance} are allowed'
    return None


def tolerance_of(plain, exact, rounded=0):
    """The error allowed.

    Args:
        plain (Tensor): What the reference gives in the dtype of the case.
        exact (Tensor): What it gives in float64.
        rounded (float): Larger numbers, of whose roundings this is made.
    """
    largest = max(largest_of(plain.double()), 1) + rounded
    noise = largest_of(plain.double() - exact)
    return TOLERANCES[plain.dtype] * largest + 4 * noise


def failure(number):
    """Try a case.

    Args:
        number (int): Of the case.

    Returns:
        str: What is wrong, or None.
    """
    functions, inputs, rest, grad, spoiled = make_case(number)
    got = with_gradients(functions[0], inputs, rest, grad)
    *inputs, grad = (x.resolve_neg() for x in (*inputs, grad))
    plain = with_gradients(functions[1], inputs, rest, grad)
    exact = with_gradients(
        functions[1], [x.double() for x in inputs], rest, grad.double()
    )
    for i, like in enumerate([grad, *inputs]):
        rounded = 0
        if functions[0] is norm_project:
            # Backward takes from the result what that had room for.
            rounded = rounding(inputs, grad) if i == 1 else 0
        elif len(rest) > 1 and i > 1 and is_short(inputs, rest):
            # A cell and its copies are rounded before they are summed.
            copies = extended(inputs, rest)
            copies = with_gradients(functions[1], copies, rest, grad)
            rounded = 4 * largest_of(copies[i].double())
        wrong = f'got shape {list(got[i].shape)} and {got[i].dtype}'
        if (got[i].shape, got[i].dtype) == (like.shape, like.dtype):
            wrong = difference(
                got[i].double(),
                # What overflows in float32 need not in float64.
                (plain if spoiled else exact)[i].to(like.dtype).double(),
                tolerance_of(plain[i], exact[i], rounded),
            )
        if wrong:
            shapes = [list(x.shape) for x in inputs]
            name = f'gradient {i - 1}' if i else 'result'
            rest = ['prior' if torch.is_tensor(x) else x for x in rest]
            return (
                f'case {number}: {functions[0].__name__} of {shapes}, {rest}, '
                f'{grad.dtype}{", spoiled" if spoiled else ""}: {name}: '
                f'{wrong}'
            )
    return None


def extended(inputs, rest):
    """The inputs with low-res maps that are not short."""
    size = inputs[0].shape[2:]
    return [inputs[0], *(extend_to(x, size, rest[1]) for x in inputs[1:])]


def is_short(inputs, rest):
    """Whether a low-res map has to be extended."""
    sizes = zip(inputs[0].shape[2:], inputs[1].shape[2:], strict=True)
    return any(high > low * rest[1] for high, low in sizes)


def main(arguments=None):
    """Try cases, and exit with what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', type=int, default=10_000)
    parser.add_argument('--seed', type=int, default=0, help='first number')
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    last = args.seed + args.cases - 1
    capability = torch.backends.cpu.get_cpu_capability()
    print(f'fuzz: cases {args.seed} to {last}, {capability}')
    failures = []
    for number in tqdm(
        range(args.seed, last + 1), disable=not sys.stderr.isatty()
    ):
        wrong = failure(number)
        if wrong:
            failures.append(wrong)
            tqdm.write(wrong)
    if failures:
        sys.exit(
            f'fuzz: {len(failures)} of {args.cases} cases failed; `python -m '
            'tests.ops.fuzz --cases 1 --seed NUMBER` repeats one.'
        )
    print(f'fuzz: all {args.cases} cases equal the reference.')


if __name__ == '__main__':
    main()
