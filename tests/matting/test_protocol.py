"""The configs train as the release does, under a scope of their own."""

import pytest
import torch
from mmengine import registry
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, Registry

from mmsapa.engine.config import read_config

from ..helpers import ROOT

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
