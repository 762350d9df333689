"""The configs train as the SAPA paper's supplement states."""

import math

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402

from mmsapa.engine.config import read_config  # noqa: E402

from ..helpers import ROOT  # noqa: E402

NAME = 'configs/segnet/segnet_vgg16_sapa-g_{}.py'


@pytest.mark.parametrize(
    ('name', 'images', 'epochs', 'classes'),
    [
        ('1xb8-200e_sunrgbd-480x480', 5285, 200, 37),
        ('1xb8-200e_camvid-360x480', 367, 200, 11),
        ('1xb8-50e_horse-256x256', 200, 50, 2),
    ],
)
def test_epochs_and_rates(name, images, epochs, classes, scope):
    scope('mmseg')
    cfg = read_config(ROOT / NAME.format(name))
    assert cfg.train_cfg.max_iters == epochs * math.ceil(images / 8)
    assert cfg.train_dataloader.batch_size == 8 and not cfg.param_scheduler
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.num_classes == classes
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is torch.optim.SGD
    settings = {
        parameter: group
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    for key, parameter in model.named_parameters():
        group = settings[parameter]
        assert (group['lr'], group['momentum']) == (0.01, 0.9)
        # Of convolutions, those of the upsample layers too.
        decays = parameter.dim() == 4
        assert group['weight_decay'] == (5e-4 if decays else 0), key
