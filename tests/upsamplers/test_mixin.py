"""The mixin on small parents written for these tests."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

pytest.importorskip('mmcv', reason='mmcv builds the layer of a slot')

from mmsapa.upsamplers import SlotMixin  # noqa: E402
from mmsapa.upsamplers.mixin import through_slots  # noqa: E402


class Parent(nn.Module):
    """Two laterals, and steps from the last map to the first."""

    def __init__(self):
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in '12')

    def forward(self, inputs):
        *fine, x = inputs
        laterals = [conv(y) for conv, y in zip(self.lateral_convs, fine)]
        for y in reversed(laterals):
            x = y + F.interpolate(x, size=y.shape[2:])
        return x


class Child(SlotMixin, Parent):
    pass


def make(kind=Child, layer='sapa'):
    return kind(upsample_cfg=dict(type=layer)).eval()


def maps(batch=1):
    return [torch.randn(batch, 4, size, size) for size in (8, 4, 2)]


def expected_of(module, inputs):
    """Compute what a child of :class:`Parent` should, step by step."""
    *fine, x = inputs
    guides = [c(y) for c, y in zip(module.lateral_convs, fine, strict=True)]
    for slot, guide in reversed([*zip(module.upsamplers, guides)]):
        x = guide + slot(x, guide)
    return x


def test_guides_are_dropped_after_an_error():
    child = make()
    inputs = maps()
    with pytest.raises(ValueError, match='x with 4 channels'):
        child([*inputs[:2], inputs[2][:, :2]])
    # Interpolation elsewhere is what it was, and so is the next call.
    assert F.interpolate(torch.ones(1, 1, 2, 2), scale_factor=2).sum() == 16
    assert torch.equal(child(inputs), expected_of(child, inputs))


def test_a_parent_without_an_upsample_cfg_needs_a_type():
    with pytest.raises(KeyError, match="a 'type'.*mode"):
        Child(upsample_cfg=dict(mode='nearest'))
    assert not hasattr(Child(), 'upsamplers')


def test_an_upsample_cfg_is_a_dict():
    with pytest.raises(TypeError, match="type='sapa'.*got 'sapa'"):
        Child(upsample_cfg='sapa')


def test_a_parent_without_steps_is_refused():
    class WithoutSteps(Child):
        laterals = ()

    with pytest.raises(ValueError, match='WithoutSteps: expected steps'):
        WithoutSteps(upsample_cfg=dict(type='sapa'))


# ---- parents that are different ---------------------------------------------


class Fewer(SlotMixin, Parent):
    def forward(self, inputs):
        return super().forward(inputs)


class NoStep(Parent):
    def forward(self, inputs):
        return self.lateral_convs[0](inputs[0])


class OneMoreBefore(Parent):
    def forward(self, inputs):
        *fine, x = inputs
        fine = [conv(y) for conv, y in zip(self.lateral_convs, fine)]
        x = F.interpolate(x, scale_factor=1)
        for y in reversed(fine):
            x = y + F.interpolate(x, size=y.shape[2:])
        return x


class OneMoreAfter(Parent):
    def forward(self, inputs):
        *fine, x = inputs
        fine = [conv(y) for conv, y in zip(self.lateral_convs, fine)]
        for y in reversed(fine):
            x = y + F.interpolate(x, size=y.shape[2:])
        return F.interpolate(x, scale_factor=2)


@pytest.mark.parametrize(('parent', 'got'), [(NoStep, 0), (OneMoreAfter, 3)])
def test_interpolations_are_counted(parent, got):
    class Slotted(SlotMixin, parent):
        pass

    with pytest.raises(
        RuntimeError, match=f'Slotted: .* interpolate 2 times, got {got};'
    ):
        make(Slotted)(maps())
    Slotted()(maps())


@pytest.mark.parametrize('layer', ['sapa', 'dysample', 'nearest'])
def test_maps_shifted_by_a_level_are_noticed(layer):
    class Slotted(SlotMixin, OneMoreBefore):
        pass

    class Told(Slotted):
        first_step = 1

    with pytest.raises((RuntimeError, ValueError), match='expected'):
        make(Slotted, layer)(maps())
    told, inputs = make(Told, layer), maps()
    assert torch.equal(told(inputs), expected_of(told, inputs))


def test_a_forward_that_calls_its_parents_is_followed():
    child, inputs = make(Fewer), maps()
    assert torch.equal(child(inputs), expected_of(child, inputs))


def test_each_of_nested_modules_takes_its_own():
    """One layer of the parent has slots itself, another interpolates."""

    class Resize(nn.Module):
        def forward(self, x):
            return F.interpolate(F.interpolate(x, scale_factor=2), size=2)

    class Outer(Parent):
        def __init__(self):
            super().__init__()
            self.inner = make()
            self.resize = Resize()

        def forward(self, inputs):
            *fine, x = inputs
            first = self.lateral_convs[0](fine[0])
            x = self.resize(x)
            second = self.lateral_convs[1](fine[1])
            x = second + F.interpolate(x, size=second.shape[2:])
            x = x + self.inner(inputs)[..., :4, :4]
            return first + F.interpolate(x, size=first.shape[2:])

    class SlottedOuter(SlotMixin, Outer):
        pass

    outer, inputs = make(SlottedOuter), maps()
    guides = [
        conv(x) for conv, x in zip(outer.lateral_convs, inputs, strict=False)
    ]
    x = guides[1] + outer.upsamplers[1](outer.resize(inputs[2]), guides[1])
    x = x + expected_of(outer.inner, inputs)[..., :4, :4]
    x = guides[0] + outer.upsamplers[0](x, guides[0])
    assert torch.equal(outer(inputs), x)


def test_a_step_before_its_lateral_says_so():
    class TooEarly(Parent):
        def forward(self, inputs):
            *fine, x = inputs
            for conv, y in reversed([*zip(self.lateral_convs, fine)]):
                x = F.interpolate(x, size=y.shape[2:]) + conv(y)
            return x

    class Slotted(SlotMixin, TooEarly):
        pass

    with pytest.raises(RuntimeError, match='its lateral has to run before'):
        make(Slotted)(maps())


# ---- several threads, copies ------------------------------------------------


def test_threads_share_a_module():
    child = make()
    inputs = [maps() for _ in range(64)]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        expected = [expected_of(child, x) for x in inputs]
        for ours, theirs in zip(pool.map(child, inputs), expected):
            torch.testing.assert_close(ours, theirs)


def replicate(module):
    """Make a replica as nn.DataParallel does, on a CPU."""
    twin = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        setattr(twin, name, replicate(child))
    for name, parameter in module._parameters.items():
        twin._parameters[name] = parameter
    return twin


@pytest.mark.parametrize(
    'again',
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), replicate],
    ids=['copy', 'pickle', 'replica'],
)
def test_twins_work_side_by_side(again):
    child, inputs = make(), [maps() for _ in range(32)]
    modules = [child, again(child)] * 16
    expected = [expected_of(child, x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        outs = pool.map(lambda m, x: m(x), modules, inputs)
        for ours, theirs in zip(outs, expected):
            torch.testing.assert_close(ours, theirs)


# ---- checkpointing, compiling, tracing --------------------------------------


class Checkpointed(Parent):
    reentrant = True

    def forward(self, inputs):
        def run(*inputs):
            *fine, x = inputs
            laterals = [c(y) for c, y in zip(self.lateral_convs, fine)]
            for y in reversed(laterals):
                x = y + F.interpolate(x, size=y.shape[2:])
            return x

        return checkpoint(run, *inputs, use_reentrant=self.reentrant)


@pytest.mark.parametrize('reentrant', [True, False])
def test_a_checkpoint_within_forward_says_what_to_do(reentrant):
    class Slotted(SlotMixin, Checkpointed):
        pass

    Slotted.reentrant = reentrant
    inputs = [x.requires_grad_() for x in maps()]
    with pytest.raises(RuntimeError, match='checkpoint the whole module'):
        make(Slotted)(inputs).sum().backward()


@pytest.mark.parametrize('reentrant', [True, False])
def test_a_checkpoint_around_a_module_trains_its_slots(reentrant):
    child = make()
    inputs = [x.requires_grad_() for x in maps()]
    expected_of(child, inputs).sum().backward()
    expected = [p.grad.clone() for p in child.parameters()]
    child.zero_grad()
    out = checkpoint(lambda *x: child(x), *inputs, use_reentrant=reentrant)
    out.sum().backward()
    for p, grad in zip(child.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)


class InParts(Parent):
    """Laterals and steps are methods; either may be compiled."""

    def make_laterals(self, fine):
        return [conv(y) for conv, y in zip(self.lateral_convs, fine)]

    def go_down(self, laterals, x):
        for y in reversed(laterals):
            x = y + F.interpolate(x, size=y.shape[2:])
        return x

    def forward(self, inputs):
        *fine, x = inputs
        return self.go_down(self.make_laterals(fine), x)


@pytest.mark.parametrize('layer', ['sapa', 'fade', 'indexnet', 'dysample'])
@pytest.mark.parametrize('part', ['laterals', 'lateral', 'layer', 'slot'])
def test_a_part_may_be_compiled(part, layer):
    torch.compiler.reset()
    child = make(layer=layer)
    inputs = [maps() for _ in range(3)]
    expected = [expected_of(child, x) for x in inputs]
    compiled = dict(backend='eager')
    if part == 'laterals':
        for conv in child.lateral_convs:
            conv.compile(**compiled)
    elif part == 'lateral':
        child.lateral_convs[1] = torch.compile(
            child.lateral_convs[1], **compiled
        )
    elif part == 'slot':
        child.upsamplers[0].compile(**compiled)
    else:
        child.upsamplers[1].layer = torch.compile(
            child.upsamplers[1].layer, **compiled
        )
    for x, out in zip(inputs, expected, strict=True):
        torch.testing.assert_close(child(x), out)


@pytest.mark.parametrize('layer', ['sapa', 'fade', 'indexnet'])
@pytest.mark.parametrize('part', ['make_laterals', 'go_down', 'both'])
def test_steps_in_a_method_of_their_own_may_be_compiled(part, layer):
    if layer == 'fade' and torch.__version__ < (2, 4):
        pytest.skip('torch 2.1 compiles no pixel_unshuffle of any size')

    class Slotted(SlotMixin, InParts):
        go_down = through_slots(InParts.go_down)

    torch.compiler.reset()
    child = make(Slotted, layer)
    inputs = [maps() for _ in range(3)]
    for name in ('make_laterals', 'go_down'):
        if part in (name, 'both'):
            method = torch.compile(getattr(child, name), backend='eager')
            setattr(child, name, method)
    for x in inputs:
        torch.testing.assert_close(child(x), expected_of(child, x))


def test_tracing_by_symbols_says_what_does_not_go():
    with pytest.raises(TypeError, match='proxies of torch.fx.symbolic_trace'):
        torch.fx.symbolic_trace(make())
    torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 1, 1)))


@pytest.mark.skipif(
    torch.__version__ < (2, 8),
    reason='torch.export of 2.4 does not follow what a thread holds; tested '
    'from 2.8 on',
)
def test_is_exported():
    child, inputs = make(), maps()
    exported = torch.export.export(child, (inputs,)).module()
    torch.testing.assert_close(exported(inputs), child(inputs))
