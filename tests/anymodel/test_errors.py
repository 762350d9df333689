"""What a layer cannot be put into, and calls unlike the traced one."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

import mmsapa
from tests.anymodel.models import (
    FPN,
    IMAGE,
    Fuse,
    Shared,
    Through,
    UNet,
    put,
)


def test_a_map_that_meets_its_guide_behind_a_layer_takes_one_without():
    model = Through()
    with pytest.raises(ValueError, match='1 interpolations and none that'):
        put(model)
    with pytest.raises(
        ValueError,
        match="'up.0' to meet a guide for SAPA, "
        'got a map that goes into conv2d; leave it out, or',
    ):
        put(model, steps=['up.0'])
    put(model, 'dysample', steps=['up.0'])
    model(IMAGE).sum().backward()
    assert model.upsamplers['up-0'].offset.weight.grad.abs().sum() > 0


def test_errors_say_what_to_do():
    with pytest.raises(TypeError, match='a bare Sequential'):
        put(nn.Sequential(UNet()))
    with pytest.raises(TypeError, match='got TorchScript'):
        put(torch.jit.trace(UNet(), IMAGE))
    with pytest.raises(ValueError, match="with a type, got 'sapaa'"):
        put(UNet(), 'sapaa')
    with pytest.raises(ValueError, match="among up.0, up.1, got 'up.2'"):
        put(UNet(), steps=['up.2'])
    with pytest.raises(ValueError, match='one that no layer fits: size stay'):
        put(Fuse(), steps=['forward:0'])
    with pytest.raises(ValueError, match="prefix='down', which the model has"):
        put(UNet(), prefix='down')
    with pytest.raises(ValueError, match="step 'up.0': SAPA: variant 'I'"):
        put(UNet(), 'sapa-i')
    with pytest.raises(TypeError, match='expected arguments of SAPA'):
        put(UNet(), dict(type='sapa', window=3))
    with pytest.raises(ValueError, match="prior 'same', 'bilinear'"):
        put(UNet(), prior='cubic')
    model = UNet()
    put(model)
    with pytest.raises(ValueError, match='call remove_upsampler'):
        put(model)
    with pytest.raises(RuntimeError, match='take DistributedDataParallel'):
        model.up[0]._replicate_for_data_parallel()


def test_modules_that_a_subclass_would_not_change_are_refused():
    traced = torch.fx.symbolic_trace(FPN())
    with pytest.raises(TypeError, match='or made by torch.fx; give the model'):
        put(traced)
    model = Shared()
    model.up.forward = model.up.forward
    with pytest.raises(TypeError, match="'up:0', got Upsample with one that"):
        put(model)


def test_a_module_with_its_own_pickling_is_not_pickled_wrongly():
    class Own(UNet.Block):
        def __reduce__(self):
            return Own, (8, 4)

    model = UNet()
    model.up[0] = Own(8, 4)
    put(model)
    with pytest.raises(TypeError, match='got Own, which has its own way'):
        copy.deepcopy(model)


def test_a_class_derived_since_is_not_undone():
    model = UNet()
    put(model)
    block = model.up[0]
    block.scale = nn.Parameter(torch.ones(1))
    parametrize.register_parametrization(block, 'scale', nn.Identity())
    with pytest.raises(
        TypeError, match='got ParametrizedBlock, derived since'
    ):
        mmsapa.remove_upsampler(model)
    parametrize.remove_parametrizations(block, 'scale')
    mmsapa.remove_upsampler(model)
    assert type(block) is UNet.Block


def test_a_failed_replacement_leaves_the_model_as_it_was():
    class Picky(UNet):
        class Block(UNet.Block):
            def forward(self, x, skip):
                x = nn.functional.interpolate(x, scale_factor=2)
                assert isinstance(x, torch.Tensor)
                return self.conv(torch.cat([x, skip], dim=1)).relu()

    model = Picky()
    names = list(model.state_dict())
    with pytest.raises(AssertionError):
        put(model)
    assert list(model.state_dict()) == names
    assert type(model.up[0]) is Picky.Block
    model(IMAGE)


class Capricious(nn.Module):
    """Does otherwise when it is told."""

    def __init__(self):
        super().__init__()
        self.down = conv = nn.Conv2d(3, 3, 2, stride=2)
        self.twice = nn.Sequential(conv, nn.Conv2d(3, 3, 2, stride=2))
        self.do = 'add'

    def forward(self, image):
        x = (self.twice if self.do == 'scale' else self.down)(image)
        mode = 'bilinear' if self.do == 'mode' else 'nearest'
        with torch.no_grad() if self.do == 'no_grad' else nullcontext():
            up = nn.functional.interpolate(x, size=image.shape[2:], mode=mode)
        if self.do == 'extra':
            nn.functional.interpolate(x, size=image.shape[2:])
        if self.do == 'relu':
            return up.relu()
        if self.do == 'change':
            x.mul_(2)
        return image + up


@pytest.mark.parametrize(
    'do, message',
    [
        ('relu', "'forward' to meet its guide .* got relu"),
        ('scale', 'upsample 3 channels by 2, nearest, as in the traced run'),
        ('extra', "'forward' to interpolate 1 times, .* got 2"),
        ('no_grad', "'forward' to have gradients as 'forward' has, got none"),
        ('mode', 'by 2, nearest, as in the traced run, .*, bilinear'),
        ('change', 'unchanged, and gradients on or off, until it meets'),
    ],
)
def test_a_call_unlike_the_traced_one_raises(do, message):
    model = Capricious()
    put(model)
    model(IMAGE)
    model.do = do
    with pytest.raises(RuntimeError, match=message):
        model(IMAGE)


class Asking(UNet):
    """Takes its maps for tensors, and what stands for one for none."""

    class Block(UNet.Block):
        def forward(self, x, skip):
            up = F.interpolate(x, size=skip.shape[2:], mode='nearest')
            if not torch.is_tensor(up):
                up = torch.zeros(*x.shape[:2], *skip.shape[2:])
            return self.conv(torch.cat([up, skip], dim=1)).relu()


def test_a_layer_that_would_never_run_is_refused():
    model = Asking()
    before = type(model), model(IMAGE)
    with pytest.raises(ValueError, match="map of step 'up.0' to meet .* way"):
        put(model)
    assert type(model) is before[0] and torch.equal(model(IMAGE), before[1])


def test_a_new_instance_of_a_changed_class_has_no_layers():
    model = UNet()
    put(model)
    again = type(model)()
    again.load_state_dict(model.state_dict(), strict=False)
    plain = UNet()
    plain.load_state_dict(again.state_dict())
    assert torch.equal(again(IMAGE), plain(IMAGE))
    assert type(mmsapa.remove_upsampler(again)) is UNet


def test_a_shared_module_counts_within_the_model():
    model = Shared()
    put(model)
    with pytest.raises(RuntimeError, match="'up' to run within the model"):
        model.up(torch.zeros(1, 4, 4, 4))


def test_a_shared_module_runs_as_often_as_in_the_trace():
    model = Shared()
    put(model)
    model.merge = model.merge[:1]
    with pytest.raises(RuntimeError, match="'up' to interpolate 2 times"):
        model(IMAGE)
