"""Calls everything there is with arguments that nobody should give it.

``python -m tests.ops.hostile`` tells on standard output what it is about to
call, so that the last line names what ended it. See test_hostile.py.
"""

import contextlib
import faulthandler
import functools
import inspect
import itertools
import random
import re
import resource
import warnings

import numpy
import torch

from mmsapa import ops
from mmsapa.ops.registrations import SCHEMAS

try:
    from torch.testing._internal.two_tensor import TwoTensor
except ImportError:  # torch 2.1
    TwoTensor = None

K, S = 3, 2
SIZES = dict(n=1, e=4, c=3, h=4, w=5)
ABSURD_SIZES = (0, 1, 2, 65537, 2**31 - 1, 2**31, 2**32, 2**62)
PAIRS = 30  # of arguments replaced at once
GIGABYTES = 3  # for a call
WORD = re.compile(r'[A-Za-z]{2,}')


# ---- what works -----------------------------------------------------------


def good_arguments(name, parameters, n, e, c, h, w, make=torch.randn):
    """Arguments that the callable takes, from their names and types.

    Args:
        name (str): Of the callable.
        parameters (dict[str, str]): Names of its parameters and, for an
            operator, their types.
        n, e, c, h, w (int): Sizes, as in the docstrings.
        make (callable): A tensor of some sizes.

    Returns:
        dict: Arguments of these names.

    Raises:
        KeyError: If there is a parameter that nobody has told this about.
    """
    sizes = dict(n=n, e=e, c=c, h=h, w=w, make=make)
    known = {
        'query': lambda: make(n, e, h * S, w * S),
        'key': lambda: make(n, e, h, w),
        'value': lambda: make(n, c, h, w),
        'x': lambda: make(n, c, h, w),
        'norm_weight': lambda: make(c),
        'norm_bias': lambda: make(c),
        'weights': lambda: make(n, K * K, h * S, w * S),
        'groups': lambda: 1,
        'weight': lambda: make(e, c),
        'bias': lambda: make(e),
        'prior': lambda: make(S * S, K * K),
        'mode': lambda: 'bilinear',
        'floor': lambda: -10.0,
        'kernel_size': lambda: K,
        'scale_factor': lambda: S,
        'eps': lambda: 1e-5,
    }
    if name.endswith('_backward'):  # what the operator takes and gives
        forward = name.removesuffix('_backward')
        arguments = good_arguments(forward, OPERATORS[forward], **sizes)
        results = getattr(torch.ops.mmsapa, forward)(*arguments.values())
        if isinstance(results, torch.Tensor):
            results = (results,)
        arguments.update(zip(('out', 'mean', 'rstd'), results, strict=False))
        arguments['grad'] = make(*results[0].shape)
        wanted = re.fullmatch(r'bool\[(\d)\]', parameters['mask'])
        arguments['mask'] = [True] * int(wanted.group(1))
        return {parameter: arguments[parameter] for parameter in parameters}
    return {parameter: known[parameter]() for parameter in parameters}


def operators():
    """Every operator's parameters, with their types as in its schema."""
    found = {}
    for schema in SCHEMAS:
        name, arguments = re.match(r'(\w+)\((.*?)\) ->', schema).groups()
        kinds = re.findall(r'([\w\[\]?]+) (\w+)', arguments)
        found[name] = {parameter: kind for kind, parameter in kinds}
    return found


OPERATORS = operators()


def callables():
    """Everything, by its name, with its parameters."""
    for name in ops.__all__:
        function = getattr(ops, name)
        yield name, function, dict(inspect.signature(function).parameters)
    for name, parameters in OPERATORS.items():
        op = getattr(torch.ops.mmsapa, name)
        yield f'torch.ops.mmsapa.{name}', op, parameters


# ---- what does not --------------------------------------------------------

