"""SegNet's encoder and decoder: layout, counts, checkpoints, layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip('mmseg')

from mmengine.structures import PixelData  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from mmsapa.errors import UserError  # noqa: E402
from mmsapa.seg import SegNetHead, SegNetVGG  # noqa: E402

from ..upsamplers.helpers import assert_initialized, parameters  # noqa: E402

VARIANTS = {v: dict(type='sapa', variant=v) for v in 'IBG'}
NARROW = dict(num_classes=5, in_channels=(4, 4, 8, 8, 8, 8))


def on_meta(module, *args, **settings):
    with torch.device('meta'):
        return module(*args, **settings).eval()


def maps(height=33, width=50, n=2):
    """Maps of an encoder that rounds up, of the channels of NARROW."""
    made = []
    for c in NARROW['in_channels']:
        made.append(torch.randn(n, c, height, width).relu())
        height, width = -(-height // 2), -(-width // 2)
    return made


# ------------------------------------------------------------------- counts


def test_parameters():
    encoder = parameters(on_meta(SegNetVGG))
    assert encoder == 14_723_136
    assert parameters(on_meta(SegNetVGG, with_bn=False)) == 14_714_688
    for classes, total in (
        (37, 29_464_357),
        (38, 29_464_934),
        (11, 29_449_355),
    ):
        assert encoder + parameters(on_meta(SegNetHead, classes)) == total


@pytest.mark.parametrize(
    ('variant', 'more'), [('I', 5_888), ('B', 100_416), ('G', 149_157)]
)
def test_parameters_added_by_sapa(variant, more):
    plain, other = (
        parameters(on_meta(SegNetHead, 37, upsample_cfg=cfg))
        for cfg in (None, VARIANTS[variant])
    )
    assert other - plain == more


def test_multiply_accumulates():
    encoder, head = on_meta(SegNetVGG), on_meta(SegNetHead, 37)
    for size, giga in (
        ((352, 480), 106.7),
        ((480, 480), 145.5),
        ((512, 512), 165.5),
    ):
        image = torch.empty(1, 3, *size, device='meta')
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            assert head(encoder(image)).shape == (1, 37, *size)
        # torch's counter takes a multiply-accumulate for two.
        assert round(counter.get_total_flops() / 2e9, 1) == giga


# ------------------------------------------------------------------ encoder


def torchvisions(with_bn, depth=16):
    """Weights of VGG by torchvision's names, with its classifier's first."""
    stages = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}[depth]
    weights, index, before = {}, 0, 3
    for count, width in zip(stages, (64, 128, 256, 512, 512)):
        for _ in range(count):
            place = f'features.{index}'
            std = (2 / 9 / before) ** 0.5
            weights[f'{place}.weight'] = std * torch.randn(width, before, 3, 3)
            weights[f'{place}.bias'] = 0.1 * torch.randn(width)
            if with_bn:
                norm = f'features.{index + 1}'
                for name in ('weight', 'bias', 'running_mean', 'running_var'):
                    weights[f'{norm}.{name}'] = torch.rand(width) + 0.5
                weights[f'{norm}.num_batches_tracked'] = torch.tensor(3)
            index, before = index + 2 + with_bn, width
        index += 1  # the max-pool
    return {**weights, 'classifier.0.weight': torch.randn(2, 3)}


def definition(weights, x, with_bn, norm, depth=16):
    """The five maps before the max-pools, from torchvision's weights."""
    convs = [k[:-7] for k, v in weights.items() if v.dim() == 4]
    stages = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}[depth]
    outputs = []
    for count in stages:
        for _ in range(count):
            name = convs.pop(0)
            weight, bias = (weights[f'{name}.{k}'] for k in ('weight', 'bias'))
            x = F.conv2d(x, weight, bias, padding=1)
            if with_bn:
                prefix = f'features.{int(name.split(".")[1]) + 1}'
                x = F.batch_norm(
                    x,
                    weights[f'{prefix}.running_mean'],
                    weights[f'{prefix}.running_var'],
                    weights[f'{prefix}.weight'],
                    weights[f'{prefix}.bias'],
                )
            elif norm:  # as it starts
                x = x / (1 + 1e-5) ** 0.5
            x = x.relu()
        outputs.append(x)
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    return (*outputs, x)


@pytest.mark.parametrize(
    ('theirs', 'ours'), [(True, True), (False, False), (False, True)]
)
def test_torchvisions_checkpoints_load(theirs, ours, tmp_path):
    weights, path = torchvisions(theirs), str(tmp_path / 'vgg.pth')
    torch.save(weights, path)
    cfg = dict(type='Pretrained', checkpoint=path)
    model = SegNetVGG(with_bn=ours, init_cfg=cfg)
    model.init_weights()
    image = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        found = model.eval()(image)
    expected = definition(weights, image, theirs, ours)
    for x, y in zip(found, expected, strict=True):
        assert y.std() > 1e-3
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_a_whole_model_loads_as_it_is():
    trained = SegNetVGG(11)
    for value in trained.state_dict().values():
        value.copy_(torch.randn_like(value.float()).abs())
    weights = {f'backbone.{k}': v for k, v in trained.state_dict().items()}
    model = nn.ModuleDict(dict(backbone=SegNetVGG(11)))
    model.load_state_dict(weights)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize(
    ('depth', 'theirs', 'ours'), [(11, True, False), (16, False, True)]
)
def test_weights_of_another_net_are_refused(depth, theirs, ours):
    with torch.device('meta'):
        model = SegNetVGG(11, with_bn=ours)
        weights = torchvisions(theirs, depth)
    with pytest.raises(UserError, match='expected the weights of 8 conv'):
        model.load_state_dict(weights, strict=False)


