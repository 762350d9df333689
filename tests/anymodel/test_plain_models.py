"""Layers in models of plain torch."""

import copy
import inspect
import io
import pickle
from collections import UserDict

import pytest
import torch
from torch import nn

import mmsapa
from tests.anymodel.models import (
    FPN,
    IMAGE,
    Fuse,
    Shared,
    UNet,
    Wrapper,
    close,
    flat,
    put,
    stir,
)

MODELS = dict(
    unet=(UNet, ['up.0', 'up.1']),
    fpn=(FPN, ['forward:0', 'forward:1']),
    inplace=(lambda: FPN(inplace=True), ['forward:0', 'forward:1']),
    shared=(Shared, ['up:0', 'up:1']),
    fuse=(Fuse, ['forward:1', 'forward:2']),
)


@pytest.fixture(params=MODELS)
def case(request):
    make, names = MODELS[request.param]
    return make(), names


def test_steps_are_found_and_start_as_what_they_replace(case):
    model, names = case
    before, expected = model.state_dict(), model(IMAGE)
    steps = put(model)
    assert [step.name for step in steps if step.layer] == names
    close(model(IMAGE), expected)
    after = model.state_dict()
    new = [name for name in after if name not in before]
    assert [n for n in after if n in before] == list(before)
    assert new and all(name.startswith('upsamplers.') for name in new)
    for x, y in zip(flat(stir(model)(IMAGE)), flat(expected)):
        assert x.shape == y.shape
    assert (flat(model(IMAGE))[-1] - flat(expected)[-1]).abs().max() > 1e-3


@pytest.mark.parametrize('kind', [dict, UserDict])
def test_an_input_may_be_named(kind):
    found = mmsapa.find_steps(UNet(), kind(image=IMAGE))
    assert [step.name for step in found] == ['up.0', 'up.1']


def test_every_layer_trains(case):
    model, _ = case
    put(model)
    for _ in range(2):  # SAPA's keys have a gradient from the second step on
        model.zero_grad()
        sum(x.square().sum() for x in flat(model(IMAGE))).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 1e-2 * p.grad.sign()
    for name, p in model.upsamplers.named_parameters():
        assert p.grad.abs().sum() > 0, name


def test_undone_it_is_what_it_was(case):
    model, _ = case
    kinds = [type(module) for module in model.modules()]
    names, expected = list(model.state_dict()), model(IMAGE)
    put(model)
    assert mmsapa.remove_upsampler(model) is model
    assert [type(module) for module in model.modules()] == kinds
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(IMAGE), expected, rtol=0, atol=0)
    put(model)


def test_copies_pickles_and_state_dicts_have_layers_of_their_own(case):
    model, _ = case
    fresh = copy.deepcopy(model)
    put(model)
    put(fresh)
    expected = stir(model)(IMAGE)
    fresh.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        fresh,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ]
    for other in copies:
        torch.testing.assert_close(other(IMAGE), expected)
        with torch.no_grad():
            for p in other.upsamplers.parameters():
                p.zero_()
        torch.testing.assert_close(model(IMAGE), expected)
        assert (flat(other(IMAGE))[-1] - flat(expected)[-1]).abs().max() > 1e-3
        mmsapa.remove_upsampler(other)


@pytest.mark.parametrize(
    'upsampler', ['carafe', 'dysample', 'a2u', 'indexnet', 'sapa-g', 'fade']
)
def test_other_layers_fit(upsampler):
    model = FPN()
    put(model, upsampler)
    out = model(torch.randn(1, 3, 32, 24))
    assert [x.shape[2:] for x in out] == [(4, 3), (8, 6), (16, 12)]
    sum(x.sum() for x in out).backward()
    for name, p in model.upsamplers.named_parameters():
        assert p.grad is not None, name


def test_guides_are_those_of_the_table():
    model = FPN()
    steps = put(model)
    assert [step.guide for step in steps] == ['lateral.1', 'lateral.0']
    seen = []
    for layer in model.upsamplers.values():
        layer.register_forward_pre_hook(lambda _, args: seen.append(args))
    laterals = []
    for lateral in model.lateral[:2]:
        lateral.register_forward_hook(lambda *args: laterals.append(args[2]))
    model(IMAGE)
    for (_, guide), lateral in zip(seen, laterals, strict=True):
        assert guide is lateral


def test_one_step_alone_has_the_guide_that_it_had_in_the_trace():
    model = Fuse()
    steps = put(model, steps=['forward:2'])
    assert [bool(step.layer) for step in steps] == [False, False, True, False]
    seen = []
    (layer,) = model.upsamplers.values()
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model(IMAGE)
    torch.testing.assert_close(seen[0], IMAGE.repeat(1, 2, 1, 1)[:, :4])


