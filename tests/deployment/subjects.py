"""Layers and models that leave Python."""

import torch
from torch import Tensor, nn

from mmsapa.upsamplers import (
    A2U,
    CARAFE,
    FADE,
    SAPA,
    DySample,
    IndexNet,
    MaxUnpool,
)

from ..helpers import ROOT

# What a runtime need not have, or has with errors.
REFUSED = {'GridSample', 'Col2Im', 'Unfold', 'MaxUnpool', 'AffineGrid'}
UNGUIDED = (CARAFE, DySample)
LAYERS = {
    'SAPA-I': lambda c: SAPA(c, variant='I'),
    'SAPA-B': lambda c: SAPA(c, variant='B'),
    'SAPA-G': lambda c: SAPA(c, variant='G'),
    'SAPA-B, bilinear': lambda c: SAPA(c, variant='B', prior='bilinear'),
    'SAPA-G, nearest': lambda c: SAPA(c, variant='G', prior='nearest'),
    'FADE': lambda c: FADE(c),
    'A2U': lambda c: A2U(c),
    'IndexNet': lambda c: IndexNet(c),
    'MaxUnpool': lambda c: MaxUnpool(c),
    'CARAFE': lambda c: CARAFE(c, 2, up_group=2),
    'DySample, lp': lambda c: DySample(c),
    'DySample, pl, dyscope': lambda c: DySample(c, style='pl', dyscope=True),
}
SEGFORMER = 'segformer/segformer_mit-b1_sapa-b_1xb16-160k_ade20k-512x512.py'
SEGNET = 'segnet/segnet_vgg16_{}_1xb8-200e_camvid-360x480.py'
# Config, settings, channels of the images.
MODELS = {
    'SegFormer-B1, SAPA-B': (SEGFORMER, {}, 3),
    'SegFormer-B1, SAPA-B, bilinear': (
        SEGFORMER,
        {'model.decode_head.upsample_cfg.prior': 'bilinear'},
        3,
    ),
    'ResNet-50 and FPN, SAPA-B': (
        'faster_rcnn/faster-rcnn_r50_fpn-sapa-b_1x_coco.py',
        {'model.backbone.init_cfg': None},
        3,
    ),
    'SegNet, max unpooling': (SEGNET.format('max-unpool'), {}, 3),
    'SegNet, SAPA-B': (SEGNET.format('sapa-b'), {}, 3),
    'BTS, SAPA-B': ('bts/bts_r50_sapa-b_1xb4-50e_nyu-416x544.py', {}, 3),
    'A2U matting, SAPA-B': (
        'a2u_matting/a2u-matting_r34_sapa-b_1xb16-30e_comp1k-512x512.py',
        {},
        4,
    ),
}


def make_layer(name: str, channels: int = 8) -> nn.Module:
    """Make a layer with weights away from what it starts as."""
    torch.manual_seed(0)
    layer = LAYERS[name](channels).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def maps_for(
    layer: nn.Module, n: int, low: tuple, high: tuple, channels: int = 8
) -> tuple:
    """Draw what a layer takes."""
    x = torch.randn(n, channels, *low)
    if isinstance(layer, UNGUIDED):
        return (x,)
    return x, torch.randn(n, channels, *high)


class Whole(nn.Module):
    """A model of a library, from images to logits, depths or maps."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor):
        """Run the model without its pre- and postprocessing."""
        if hasattr(self.model, 'rpn_head'):
            return self.model.extract_feat(images)
        return self.model(images, mode='tensor')


def make_model(name: str) -> nn.Module:
    """Make a model of a config, with random weights."""
    from mmengine.config import Config
    from mmengine.registry import MODELS as REGISTRY
    from mmengine.registry import init_default_scope

    from mmsapa.engine.config import library_of

    path, settings, _ = MODELS[name]
    cfg = Config.fromfile(ROOT / 'configs' / path)
    cfg.merge_from_dict(settings)
    for part in ('backbone', 'decode_head'):
        if part in cfg.model:
            cfg.model[part].init_cfg = None
    cfg.model.pop('pretrained', None)
    init_default_scope(library_of(cfg))
    torch.manual_seed(0)
    return Whole(REGISTRY.build(cfg.model)).eval()
