"""All that the operators need of PyTorch beyond its public interface.

Public are schemas, kernels and meta kernels (``torch.library``), the casts of
autocast and what backward computes (``torch.autograd.Function``). The rest
stands here, with its reason, and is tested on the oldest and the newest
PyTorch that this project supports.
"""

from collections.abc import Callable

import torch
from torch._functorch.autograd_function import (
    enable_single_level_autograd_function,
)
from torch.autograd import Function
from torch.autograd.function import _SingleLevelFunction
from torch.utils import flop_counter


def has_kernel(name: str, key: str) -> bool:
    """Whether an operator has a kernel of its own for a dispatch key.

    ``torch.library`` registers kernels, but its public part tells of none.

    Args:
        name (str): The operator's, with its namespace.
        key (str): A dispatch key, such as 'CPU'.
    """
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


def below_autograd(op: Callable) -> Callable:
    """Make an operator a function that autograd does not see.

    A kernel for autograd calls its operator again, for the kernels of
    devices. C++ has ``at::AutoDispatchBelowAutograd`` for that; in Python it
    has only a private name.

    Args:
        op (OpOverload): The operator.

    Returns:
        callable: As ``op``.
    """

    def call(*args):
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    return call


def autograd_kernel(op: Callable, rule: type) -> Callable:
    """Make an operator's kernel for the dispatch key of autograd.

    ``torch.library.register_autograd`` does so publicly, from torch 2.4 on.
    But torch.func refuses what it registers, and forward mode gets zeros
    for derivatives without a word.

    Args:
        op (OpOverload): The operator.
        rule (type): ``backward`` and ``jvp`` as in torch.autograd.Function,
            and ``keep(ctx, args, results)``, which saves what they need.

    Returns:
        callable: Takes the operator's arguments.
    """
    call = below_autograd(op)

    class Eager(rule, Function):
        @staticmethod
        def forward(ctx, *args):
            results = call(*args)
            rule.keep(ctx, args, results)
            return results

    # Inside the dispatcher torch.func is at one of its levels already, where
    # a Function would begin with all of them anew.
    class Transformed(rule, _SingleLevelFunction):
        @staticmethod
        def forward(*args):
            # Off for this level, whose gradient this is, not for others.
            with torch.enable_grad():
                return call(*args)

        # Apart from forward, as torch.func of torch 2.15 wants it; other
        # calls are quicker without.
        setup_context = staticmethod(rule.keep)

    def kernel(*args):
        if not torch._C._are_functorch_transforms_active():
            return Eager.apply(*args)
        if not torch.is_grad_enabled():
            return call(*args)
        with enable_single_level_autograd_function():
            return Transformed.apply(*args)

    return kernel


def count_flops(op: Callable, macs: Callable) -> None:
    """Tell torch's FLOPs counter of an operator.

    ``register_flop_formula`` is public, but torch 2.1 does not have it, and
    torch 2.4 looks for its formulas under another name than it notes them.

    Args:
        op (OpOverload): The operator.
        macs (callable): Its multiply-accumulates, from its arguments, where
            tensors are shapes; each is two FLOPs.
    """

    def formula(*args, out_shape=None):
        return 2 * macs(*args)

    packet = op.overloadpacket
    if not hasattr(flop_counter, 'flop_registry'):  # torch 2.1
        flop_counter.flop_mapping[packet] = formula
        return
    flop_counter.register_flop_formula(packet)(formula)
    # torch 2.4 notes the operator, and looks for its packet.
    registry = flop_counter.flop_registry
    registry.setdefault(packet, registry.get(op))
