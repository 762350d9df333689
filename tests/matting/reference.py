"""The baseline of A2U matting a second time, from its table.

Plain functions over a dict of weights by the names of A2U's release; they
share nothing with the model.
"""

import torch
import torch.nn.functional as F

# Decoder steps from stride 16 to 1: number, channels in and out, of the map
# that is added.
STEPS = ((4, 256, 128, 128), (3, 128, 64, 64), (2, 64, 64, 64), (1, 64, 32, 4))


def release_weights(width=64):
    """Random weights and running statistics, by the release's names."""
    weights = {}

    def scaled(channels):
        return channels if channels in (1, 4) else channels * width // 64

    def conv(name, c_in, c_out, side=3):
        c_in, c_out = scaled(c_in), scaled(c_out)
        scale = (c_in * side * side) ** -0.5
        weights[f'{name}.weight'] = (
            torch.randn(c_out, c_in, side, side) * scale
        )

    def norm(name, c):
        c = scaled(c)
        sign = torch.where(torch.rand(c) < 0.3, -1.0, 1.0)
        weights[f'{name}.weight'] = (torch.rand(c) + 0.5) * sign
        weights[f'{name}.bias'] = torch.randn(c) / 4
        weights[f'{name}.running_mean'] = torch.randn(c) / 4
        weights[f'{name}.running_var'] = torch.rand(c) + 0.5

    def pair(name, c_in, c_out, side=3, first=0):
        conv(f'{name}.{first}', c_in, c_out, side)
        norm(f'{name}.{first + 1}', c_out)

    def block(name, c_in, c_out):
        conv(f'{name}.conv1', c_in, c_out)
        norm(f'{name}.bn1', c_out)
        conv(f'{name}.conv2', c_out, c_out)
        norm(f'{name}.bn2', c_out)

    def projection(name, c_in, c_out):
        conv(f'{name}.proj_conv', c_in, c_out, 1)
        norm(f'{name}.proj_bn', c_out)

    pair('layer0', 4, 64, 7)
    for i in 1, 2, 3:
        block(f'layer1.block{i}.convs', 64, 64)
    for stage, c in ((2, 128), (3, 256)):
        name = f'layer{stage}_1'
        conv(f'{name}.layer1.conv1', c // 2, c)
        norm(f'{name}.layer1.bn1', c)
        conv(f'{name}.layer2.conv2', c, c)
        norm(f'{name}.layer2.bn2', c)
        projection(name, c // 2, c)
        for i in 1, 2, 3:
            block(f'layer{stage}_2.block{i}.convs', c, c)
    pair('dconv_pp.aspp1.atrous_conv', 256, 256, 1)
    for i in 2, 3, 4:
        pair(f'dconv_pp.aspp{i}.atrous_conv', 1, 256)
        pair(f'dconv_pp.aspp{i}.atrous_conv', 256, 256, 1, first=2)
    pair('dconv_pp.global_avg_pool', 256, 256, 1, first=1)
    pair('dconv_pp.bottleneck_conv', 1280, 256, 1)
    for step, c_in, c_out, c_skip in STEPS:
        pair(f'short{step - 1}', c_skip, c_in)
        for name, c in (('dconv', c_in), ('dconv1', c_out)):
            name = f'decoder_layer{step}.{name}'
            block(f'{name}.dep_sep_conv', c, c_out)
            if c != c_out:
                projection(name, c, c_out)
    pair('pred.0', 32, 1)
    conv('pred.1', 1, 1)
    return weights


def matte(weights, x, ups):
    """The prediction for normalized inputs [N, 4, H, W].

    Batch norms run on their running statistics, as InPlaceABN: by the size
    of their weight plus 1e-5. ``ups`` are functions of map and guide, from
    stride 16 to 1.
    """

    def conv(name, x, **kwargs):
        weight = weights[f'{name}.weight']
        padding = weight.shape[-1] // 2 * kwargs.get('dilation', 1)
        return F.conv2d(x, weight, padding=padding, **kwargs)

    def norm(name, x):
        gamma, beta, mean, var = (
            weights[f'{name}.{key}'].view(1, -1, 1, 1)
            for key in ('weight', 'bias', 'running_mean', 'running_var')
        )
        return (x - mean) / (var + 1e-5).sqrt() * (gamma.abs() + 1e-5) + beta

    def lrelu(x):
        return torch.where(x > 0, x, 0.01 * x)

    def pair(name, x, first=0, **kwargs):
        x = conv(f'{name}.{first}', x, **kwargs)
        return lrelu(norm(f'{name}.{first + 1}', x))

    def pool(x):
        blocks = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return blocks.amax((3, 5))

    def projected(name, x, stride=1):
        if f'{name}.proj_conv.weight' not in weights:
            return x
        x = conv(f'{name}.proj_conv', x[..., ::stride, ::stride])
        return norm(f'{name}.proj_bn', x)

    def residual(name, x, shortcut):
        y = lrelu(norm(f'{name}.bn1', conv(f'{name}.conv1', x)))
        y = norm(f'{name}.bn2', conv(f'{name}.conv2', y))
        return lrelu(y + shortcut)

    def blocks(name, x):
        for i in 1, 2, 3:
            x = residual(f'{name}.block{i}.convs', x, x)
        return x

    def stage(number, x):
        name = f'layer{number}_1'
        e = lrelu(norm(f'{name}.layer1.bn1', conv(f'{name}.layer1.conv1', x)))
        y = conv(f'{name}.layer2.conv2', pool(e))
        y = norm(f'{name}.layer2.bn2', y) + projected(name, x, 2)
        return e, blocks(f'layer{number}_2', lrelu(y))

    def atrous(i, rate, x):
        name = f'dconv_pp.aspp{i}.atrous_conv'
        x = pair(name, x, dilation=rate, groups=x.shape[1])
        return pair(name, x, first=2)

    e0 = pair('layer0', x)
    e1 = pool(e0)
    l1 = blocks('layer1', pool(e1))
    e2, l2 = stage(2, l1)
    e3, l3 = stage(3, l2)

    mean = l3.flatten(2).mean(2)[:, :, None, None]
    mean = pair('dconv_pp.global_avg_pool', mean, first=1)
    branches = [
        pair('dconv_pp.aspp1.atrous_conv', l3),
        *(atrous(i, rate, l3) for i, rate in ((2, 6), (3, 12), (4, 18))),
        mean + torch.zeros_like(l3),
    ]
    y = pair('dconv_pp.bottleneck_conv', torch.cat(branches, 1))

    for (step, *_), up, guide, skip in zip(
        STEPS, ups, (e3, e2, e1, e0), (l2, l1, e1, x), strict=True
    ):
        y = up(y, guide) + pair(f'short{step - 1}', skip)
        for name in 'dconv', 'dconv1':
            name = f'decoder_layer{step}.{name}'
            y = residual(f'{name}.dep_sep_conv', y, projected(name, y))
    return conv('pred.1', pair('pred.0', y))
