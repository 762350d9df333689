"""Models of plain torch that upsample as those of other packages do."""

import torch
import torch.nn.functional as F
from torch import nn

import mmsapa

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def conv(in_channels, out_channels, stride=1):
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)


class UNet(nn.Module):
    """Interpolates in a block's forward; the skip is there before."""

    class Block(nn.Module):
        def __init__(self, channels, skip):
            super().__init__()
            self.conv = conv(channels + skip, skip)

        def forward(self, x, skip):
            x = F.interpolate(x, size=skip.shape[2:], mode='nearest')
            return self.conv(torch.cat([x, skip], dim=1)).relu()

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([conv(3, 4, 2), conv(4, 8, 2)])
        self.stem = conv(3, 3)
        self.up = nn.ModuleList([self.Block(8, 4), self.Block(4, 3)])
        self.classify = nn.Conv2d(3, 2, 1)

    def forward(self, image):
        maps = [self.stem(image)]
        for down in self.down:
            maps.append(down(maps[-1]).relu())
        x = maps.pop()
        for up in self.up:
            x = up(x, maps.pop())
        return self.classify(x)


class FPN(nn.Module):
    """Interpolates in a loop, before the lateral runs; no block has it."""

    def __init__(self, inplace=False):
        super().__init__()
        self.inplace = inplace
        self.down = nn.ModuleList(
            [conv(3, 4, 2), conv(4, 5, 2), conv(5, 6, 2)]
        )
        self.lateral = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in (4, 5, 6))

    def forward(self, image):
        maps = [image]
        for down in self.down:
            maps.append(down(maps[-1]).relu())
        x = self.lateral[2](maps[3])
        out = [x]
        for i in (1, 0):
            x = F.interpolate(
                x, scale_factor=2, mode='bilinear', align_corners=False
            )
            lateral = self.lateral[i](maps[i + 1])
            if self.inplace:
                lateral += x
                x = lateral
            else:
                x = x + lateral
            out.append(x)
        return out


class Shared(nn.Module):
    """One nn.Upsample for all steps, and padding, as in many a U-Net."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([conv(3, 4, 2), conv(4, 4, 2)])
        self.up = nn.Upsample(
            scale_factor=2, mode='bilinear', align_corners=False
        )
        self.merge = nn.ModuleList([conv(8, 4), conv(7, 2)])

    def forward(self, image):
        fine = self.down[0](image).relu()
        x = self.down[1](fine[..., : fine.shape[-2] // 2 * 2, :]).relu()
        for merge, skip in zip(self.merge, (fine, image)):
            x = self.up(x)
            below, right = (a - b for a, b in zip(skip.shape[2:], x.shape[2:]))
            x = F.pad(x, [right // 2, right - right // 2, 0, below])
            x = merge(torch.cat([skip, x], 1))
        return x


class Fuse(nn.Module):
    """All levels to the finest one at once, as SegFormer's head."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([conv(3, 4, 2), conv(4, 4, 2)])
        self.fuse = nn.Conv2d(12, 2, 1)

    def forward(self, image, labels=None):
        maps = [image.repeat(1, 2, 1, 1)[:, :4]]
        for down in self.down:
            below = maps[-1][:, :3] if len(maps) == 1 else maps[-1]
            maps.append(down(below).relu())
        maps = [
            F.interpolate(x, size=maps[0].shape[2:], mode='bilinear')
            for x in maps
        ]
        out = self.fuse(torch.cat(maps[::-1], dim=1))
        return F.interpolate(out, scale_factor=2, mode='bilinear')


class Through(nn.Module):
    """The upsampled map goes into a convolution first; one step does not."""

    def __init__(self):
        super().__init__()
        self.down = conv(3, 4, 2)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), conv(4, 3))

    def forward(self, image):
        return image + self.up(self.down(image).relu())


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = UNet()

    def forward(self, image):
        return self.part(image)


def close(out, expected, **kwargs):
    scale = max(x.abs().max() for x in flat(expected))
    torch.testing.assert_close(
        out, expected, rtol=0, atol=2e-2 * scale.item(), **kwargs
    )


def flat(out):
    return [out] if isinstance(out, torch.Tensor) else out


def put(model, upsampler='sapa-b', **kwargs):
    return mmsapa.use_upsampler(
        model, upsampler, IMAGE, verbose=False, **kwargs
    )


def stir(model):
    """Give the layers weights with which they are no interpolation."""
    for p in model.upsamplers.parameters():
        nn.init.normal_(p)
    return model
