"""The configs train as the release does, under a scope of their own."""

import cv2
import pytest
import torch
from mmengine import registry
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    DATASETS,
    MODELS,
    PARAM_SCHEDULERS,
    Registry,
)

from mmsapa.engine.config import read_config

from ..helpers import ROOT, make_data

FOLDER = ROOT / 'configs/a2u_matting'
CONFIG = 'a2u-matting_r34_{}_1xb16-30e_comp1k-512x512.py'


@pytest.fixture
def cfg(scope):
    scope('mmsapa')
    return read_config(FOLDER / CONFIG.format('sapa-g'))


def test_a_line_names_the_upsampler(cfg):
    base = read_config(FOLDER / CONFIG.format('bilinear'))
    assert base.model.decode_head.upsample_cfg == dict(type='bilinear')
    for variant in 'ibg':
        other = read_config(FOLDER / CONFIG.format(f'sapa-{variant}'))
        slot = other.model.decode_head.pop('upsample_cfg')
        assert slot == dict(type='sapa', variant=variant.upper())
        other.model.decode_head.upsample_cfg = dict(type='bilinear')
        assert other.to_dict() == base.to_dict()


def test_the_pretrained_encoder_learns_a_hundred_times_slower(cfg):
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.Adam
    groups = {
        parameter: group
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    assert len(groups) == len([*model.parameters()])
    for name, parameter in model.named_parameters():
        group = groups[parameter]
        lr = 1e-4 if name.startswith('backbone.') else 1e-2
        assert group['lr'] == pytest.approx(lr), name
        assert (group['weight_decay'], group['betas']) == (0, (0.9, 0.999))


def test_the_learning_rate_falls_after_20_and_26_of_30_epochs(cfg):
    (schedule,) = cfg.param_scheduler
    assert cfg.train_cfg.max_iters == 30 * 6000
    assert schedule.milestones == [20 * 6000, 26 * 6000]
    # Faster, with epochs of one iteration.
    schedule.milestones = [20, 26]
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=0.01)
    scheduler = PARAM_SCHEDULERS.build(
        schedule, default_args=dict(optimizer=optimizer)
    )
    for epoch in range(30):
        expected = 0.01 * 0.1 ** ((epoch >= 20) + (epoch >= 26))
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected)
        optimizer.step()
        scheduler.step()


def test_samples_are_augmented_as_the_release_does(cfg, tmp_path):
    """In its order, each step as often as there."""
    cfg.train_dataloader.dataset.data_root = str(
        make_data(tmp_path, 'matting', 2, 1)
    )
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    steps = {
        type(step).__name__.removeprefix('Random'): step
        for step in dataset.pipeline.transforms
    }
    assert list(steps) == [
        *('LoadForeground', 'LoadAlpha', 'LoadBackground'),
        *('CompositeForeground', 'SquareResize', 'MattingAffine'),
        *('ForegroundFlip', 'GenerateTrimap', 'CropAroundUnknown'),
        *('JitterForeground', 'CompositeImage', 'PackMattingInputs'),
    ]
    composite, resize, affine, flip, trimap = [*steps.values()][3:8]
    assert (composite.prob, resize.prob, resize.size) == (0.5, 0.25, 640)
    assert (affine.degrees, affine.turn_from) == (30, 1024)
    assert (affine.scale, affine.shear) == ((0.8, 1.25), 10)
    assert (affine.flip_prob, flip.prob) == (0.5, 0.5)
    assert trimap.kernel_size == (1, 29)
    data = pseudo_collate([dataset[0], dataset[1]])
    for image, sample in zip(data['inputs'], data['data_samples']):
        alpha, fg, bg = (
            sample.get(f'gt_{key}').data for key in ('alpha', 'fg', 'bg')
        )
        assert image.shape == fg.shape == bg.shape == (3, 512, 512)
        # In floating point, not rounded.
        torch.testing.assert_close(image, alpha * fg + (1 - alpha) * bg)
        assert set(sample.trimap.data.unique().tolist()) <= {0, 128, 255}


def test_a_test_image_is_not_changed(cfg, tmp_path):
    root = make_data(tmp_path, 'matting', 1, 1)
    cfg.test_dataloader.dataset.data_root = str(root)
    (data,) = DATASETS.build(cfg.test_dataloader.dataset)
    image = cv2.imread(str(root / 'Test_set/merged/00001_0.png'))
    shown = data['inputs'].permute(1, 2, 0)
    assert shown.dtype == torch.uint8 and (shown.numpy() == image).all()
    assert data['data_samples'].img_path.endswith('merged/00001_0.png')


def test_every_kind_of_thing_has_a_registry_of_the_scope(cfg):
    """Else mmengine would warn of each."""
    roots = [x for x in vars(registry).values() if isinstance(x, Registry)]
    assert len(roots) > 20
    for root in roots:
        with root.switch_scope_and_registry(None) as here:
            assert here.scope == 'mmsapa', root.name
    # And from there finds what is mmengine's own.
    assert PARAM_SCHEDULERS.get('MultiStepLR').__module__.startswith('mmeng')
    with registry.OPTIMIZERS.switch_scope_and_registry(None) as here:
        assert here.get('Adam') is torch.optim.Adam