OTHERS = {
    'None': None,
    'str': 'five',
    'object': object(),
    'list': [1.0, 2.0],
    'complex': 1 + 2j,
    'class': torch.Tensor,
}
INTEGERS = [
    *(0, 1, 2, 3, 4, 5, 7, -1, -3, 255, 511, 512, 513, 46341, 65537),
    *(2**31 - 1, 2**31, 2**31 + 1, 2**32, 2**32 + 1, 2**61 + 1, 2**62),
    *(2**62 + 1, 2**63 - 1, -(2**31), -(2**63), 2**63, 2**64 + 3, 10**30),
]
NUMBERS = {
    **{str(i): i for i in INTEGERS},
    **OTHERS,
    'True': True,
    'nan': float('nan'),
    'inf': float('inf'),
    '-inf': -float('inf'),
    'tiny': 5e-324,
    '1e300': 1e300,
    '5.0': 5.0,
    '2.5': 2.5,
    'numpy': numpy.int64(5),
    'tensor': torch.tensor(5),
    'tensors': torch.zeros(3),
}
MASKS = {
    **OTHERS,
    'True': True,
    'empty': [],
    'one': [True],
    'many': [True] * 99,
    'none wanted': [False] * 3,
    'two': [False, True],
    'integers': [1, 2, 3],
    'nothing': [None, None, None],
}


def shrunk(x, size):
    """A tensor whose storage is smaller than itself."""
    x = x.clone()
    x.untyped_storage().resize_(size)
    return x


def fake(x):
    """A tensor of which there is but the shape."""
    mode = torch._subclasses.FakeTensorMode()
    return mode.from_tensor(x)


def overlapping(x):
    """All of a tensor's numbers in a few places."""
    strides = range(1, 1 + x.dim())
    return torch.randn(4096).as_strided(x.shape, tuple(strides))


def filled(x, number):
    """The tensor with a number everywhere."""
    return torch.full_like(x, number)


def with_bits(x, bits):
    """The tensor with float32 numbers of these bits everywhere."""
    return torch.full(x.shape, bits, dtype=torch.int32).view(torch.float32)


# That reads what it has no memory for crashes all of PyTorch's own operators.
SHRUNK = {
    'no memory': lambda x: shrunk(x, 0),
    'little memory': lambda x: shrunk(x, 8),
}
TENSORS = {
    'int64': lambda x: x.long(),
    'uint8': lambda x: x.byte(),
    'bool': lambda x: x > 0,
    'float64': lambda x: x.double(),
    'float16': lambda x: x.half(),
    'bfloat16': lambda x: x.bfloat16(),
    'float8': lambda x: x.to(torch.float8_e5m2),
    'complex64': lambda x: x.to(torch.complex64),
    'conjugate': lambda x: x.to(torch.complex64).conj(),
    'negated': lambda x: torch._neg_view(x),
    'quantized': lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    'sparse': lambda x: x.to_sparse(),
    'sparse rows': lambda x: x.flatten(1).to_sparse_csr(),
    'mkldnn': lambda x: x.to_mkldnn(),
    'nested': lambda x: torch.nested.nested_tensor([*x]),
    'jagged': lambda x: torch.nested.nested_tensor([*x], layout=torch.jagged),
    'meta': lambda x: x.to('meta'),
    'fake': fake,
    'zeros without memory': lambda x: torch._efficientzerotensor(x.shape),
    'subclass': lambda x: TwoTensor(x, x),
    'parameter': lambda x: torch.nn.Parameter(x),
    'requires grad': lambda x: x.clone().requires_grad_(),
    'inference': lambda x: torch.inference_mode()(torch.ones_like)(x),
    'numpy': lambda x: x.numpy(),
    'list': lambda x: x.tolist(),
    'overlapping': overlapping,
    'permuted': lambda x: x.permute(*reversed(range(x.dim()))),
    'backwards': lambda x: x.flip(0),
    'nan': lambda x: filled(x, float('nan')),
    'nan of all bits': lambda x: with_bits(x, 0x7FFFFFFF),
    'nan of one bit': lambda x: with_bits(x, -(2**23) + 1),
    'inf': lambda x: filled(x, float('inf')),
    '-inf': lambda x: filled(x, -float('inf')),
    'max': lambda x: filled(x, 3e38),
    'denormal': lambda x: filled(x, 1e-42),
    'scalar': lambda x: x.sum(),
    'more dimensions': lambda x: x[None],
    'fewer dimensions': lambda x: x[0],
    'no dimensions left': lambda x: x.new_zeros(0),
    'expanded': lambda x: x.new_zeros(()).expand(x.shape),
}


