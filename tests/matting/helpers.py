"""Small mattors and samples made by hand."""

import torch
from mmengine.structures import PixelData

from mmsapa.matting import MattingDataSample, Mattor

WIDTH = 8  # of what has 64 channels


def make_mattor(width=WIDTH, upsample_cfg=None, depth=34, **settings):
    """A mattor with random weights, in evaluation mode."""
    return Mattor(
        backbone=dict(type='MattingResNet', depth=depth, base_channels=width),
        decode_head=dict(
            type='A2UHead', channels=width, upsample_cfg=upsample_cfg
        ),
        **settings,
    ).eval()


def make_trimap(height, width, unknown=128):
    """Background, unknown and foreground from left to right."""
    trimap = torch.full((1, height, width), unknown, dtype=torch.uint8)
    trimap[..., : width // 4] = 0
    trimap[..., width - width // 4 :] = 255
    return trimap


def make_data(*sizes, unknown=128, dtype=torch.float32):
    """What a pipeline gives for images of these sizes, with the truth."""
    inputs, samples = [], []
    for height, width in sizes:
        trimap = make_trimap(height, width, unknown)
        alpha = torch.rand(1, height, width)
        alpha[trimap == 0], alpha[trimap == 255] = 0, 1
        fg, bg = 255 * torch.rand(2, 3, height, width)
        image = alpha * fg + (1 - alpha) * bg
        parts = dict(trimap=trimap, gt_alpha=alpha, gt_fg=fg, gt_bg=bg)
        sample = MattingDataSample(
            metainfo=dict(ori_shape=(height, width), img_path='a.png')
        )
        for name, value in parts.items():
            sample.set_data({name: PixelData(data=value)})
        inputs.append(image.to(dtype))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)