def test_table_says_what_was_found_and_why_not(capsys):
    model = Fuse()
    mmsapa.use_upsampler(model, 'sapa-b', IMAGE)
    table = capsys.readouterr().out
    lines = table.splitlines()
    assert len(lines) == 5
    assert lines[0].split() == [
        *('step', 'interpolates', 'x', 'channels', 'meets', 'layer')
    ]
    assert 'no: size stays' in lines[1]
    assert '8x8 to 16x16' in lines[2] and lines[2].endswith('SAPA')
    assert '4x4 to 16x16' in lines[3] and 'cat a map (4)' in lines[3]
    assert lines[4].endswith('no: leaves the model')


@pytest.mark.parametrize('model', [UNet, FPN, Shared])
def test_levels_halved_by_rounding_fit(model):
    model = model()
    put(model)
    image = torch.randn(1, 3, 16, 19)
    if isinstance(model, FPN):
        image = torch.randn(1, 3, 40, 24)
    assert all(x.isfinite().all() for x in flat(stir(model)(image)))


def test_zero_padding_stays_zero_padding():
    model = Shared()
    expected = model(torch.ones(1, 3, 19, 21))
    put(model)
    close(model(torch.ones(1, 3, 19, 21)), expected)


class Merge(nn.Module):
    """Merges the map with the image by any function."""

    def __init__(self, merge):
        super().__init__()
        self.down, self.merge = nn.Conv2d(3, 3, 2, stride=2), merge

    def forward(self, image):
        x = nn.functional.interpolate(self.down(image), scale_factor=2)
        return self.merge(x, image)


def add_in_place(x, image):
    outs = [x]
    x += image
    return [*outs, x]


@pytest.mark.parametrize(
    'merge',
    [
        lambda x, image: x.add(image, alpha=2),
        lambda x, image: x.add_(image),
        lambda x, image: torch.add(input=image, other=x),
        lambda x, image: torch.cat([x, image], axis=1),
        lambda x, image: torch.cat(tensors=(x, image), dim=-3),
        lambda x, image: [x, sum([x, image])],
        lambda x, image: dict(sum=x + image, rest=(2 * x, 1 - x, x**2)),
        lambda x, image: (
            nn.functional.pad(x[..., :-1, :], [0, 0, 0, 1]) + image
        ),
        add_in_place,
    ],
)
def test_maps_meet_in_any_form_of_sum_and_concatenation(merge):
    model = Merge(merge)
    expected = model(IMAGE)
    put(model)
    out = model(IMAGE)
    if isinstance(out, dict):
        out, expected = ([o['sum'], *o['rest']] for o in (out, expected))
    for x, y in zip(flat(out), flat(expected), strict=True):
        assert isinstance(x, torch.Tensor)
        close(x, y)
    sum(x.square().sum() for x in flat(out)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_padded_channels_are_no_waiting_map():
    model = Merge(
        lambda x, image: (
            nn.functional.pad(x[:, :3], [0] * 5 + [3])
            + torch.cat([image, image], 1)
        )
    )
    (step,) = mmsapa.find_steps(model, IMAGE)
    assert step.into == 'goes into pad'


def test_a_layer_may_be_exchanged():
    class Ignore(nn.Module):
        def forward(self, *args):
            return torch.zeros_like(args[1])

    model = Merge(torch.add)
    put(model)
    (name,) = model.upsamplers
    model.upsamplers[name] = Ignore()
    torch.testing.assert_close(model(IMAGE), IMAGE)


class Cropped(Wrapper):
    """Makes more than it needs, as where a level was rounded up."""

    def forward(self, image):
        x = nn.functional.max_pool2d(image, 2, ceil_mode=True)
        x = nn.functional.interpolate(x, scale_factor=2, mode='bilinear')
        return image + x[:, :, : image.shape[2], : image.shape[3]]


def test_a_map_may_be_cropped_before_it_meets_its_guide():
    model, image = Cropped(), torch.randn(1, 3, 15, 17)
    expected = model(image), model(IMAGE)
    (step,) = put(model)
    assert (step.meets, step.size) == ('add', (16, 16))
    close((model(image), model(IMAGE)), expected)


def test_signature_and_names_are_the_models():
    model = Fuse()
    before = inspect.signature(model.forward), repr(model)
    put(model)
    assert inspect.signature(model.forward) == before[0]
    assert type(model).__name__ == 'Fuse' and isinstance(model, Fuse)
    mmsapa.remove_upsampler(model)
    assert repr(model) == before[1]


def test_the_paper_has_no_prior():
    model = FPN()
    expected = model(IMAGE)
    put(model, prior=None)
    assert all(layer.prior is None for layer in model.upsamplers.values())
    assert (model(IMAGE)[-1] - expected[-1]).abs().max() > 1e-2


@pytest.mark.parametrize('mode', [True, False])
def test_finding_changes_nothing(mode):
    model = nn.Module.train(UNet(), mode)
    model.norm = nn.BatchNorm2d(3)
    model.stem = nn.Sequential(model.stem, model.norm)
    model.up[0].eval()
    before = copy.deepcopy(model.state_dict())
    steps = mmsapa.find_steps(model, IMAGE)
    assert [step.replaceable for step in steps] == [True, True]
    assert model.training is mode and not model.up[0].training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not model.stem[0]._forward_hooks
    assert not model.stem[0]._forward_pre_hooks
