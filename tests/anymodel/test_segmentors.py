"""Models of MMSegmentation, which calls the forward of its heads."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData

import mmsapa

pytest.importorskip('mmseg')

from mmseg.registry import MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

CHANNELS = [8, 16, 32, 64]
HEAD = dict(
    in_channels=CHANNELS,
    in_index=[0, 1, 2, 3],
    channels=8,
    num_classes=3,
    norm_cfg=dict(type='BN'),
    align_corners=False,
)
HEADS = dict(
    UPerHead=dict(type='UPerHead', pool_scales=(1, 2), **HEAD),
    SegformerHead=dict(type='SegformerHead', **HEAD),
)


@pytest.mark.parametrize('name', HEADS)
def test_every_mode_of_a_segmentor_takes_layers(name, scope):
    scope('mmseg')
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(
                type='ResNet',
                depth=18,
                base_channels=8,
                out_indices=(0, 1, 2, 3),
            ),
            decode_head=copy.deepcopy(HEADS[name]),
            test_cfg=ConfigDict(mode='whole'),
        )
    )
    image = torch.randn(2, 3, 64, 64)
    steps = mmsapa.use_upsampler(model, 'sapa-b', image, verbose=False)
    assert {step.owner for step in steps if step.layer} == {'decode_head'}
    assert 'forward' not in vars(model.decode_head)
    truth = torch.randint(0, 3, (1, 64, 64))
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=truth),
            metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)),
        )
        for _ in range(2)
    ]
    losses = model.train()(image, samples, mode='loss')
    losses['decode.loss_ce'].backward()
    assert all(p.grad is not None for p in model.upsamplers.parameters())
    model.eval()
    assert model(image, samples, mode='predict')[0].pred_sem_seg.data.any()
    assert model(image, mode='tensor').shape[1] == 3