def sizes_like(x):
    """The tensor with other sizes, absurd ones too, in no memory."""
    one = torch.zeros(())
    for dim in range(x.dim()):
        for size in (
            *(0, 1, x.shape[dim] + 1, max(x.shape[dim] - 1, 0), 65537),
            *(2**31 - 1, 2**31, 2**32, 2**62),
        ):
            shape = [*x.shape]
            shape[dim] = size
            yield f'size {shape}', lambda shape=shape: one.expand(shape)
            if size > 99:
                yield (
                    f'meta size {shape}',
                    lambda shape=shape: torch.empty(shape, device='meta'),
                )
                shape = [s if d == dim else 0 for d, s in enumerate(shape)]
                yield (
                    f'empty size {shape}',
                    lambda shape=shape: torch.empty(shape),
                )
    for size in (0, 1, 2**20, 2**31):
        yield f'sizes {size}', lambda size=size: one.expand([size] * x.dim())


def hostile(good, is_op):
    """Pairs of a name and a function that gives something hostile."""
    if isinstance(good, torch.Tensor):
        tensors = {**TENSORS, **(SHRUNK if is_op else {})}
        for name, change in tensors.items():
            yield name, lambda change=change: change(good)
        yield from sizes_like(good)
        table = OTHERS
    else:
        table = MASKS if isinstance(good, list) else NUMBERS
    for name, value in table.items():
        yield name, lambda value=value: value


# ---- calls ----------------------------------------------------------------


def limit_memory():
    """Let a call that wants too much fail, rather than the machine."""
    with open('/proc/self/statm') as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit = now + (GIGABYTES << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


CONTEXTS = {
    'autocast': lambda: torch.autocast('cpu', torch.bfloat16),
    'inference mode': torch.inference_mode,
    'no gradients': torch.no_grad,
    'nothing': contextlib.nullcontext,
}


def call(function, arguments):
    """Call, and backward where that can be done.

    Returns:
        str: What is wrong with how it fails, or None.
    """
    try:
        results = function(**arguments)
        if isinstance(results, torch.Tensor):
            results = (results,)
        for result in results:
            if result.requires_grad:
                result.float().sum().backward()
            repr(result.shape)
    except Exception as error:
        if len(WORD.findall(str(error))) < 3:
            return f'{type(error).__name__}: {str(error)!r} has no words'
    return None


def cases(name, parameters):
    """What to call with: words, a function that makes it, and a context."""
    good_of = functools.partial(
        good_arguments, name.rpartition('.')[2], parameters
    )
    is_op = name.startswith('torch.ops')
    plain = name.endswith(('_reference', '_tiled', 'sapa_kernels'))
    # A map of one cell fits any scale.
    for sizes in (SIZES, dict.fromkeys(SIZES, 1)):
        good = good_of(**sizes)
        # So that it is what is replaced that fails.
        yield 'good arguments', lambda good=good: good, 'nothing'
        table = [
            (parameter, what, make)
            for parameter, value in good.items()
            for what, make in hostile(value, is_op)
            if sizes is SIZES or not isinstance(value, torch.Tensor)
            # Plain PyTorch takes seconds for the largest window.
            if not (plain and (parameter, what) == ('kernel_size', '255'))
        ]
        rng = random.Random(name)
        changes = [(change,) for change in table]
        changes += [rng.sample(table, 2) for _ in range(PAIRS)]
        for change in changes:
            yield (
                ', '.join(f'{where}={what}' for where, what, _ in change),
                lambda good=good, change=change: {
                    **good,
                    **{where: make() for where, _, make in change},
                },
                rng.choice([*CONTEXTS]) if len(change) > 1 else 'nothing',
            )
    # Sizes that fit together, in hardly any memory. Plain PyTorch takes no
    # copy of them, but years.
    for size, number in itertools.product(SIZES, ABSURD_SIZES):
        if number <= 2 or not plain:
            yield (
                f'{size.upper()} = {number} everywhere',
                functools.partial(
                    good_of,
                    **{**SIZES, size: number},
                    make=lambda *shape: torch.ones(()).expand(shape),
                ),
                'nothing',
            )


def main():
    """Call everything; print every call before it, and what is wrong."""
    faulthandler.enable()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    torch.manual_seed(0)
    limit_memory()
    count = 0
    for name, function, parameters in callables():
        for words, make, context in cases(name, parameters):
            try:
                arguments = make()
            except Exception:
                continue  # there is no such thing
            print(f'{name}: {words} ({context})', flush=True)
            count += 1
            with CONTEXTS[context]():
                if words == 'good arguments':
                    function(**arguments)
                wrong = call(function, arguments)
            if wrong:
                print(f'WRONG: {name}: {words}: {wrong}', flush=True)
    print(f'done: {count} calls')


if __name__ == '__main__':
    main()
