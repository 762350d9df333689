"""The models whose upsamplers the papers count, and what they count.

SegFormer-B1 has six upsamplers, Faster R-CNN and MaskFormer three and
Mask2Former one, all of them between maps of 256 channels; A2U matting with
ResNet-34 has four, of 64, 64, 128 and 256 channels.
"""

import torch
from mmengine.analysis import FlopAnalyzer

CHANNELS = {
    'SegFormer-B1': [256] * 6,
    'Faster R-CNN': [256] * 3,
    'MaskFormer': [256] * 3,
    'Mask2Former': [256],
    'A2U matting': [64, 64, 128, 256],
}
# Low-res pixels of all upsamplings of SegFormer-B1, of an image of 512 x 512.
SEGFORMER_PIXELS = sum(side**2 for side in (16, 32, 64, 32, 64, 64))


def parameters(layer):
    return sum(p.numel() for p in layer.parameters())


def in_millions(layer_type, model, **kwargs):
    """Parameters that a model gets, in millions as the papers round them."""
    layers = [layer_type(c, **kwargs) for c in CHANNELS[model]]
    return round(sum(map(parameters, layers)) / 1e6, 2)


def segformer_giga_macs(layer_type, by_pixel, **kwargs):
    """Multiply-accumulates in SegFormer-B1, in 10^9 as the papers round them.

    Convolutions are counted by mmengine, ``by_pixel`` are those of products
    that no module makes, for a pixel of low resolution.
    """
    layer = layer_type(256, **kwargs).eval()

    def convolutions(side):
        x = torch.empty(1, 256, side, side)
        guide = torch.empty(1, 256, 2 * side, 2 * side)
        return FlopAnalyzer(layer, (x, guide)).by_operator()['conv']

    # Some are for a pixel, some (of pooled maps) once for a module.
    of_pixel = (convolutions(8) - convolutions(4)) / (8**2 - 4**2)
    of_module = convolutions(4) - of_pixel * 4**2
    modules = len(CHANNELS['SegFormer-B1'])
    total = (of_pixel + by_pixel) * SEGFORMER_PIXELS + of_module * modules
    return round(total / 1e9, 2)


def window(image, top, left, size):
    """A square of a Tensor[C, H, W], zero where that has no pixels."""
    c, h, w = image.shape
    out = image.new_zeros(c, size, size)
    for y in range(size):
        for z in range(size):
            if 0 <= top + y < h and 0 <= left + z < w:
                out[:, y, z] = image[:, top + y, left + z]
    return out
