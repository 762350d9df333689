"""Layers in models of other packages, with random weights.

Each test prints its row of docs/any-model.md (``pytest -s``).
"""

from importlib import import_module

import pytest
import torch

import mmsapa
from mmsapa.engine.export import largest_difference


def need(name):
    """Import a package, or skip: also where its own parts are missing."""
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f'{name} cannot be imported: {error}')


def smp(name, **kwargs):
    models = need('segmentation_models_pytorch')
    return getattr(models, name)('resnet18', encoder_weights=None, **kwargs)


def encoder():
    return dict(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1] * 4,
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
    )


def hf_segformer():
    hf = need('transformers')
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**encoder()))


def hf_glpn():
    hf = need('transformers')
    return hf.GLPNForDepthEstimation(hf.GLPNConfig(**encoder()))


def hf_upernet():
    hf = need('transformers')
    backbone = hf.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1] * 4,
        out_features=[f'stage{i}' for i in (1, 2, 3, 4)],
    )
    config = hf.UperNetConfig(
        backbone_config=backbone, hidden_size=16, use_auxiliary_head=False
    )
    return hf.UperNetForSemanticSegmentation(config)


def torchvision_fpn():
    need('torchvision')
    detection = need('torchvision.models.detection.backbone_utils')
    body = need('torchvision.models').resnet18(weights=None)
    levels = {f'layer{i}': str(i) for i in (1, 2, 3, 4)}
    return detection.BackboneWithFPN(body, levels, [64, 128, 256, 512], 32)


def monai_unet():
    return need('monai.networks.nets').BasicUNet(
        spatial_dims=2,
        in_channels=3,
        features=(8, 8, 16, 16, 32, 8),
        upsample='nontrainable',
    )


def yolo():
    tasks = need('ultralytics.nn.tasks')
    return tasks.DetectionModel('yolov8n.yaml', verbose=False)


def hrnet():
    return need('timm').create_model('hrnet_w18_small', features_only=True)


def loftr():
    name = 'kornia.feature.loftr.backbone.resnet_fpn'
    return need(name).ResNetFPN_8_2(
        dict(initial_dim=8, block_dims=[8, 12, 16])
    )


NARROW = dict(decoder_channels=(32, 24, 16, 8, 8))
CASES = {  # how it is made, its steps, and those that a layer replaces
    'segmentation_models_pytorch Unet': (lambda: smp('Unet', **NARROW), 5, 4),
    'segmentation_models_pytorch UnetPlusPlus': (
        lambda: smp('UnetPlusPlus', **NARROW),
        *(11, 10),
    ),
    'segmentation_models_pytorch FPN': (lambda: smp('FPN'), 10, 3),
    'segmentation_models_pytorch DeepLabV3Plus': (
        lambda: smp('DeepLabV3Plus'),
        *(3, 1),
    ),
    'transformers Segformer': (hf_segformer, 4, 3),
    'transformers UperNet': (hf_upernet, 11, 6),
    'transformers GLPN': (hf_glpn, 5, 3),
    'torchvision BackboneWithFPN': (torchvision_fpn, 3, 3),
    'monai BasicUNet': (monai_unet, 4, 4),
    'ultralytics YOLOv8n': (yolo, 2, 2),
    'timm hrnet_w18_small': (hrnet, 10, 10),
    'kornia LoFTR ResNetFPN_8_2': (loftr, 2, 2),
}


def maps(out):
    """All floating-point tensors of an output."""
    if isinstance(out, torch.Tensor):
        return [out] if out.is_floating_point() else []
    values = out.values() if hasattr(out, 'values') else out
    if not isinstance(out, (dict, list, tuple)):
        return []
    return [x for value in values for x in maps(value)]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', CASES)
def test_a_model_of_another_package(name):
    make, count, replaced = CASES[name]
    model = make().eval()
    image = torch.randn(2, 1 if 'LoFTR' in name else 3, 64, 64)
    before = sum(p.numel() for p in model.parameters())
    names = list(model.state_dict())
    with torch.no_grad():
        expected = maps(model(image))

    steps = mmsapa.use_upsampler(model, 'sapa-b', image, verbose=False)
    layers = [step for step in steps if step.layer]
    assert (len(steps), len(layers)) == (count, replaced)
    after = sum(p.numel() for p in model.parameters())
    kept = [n for n in model.state_dict() if not n.startswith('upsamplers.')]
    assert after > before and kept == names

    with torch.no_grad():
        out = maps(model(image))
    assert [x.shape for x in out] == [x.shape for x in expected]
    pairs = [(x, y) for x, y in zip(out, expected) if y.numel()]
    worst = largest_difference(*zip(*pairs))
    corners = any(step.align_corners for step in layers)
    assert corners or worst < 1e-2, worst

    model.train()
    for _ in range(2):  # SAPA's keys have a gradient from the second step on
        model.zero_grad()
        sum(x.square().mean() for x in maps(model(image))).backward()
        with torch.no_grad():
            for p in model.upsamplers.parameters():
                p -= 1e-2 * p.grad.sign()
    for parameter, p in model.upsamplers.named_parameters():
        assert p.grad.abs().sum() > 0, parameter

    model.eval()
    fresh = make().eval()
    mmsapa.use_upsampler(fresh, 'sapa-b', image, verbose=False)
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(maps(fresh(image)), maps(model(image)))
        mmsapa.remove_upsampler(fresh)
        assert list(fresh.state_dict()) == names
    interpolations = ', '.join(
        sorted(
            {
                step.mode + step.align_corners * ', align_corners'
                for step in layers
            }
        )
    )
    version = import_module(name.split()[0]).__version__
    print(
        f'\n| {name} | {version} | {replaced} of {count} | {interpolations} '
        f'| {before:,} | {after:,} | {worst:.0e} |'
    )


@pytest.mark.filterwarnings('ignore')
def test_diffusers_meet_behind_a_convolution():
    model = need('diffusers').UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=('DownBlock2D',) * 2,
        up_block_types=('UpBlock2D',) * 2,
        norm_num_groups=4,
    )
    example = torch.randn(1, 3, 16, 16), torch.tensor([1])
    with pytest.raises(ValueError, match='no: goes into conv2d'):
        mmsapa.use_upsampler(model, 'sapa-b', example)
    (step,) = mmsapa.find_steps(model, example)
    mmsapa.use_upsampler(model, 'carafe', example, steps=[step.name])
    model(*example).sample.sum().backward()
    (layer,) = model.upsamplers.values()
    assert all(p.grad is not None for p in layer.parameters())
