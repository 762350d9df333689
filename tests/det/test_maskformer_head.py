"""MMDetection's MaskFormer with slots in its pixel decoder."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

mmdet = pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample  # noqa: E402

CHANNELS = [8, 16, 32, 64]
CONFIG = 'maskformer/maskformer_swin-l-p4-w12_64xb1-ms-300e_coco.py'


def make(scope, **decoder):
    scope('mmdet')
    path = f'{mmdet.__path__[0]}/.mim/configs/{CONFIG}'
    head = Config.fromfile(path).model.panoptic_head
    head.type = 'mmsapa.DetMaskFormerHead'
    head.in_channels = CHANNELS
    head.transformer_decoder.num_layers = 1
    head.pixel_decoder.update(type='mmsapa.PixelDecoder', **decoder)
    return MODELS.build(head)


def test_the_head_projects_for_a_decoder_with_slots(scope):
    head = make(scope, upsample_cfg=dict(type='sapa', variant='B'))
    maps = [torch.randn(1, c, 64 // c, 64 // c) for c in CHANNELS]
    sizes = dict.fromkeys(['img_shape', 'batch_input_shape'], (32, 32))
    classes, masks = head(maps, [DetDataSample(metainfo=sizes)])
    assert masks[-1].shape == (1, 100, 8, 8) and len(classes) == 1


def test_slots_of_a_decoder_are_initialized_as_the_config_says(scope):
    constant = dict(type='Constant', layer='Conv2d', val=0.5)
    head = make(scope, upsample_cfg=dict(type='sapa', init_cfg=constant))
    head.init_weights()
    for slot in head.pixel_decoder.upsamplers:
        assert (slot.layer.query.weight == 0.5).all()
    make(scope).init_weights()
