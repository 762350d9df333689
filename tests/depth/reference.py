"""BTS's decoder a second time, from its formulas and the release's names.

Plain functions over a dict of weights; they share nothing with the head.
"""

import math

import torch
import torch.nn.functional as F

DILATIONS = (3, 6, 12, 18, 24)
# Channels of the chains of 1x1 convolutions, in parts of F = 512.
CHAINS = {
    8: (128, 128, 64, 32, 16, 8),
    4: (128, 64, 32, 16, 8),
    2: (64, 32, 16, 8),
    1: (32, 16, 8),
}


def decoder_weights(channels, features=512):
    """Random weights of the release's decoder, by its names.

    The lists of channels are those for 512 features; others scale them.
    """
    s0, s1, s2, s3, d = channels
    weights = {}

    def scaled(number):
        return number * features // 512

    def conv(name, c_in, c_out, side=3):
        shape = (c_out, c_in, side, side)
        bound = math.sqrt(c_in * side * side)
        weights[f'decoder.{name}.weight'] = torch.randn(shape) / bound

    def norm(name, c):
        for key, value in dict(
            weight=torch.rand(c) + 0.5,
            bias=torch.randn(c) / 4,
            running_mean=torch.randn(c) / 4,
            running_var=torch.rand(c) + 0.5,
            num_batches_tracked=torch.tensor(7),
        ).items():
            weights[f'decoder.{name}.{key}'] = value

    def chain(name, widths, last):
        widths = [scaled(width) for width in widths]
        # No layer has fewer than 8 outputs but the last.
        widths = [widths[0], *(w for w in widths[1:] if w >= 8)]
        for a, b in zip(widths, widths[1:]):
            conv(f'{name}.inter_{a}_{b}.0', a, b, 1)
        end, outputs = last
        conv(f'{name}.{end}', widths[-1], outputs, 1)

    conv('upconv5.conv', d, scaled(512))
    norm('bn5', scaled(512))
    conv('conv5.0', scaled(512) + s3, scaled(512))
    conv('upconv4.conv', scaled(512), scaled(256))
    norm('bn4', scaled(256))
    conv('conv4.0', scaled(256) + s2, scaled(256))
    norm('bn4_2', scaled(256))
    for i, rate in enumerate(DILATIONS):
        inputs = scaled(256) + (s2 + i * scaled(128) if i else 0)
        atrous = f'daspp_{rate}.atrous_conv'
        if i:
            norm(f'{atrous}.first_bn', inputs)
        conv(f'{atrous}.aconv_sequence.1', inputs, scaled(256), 1)
        norm(f'{atrous}.aconv_sequence.2', scaled(256))
        conv(f'{atrous}.aconv_sequence.4', scaled(256), scaled(128))
    conv('daspp_conv.0', scaled(896), scaled(128))
    for size in (8, 4, 2):
        last = ('plane_params', 3)
        chain(f'reduc{size}x{size}.reduc', CHAINS[size], last)
    conv('upconv3.conv', scaled(128), scaled(128))
    norm('bn3', scaled(128))
    conv('conv3.0', scaled(128) + s1 + 1, scaled(128))
    conv('upconv2.conv', scaled(128), scaled(64))
    norm('bn2', scaled(64))
    conv('conv2.0', scaled(64) + s0 + 1, scaled(64))
    conv('upconv1.conv', scaled(64), scaled(32))
    chain('reduc1x1.reduc', CHAINS[1], ('final.0', 1))
    conv('conv1.0', scaled(32) + 4, scaled(32))
    conv('get_depth.0', scaled(32), 1)
    return weights


def nearest(x, guide=None):
    """Upsample by two."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def decode(weights, maps, max_depth, training=False, ups=(nearest,) * 4):
    """The five outputs of the decoder."""
    s0, s1, s2, s3, d = maps
    up5, up4, up3, up2 = ups

    def conv(name, x, dilation=1):
        weight = weights[f'decoder.{name}.weight']
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, padding=padding, dilation=dilation)

    def elu(name, x):
        return F.elu(conv(name, x))

    def norm(name, x, eps=1.1e-5):
        mean, var, weight, bias = (
            weights[f'decoder.{name}.{key}'].view(1, -1, 1, 1)
            for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        if training:
            var, mean = torch.var_mean(
                x, (0, 2, 3), correction=0, keepdim=True
            )
        return (x - mean) / (var + eps).sqrt() * weight + bias

    def dense(rate, x):
        name = f'daspp_{rate}.atrous_conv'
        if rate > 3:
            x = norm(f'{name}.first_bn', x)
        x = conv(f'{name}.aconv_sequence.1', x.relu())
        x = norm(f'{name}.aconv_sequence.2', x, 1e-5).relu()
        return conv(f'{name}.aconv_sequence.4', x, rate)

    def chain(name, x):
        inner = [
            key.removeprefix('decoder.').removesuffix('.weight')
            for key in weights
            if key.startswith(f'decoder.{name}.inter_')
        ]
        for key in inner:
            x = elu(key, x)
        last = 'plane_params' if name != 'reduc1x1.reduc' else 'final.0'
        return conv(f'{name}.{last}', x)

    def planes(k, x):
        a, b, c = chain(f'reduc{k}x{k}.reduc', x).sigmoid().unbind(1)
        return depths_of_planes(a, b, c, k, max_depth) / max_depth

    u5 = norm('bn5', elu('upconv5.conv', up5(d, s3)))
    i5 = elu('conv5.0', torch.cat([u5, s3], 1))
    u4 = norm('bn4', elu('upconv4.conv', up4(i5, s2)))
    c4 = torch.cat([u4, s2], 1)
    i4 = norm('bn4_2', elu('conv4.0', c4))
    a3 = dense(3, i4)
    a6 = dense(6, torch.cat([c4, a3], 1))
    a12 = dense(12, torch.cat([c4, a3, a6], 1))
    a18 = dense(18, torch.cat([c4, a3, a6, a12], 1))
    a24 = dense(24, torch.cat([c4, a3, a6, a12, a18], 1))
    f8 = elu('daspp_conv.0', torch.cat([i4, a3, a6, a12, a18, a24], 1))
    z8 = planes(8, f8)
    u3 = norm('bn3', elu('upconv3.conv', up3(f8, s1)))
    i3 = elu('conv3.0', torch.cat([u3, s1, z8[:, :, ::4, ::4]], 1))
    z4 = planes(4, i3)
    u2 = norm('bn2', elu('upconv2.conv', up2(i3, s0)))
    i2 = elu('conv2.0', torch.cat([u2, s0, z4[:, :, ::2, ::2]], 1))
    z2 = planes(2, i2)
    u1 = elu('upconv1.conv', nearest(i2))
    r1 = chain('reduc1x1.reduc', u1).sigmoid()
    i1 = elu('conv1.0', torch.cat([u1, r1, z2, z4, z8], 1))
    return z8, z4, z2, r1, max_depth * conv('get_depth.0', i1).sigmoid()


def depths_of_planes(a, b, c, k, max_depth):
    """Depths of k x k pixels for each plane, a pixel of the cell at a time.

    a, b and c are after the sigmoid, of shape [N, H, W].
    """
    theta, phi, n4 = math.pi / 3 * a, 2 * math.pi * b, max_depth * c
    n1, n2, n3 = theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()
    n, h, w = a.shape
    out = a.new_empty(n, 1, h * k, w * k)
    for row in range(k):
        for column in range(k):
            v, u = ((i - (k - 1) / 2) / k for i in (row, column))
            below = (n1 * u + n2 * v + n3).clamp(min=1e-3)
            out[:, 0, row::k, column::k] = n4 / below
    return out
