"""Encoder and decoder against the table of A2U matting's baseline."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmsapa.matting import A2UHead, MattingResNet, from_a2u

from ..upsamplers.helpers import assert_initialized, parameters
from .helpers import WIDTH, make_data, make_mattor
from .reference import matte, release_weights

SAPA = {v: dict(type='sapa', variant=v) for v in 'IBG'}


def repeated(x, guide):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize(
    'upsample_cfg', [dict(type='nearest'), SAPA['I'], SAPA['G']], ids=str
)
def test_computes_the_table(upsample_cfg):
    weights = release_weights(WIDTH)
    model = make_mattor(upsample_cfg=upsample_cfg)
    keys = model.load_state_dict(from_a2u(weights), strict=False)
    assert not keys.unexpected_keys
    assert all('.upsamplers.' in key for key in keys.missing_keys)
    model.double()
    ups = 4 * [repeated]
    if upsample_cfg['type'] == 'sapa':
        ups = [slot.layer for slot in model.decode_head.upsamplers]
    weights = {k: v.double() for k, v in weights.items()}
    x = torch.randn(2, 4, 48, 80, dtype=torch.float64)
    with torch.no_grad():
        expected = matte(weights, x, ups)
        found = model(x)
    assert found.shape == (2, 1, 48, 80) and expected.std() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_full_model_computes_the_table():
    weights = release_weights()
    model = make_mattor(64)
    model.load_state_dict(from_a2u(weights))
    x = torch.randn(1, 4, 32, 32)
    bilinear = torch.nn.Upsample(scale_factor=2, mode='bilinear')
    with torch.no_grad():
        expected = matte(weights, x, 4 * [lambda x, guide: bilinear(x)])
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def on_meta(**settings):
    with torch.device('meta'):
        return make_mattor(64, **settings)


def macs(model):
    image = torch.empty(1, 4, 512, 512, device='meta')
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    # torch's counter takes a multiply-accumulate for two.
    return counter.get_total_flops() / 2e9


def test_parameters_are_the_published_ones():
    model = on_meta()
    head = model.decode_head
    for part, number in (
        (model.backbone, 5_812_096),
        (head.aspp, 666_880),
        (head.fuse, 1_160_896),
        (head.laterals, 408_832),
        (head.conv_alpha, 299),
        (model, 8_049_003),
    ):
        assert parameters(part) == number
    for variant, more in dict(I=2_048, B=35_072, G=52_100).items():
        other = on_meta(upsample_cfg=SAPA[variant])
        assert parameters(other) == 8_049_003 + more


def test_carafe_adds_the_published_parameters():
    model = on_meta(upsample_cfg=dict(type='carafe'))
    assert parameters(model) == 8_049_003 + 263_824


def test_multiply_accumulates_of_the_training_crop():
    assert round(macs(on_meta()), 2) == 52.56


LAYERS = ['nearest', 'bilinear', 'deconv', 'pixel_shuffle', 'carafe', 'a2u']
LAYERS += ['indexnet', 'fade', 'dysample', *SAPA.values()]


@pytest.mark.parametrize('kind', LAYERS, ids=str)
def test_every_layer_is_trained(kind, device):
    cfg = kind if isinstance(kind, dict) else dict(type=kind)
    model = make_mattor(upsample_cfg=cfg, depth=18).to(device).train()
    model.init_weights()
    data = make_data((32, 48), (32, 48))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    values = []
    for _ in range(3):
        torch.manual_seed(0)  # the same dropout
        losses = model(**model.data_preprocessor(data, True), mode='loss')
        loss, log = model.parse_losses(losses)
        assert log.keys() == {'loss', 'loss_alpha', 'loss_composition'}
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for name, p in model.named_parameters():
            assert p.grad.isfinite().all() and p.grad.any(), name
        optimizer.step()
    assert values[-1] < values[0]


def test_a_step_under_autocast_learns_alike(device):
    model = make_mattor(upsample_cfg=SAPA['G'], depth=18).to(device).train()
    model.init_weights()
    model.decode_head.aspp.dropout.p = 0
    data = model.data_preprocessor(make_data((32, 48), (32, 48)), True)
    exact = sum(model(**data, mode='loss').values())
    with torch.autocast(device, torch.bfloat16):
        loss = sum(model(**data, mode='loss').values())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.1, atol=0)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_no_model_starts_with_mattes_below_0():
    """There the leaky ReLU before them would hardly learn."""
    head = A2UHead(4)
    head.init_weights()
    assert (head.conv_alpha[1].weight > 0).all()
    own = A2UHead(4, init_cfg=dict(type='Constant', layer='Conv2d', val=-1))
    own.init_weights()
    assert (own.conv_alpha[1].weight == -1).all()


def test_upsample_layers_keep_their_own_initialization():
    model = make_mattor(64, upsample_cfg=SAPA['G'])
    model.init_weights()
    for slot in model.decode_head.upsamplers:
        assert_initialized(slot.layer)
    # Xavier's, with the gain of leaky ReLU.
    for name, weight in (
        ('head', model.decode_head.fuse[0][0].conv1.weight),
        ('encoder', model.backbone.layer3[1].conv1.weight),
    ):
        outputs, inputs = weight.shape[:2]
        std = math.sqrt(2 / (1 + 0.01**2)) * math.sqrt(
            2 / (9 * (inputs + outputs))
        )
        assert weight.std().item() == pytest.approx(std, rel=0.02), name


@pytest.fixture
def torchvisions(tmp_path):
    """A file of torchvision's ResNet-18, narrow, and its weights."""
    ours = MattingResNet(18, base_channels=WIDTH, in_channels=3).state_dict()
    weights = {
        k: torch.rand_like(v) if v.is_floating_point() else v
        for k, v in ours.items()
    }
    others = {
        'layer4.0.conv1.weight': torch.rand(64, 32, 3, 3),
        'layer3.5.bn1.bias': torch.rand(32),
        'fc.weight': torch.rand(1000, 64),
    }
    torch.save({**weights, **others}, tmp_path / 'resnet18.pth')
    return str(tmp_path / 'resnet18.pth'), weights


def test_torchvisions_weights_load(torchvisions):
    path, weights = torchvisions
    model = make_mattor(depth=18).backbone
    model.init_cfg = dict(type='Pretrained', checkpoint=path)
    model.init_weights()
    found = model.state_dict()
    first = found.pop('conv1.weight')
    assert torch.equal(first[:, :3], weights.pop('conv1.weight'))
    assert first[:, 3].eq(0).all()
    for name, value in weights.items():
        assert torch.equal(found[name], value), name


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match='a depth of 18 or 34, got 50'):
        MattingResNet(50)
    with pytest.raises(ValueError, match=r'multiples of 16, got .*40, 64'):
        MattingResNet(18, 8)(torch.rand(1, 4, 40, 64))
    with pytest.raises(KeyError, match="got type='no'"):
        A2UHead(8, upsample_cfg=dict(type='no'))
