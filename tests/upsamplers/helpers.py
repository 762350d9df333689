"""Figures of the papers, and the definition of a window.

SegFormer-B1 has six upsamplers, Faster R-CNN and MaskFormer three and
Mask2Former one, all of them between maps of 256 channels; A2U matting with
ResNet-34 has four, of 64, 64, 128 and 256 channels.
"""

import inspect

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

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
    """Number of parameters."""
    return sum(p.numel() for p in layer.parameters())


def in_millions(layer_type, model, **kwargs):
    """Parameters added to a model, in 10^6, rounded as in the papers."""
    layers = [layer_type(c, **kwargs) for c in CHANNELS[model]]
    return round(sum(map(parameters, layers)) / 1e6, 2)


def segformer_giga_macs(layer_type, by_pixel, **kwargs):
    """Multiply-accumulates of SegFormer-B1, in 10^9, rounded as in the papers.

    PyTorch counts convolutions and our operators; ``by_pixel`` is the number
    of all other products, per pixel of low resolution.
    """
    layer = layer_type(256, **kwargs).eval()
    maps = len(inspect.signature(layer.forward).parameters)

    def counted(side):
        shapes = (1, 256, side, side), (1, 256, 2 * side, 2 * side)
        return count_macs(layer, *shapes[:maps])

    # Some are per pixel, some (of pooled maps) per module.
    of_pixel = (counted(8) - counted(4)) / (8**2 - 4**2)
    of_module = counted(4) - of_pixel * 4**2
    modules = len(CHANNELS['SegFormer-B1'])
    total = (of_pixel + by_pixel) * SEGFORMER_PIXELS + of_module * modules
    return round(total / 1e9, 2)


def count_macs(layer, *shapes):
    """Multiply-accumulates of convolutions and of our operators."""
    # Tensors without data: no kernel runs whose parts would be counted too.
    inputs = [torch.empty(shape, device='meta') for shape in shapes]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer.to('meta')(*inputs)
    # PyTorch counts two operations for each.
    return counter.get_total_flops() // 2


def sapa_macs(variant, cells, c, cg, d=32, window=25):
    """Multiply-accumulates of SAPA by the formulas of the paper."""
    if variant == 'I':
        return 4 * cells * window * 2 * c
    bilinear = 4 * cells * (d * cg + window * (d + c)) + cells * d * c
    return bilinear + (cells * (d * c + c) if variant == 'G' else 0)


def assert_initialized(layer):
    """The parameters of a SAPA are as its constructor draws them."""
    for name, p in layer.named_parameters():
        if name.endswith('bias'):
            assert p.eq(0).all()
        elif name.startswith('norm'):
            assert p.eq(1).all()
        else:
            assert p.std().item() == pytest.approx(0.02, rel=0.2)


def window(image, top, left, size):
    """A square of a Tensor[C, H, W], zero outside the map."""
    c, h, w = image.shape
    out = image.new_zeros(c, size, size)
    for y in range(size):
        for z in range(size):
            if 0 <= top + y < h and 0 <= left + z < w:
                out[:, y, z] = image[:, top + y, left + z]
    return out