def test_norms_train_and_modes_return_the_module():
    model = SegNetVGG(11)
    assert model.train() is model and model.eval() is model
    norm = model.train().features[1]
    before = norm.running_mean.clone()
    model(torch.randn(2, 3, 32, 32))
    assert not torch.equal(norm.running_mean, before)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('ceil_mode', [True, False])
def test_sizes_halve_by_rounding_up_or_down(ceil_mode):
    with torch.device('meta'):
        outputs = SegNetVGG(11, ceil_mode=ceil_mode)(
            torch.empty(1, 3, 360, 480)
        )
    heights = [x.shape[2] for x in outputs]
    assert heights == [
        360,
        180,
        90,
        45,
        *((23, 12) if ceil_mode else (22, 11)),
    ]


# --------------------------------------------------------------------- head


def test_each_step_upsamples_to_the_guide_and_convolves():
    """By formulas, with SegNet's own max unpooling."""
    head = SegNetHead(**NARROW).eval()
    *guides, x = inputs = maps()
    for stage, guide, count in zip(
        head.stages, reversed(guides), (3, 3, 3, 2, 1), strict=True
    ):
        _, indices = F.max_pool2d(
            guide, 2, 2, ceil_mode=True, return_indices=True
        )
        x = F.max_unpool2d(x, indices, 2, 2, output_size=guide.shape[2:])
        convs = [m for m in stage if isinstance(m, nn.Conv2d)]
        assert len(convs) == count
        for conv in convs:
            x = conv(x).div((1 + 1e-5) ** 0.5).relu()
    assert head.conv_seg.kernel_size == (3, 3)
    assert x.std() > 0
    torch.testing.assert_close(head(inputs), head.conv_seg(x))


LAYERS = ['max_unpool', 'nearest', 'bilinear', 'deconv', 'pixel_shuffle']
LAYERS += ['a2u', 'indexnet', 'dysample', 'fade', *VARIANTS.values()]


@pytest.mark.parametrize('kind', LAYERS, ids=str)
def test_every_layer_is_trained(kind, device):
    cfg = kind if isinstance(kind, dict) else dict(type=kind)
    head = SegNetHead(**NARROW, upsample_cfg=cfg).to(device)
    head.init_weights()
    inputs = [x.to(device) for x in maps()]
    truth = torch.randint(0, 5, (2, 1, 33, 50), device=device)
    truth[..., :3] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=x)) for x in truth]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
    values = []
    for _ in range(4):
        loss = head.loss(inputs, samples, None)['loss_ce']
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for name, p in head.named_parameters():
            assert p.grad.isfinite().all(), name
            # A norm may cancel the bias before it.
            assert name.endswith('bias') or p.grad.any(), name
        optimizer.step()
    assert values[-1] < values[0]


def test_norms_and_activations_are_those_of_the_config():
    head = SegNetHead(
        **NARROW,
        norm_cfg=dict(type='GN', num_groups=2),
        act_cfg=dict(type='LeakyReLU'),
    )
    kinds = {type(module) for stage in head.stages for module in stage}
    assert kinds == {nn.Conv2d, nn.GroupNorm, nn.LeakyReLU}
    kinds = {type(m) for stage in SegNetHead(**NARROW).stages for m in stage}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU}


def test_upsample_layers_keep_their_own_initialization():
    head = SegNetHead(5, in_channels=(64,) * 6, upsample_cfg=VARIANTS['G'])
    head.init_weights()
    for slot in head.upsamplers:
        assert_initialized(slot.layer)
    std = (2 / (9 * 64)) ** 0.5
    assert head.stages[0][0].weight.std().item() == pytest.approx(
        std, rel=0.05
    )


def test_dropout_is_where_the_authors_have_it():
    """In training, after three max-pools and three steps."""
    encoder = SegNetVGG(11, dropout_ratio=0.5)
    called = []
    encoder.dropout.register_forward_hook(
        lambda module, inputs, out: called.append(out.shape[1:])
    )
    encoder(torch.randn(2, 3, 32, 32))
    assert called == [(256, 4, 4), (512, 2, 2), (512, 1, 1)]
    head = SegNetHead(**NARROW, dropout_ratio=0.5)
    dropped = [isinstance(stage[-1], nn.Dropout) for stage in head.stages]
    assert dropped == [True] * 3 + [False] * 2
    inputs = maps()
    assert not torch.equal(head(inputs), head(inputs))
    assert torch.equal(head.eval()(inputs), head(inputs))


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match='SegNetVGG has such maps'):
        SegNetHead(5, in_channels=(4, 8, 8))
