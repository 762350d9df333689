"""The configs train as the release does."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import MODELS, PARAM_SCHEDULERS  # noqa: E402

from mmsapa.engine.config import read_config  # noqa: E402

from ..helpers import ROOT  # noqa: E402

CONFIG = ROOT / 'configs/bts/bts_r50_sapa-g_1xb4-50e_nyu-416x544.py'


@pytest.fixture
def cfg(scope):
    scope('mmseg')
    return read_config(CONFIG)


def test_the_encoder_alone_has_weight_decay(cfg):
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.AdamW
    settings = {
        parameter: group
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    trained = {
        name: p for name, p in model.named_parameters() if p.requires_grad
    }
    assert len(settings) == len(trained)
    for name, parameter in trained.items():
        group = settings[parameter]
        decay = 0.01 if name.startswith('backbone.') else 0
        assert group['weight_decay'] == decay, name
        assert (group['lr'], group['eps']) == (1e-4, 1e-3)
        assert group['betas'] == (0.9, 0.999)


def test_the_learning_rate_decays_by_the_formula(cfg):
    (schedule,) = cfg.param_scheduler
    assert schedule.end - 1 == cfg.train_cfg.max_iters == 50 * 6058
    total = 20
    schedule.end = total + 1
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1e-4)
    scheduler = PARAM_SCHEDULERS.build(
        schedule, default_args=dict(optimizer=optimizer)
    )
    for t in range(total + 1):
        expected = (1e-4 - 1e-5) * (1 - t / total) ** 0.9 + 1e-5
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected)
        optimizer.step()
        scheduler.step()


def test_padding_has_no_depth(cfg):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    depth = PixelData(data=torch.ones(1, 400, 544))
    image = torch.zeros(3, 400, 544, dtype=torch.uint8)
    batch = MODELS.build(cfg.model.data_preprocessor)(
        dict(inputs=[image], data_samples=[SegDataSample(gt_depth_map=depth)]),
        training=True,
    )
    assert batch['inputs'].shape == (1, 3, 416, 544)
    padded = batch['data_samples'][0].gt_depth_map.data
    assert padded.shape == (1, 416, 544)
    assert padded[:, :400].eq(1).all() and padded[:, 400:].eq(0).all()
