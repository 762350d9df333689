"""BTS's decoder with upsampler slots."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import ModuleList
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor

from ..ops.checks import accumulate_dtype
from ..registry import MODELS
from ..upsamplers import UpsampleSlot
from .planar_guidance import local_planar_guidance, to_plane

RATES = (3, 6, 12, 18, 24)  # of the dense ASPP
XAVIER = dict(type='Xavier', layer='Conv2d', distribution='uniform')


@MODELS.register_module()
class BTSHead(BaseDecodeHead):
    """Decoder of BTS with any upsample layer in four of its five steps.

    `From Big to Small: Multi-Scale Local Planar Guidance for Monocular Depth
    Estimation <https://arxiv.org/abs/1907.10326>`_, with the sizes of its
    PyTorch release. A step upsamples a map at its own width, guided by the
    encoder's map that the result is concatenated with after a convolution.
    The last step has no such map and stays nearest.

    Args:
        in_channels (Sequence[int]): Channels of the encoder's five maps, of
            strides 2, 4, 8, 16 and 32. Default: those of ResNet-50 with its
            stem's, :class:`StemResNet`.
        num_features (int): Width of the decoder, a multiple of 16.
            Default: 512.
        max_depth (float): Largest depth that is predicted, in meters.
            Default: 10, for NYU Depth v2.
        upsample_cfg (dict, optional): The layer of the first four steps, as
            in :class:`mmsapa.upsamplers.UpsampleSlot`. Default: None, which
            is BTS's nearest interpolation.
        reference_focal (float, optional): Depths are multiplied by the
            ``focal`` of an image's metainfo over this, both in pixels. BTS
            takes 715.0873 for KITTI. Default: None, without.
        loss_decode (dict, optional): Config of the loss. Default: None, which
            is :class:`SILogLoss`.
        init_cfg (dict, optional): Default: None, which is Xavier, uniform,
            for the convolutions. Upsample layers keep their own
            initialization.

    Raises:
        ValueError: If there are not five maps, ``num_features`` is not a
            multiple of 16, or the upsample layer does not fit, as SAPA-I,
            which needs as many channels in guide and map.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (64, 256, 512, 1024, 2048),
        num_features: int = 512,
        max_depth: float = 10.0,
        upsample_cfg: dict | None = None,
        reference_focal: float | None = None,
        loss_decode: dict | None = None,
        init_cfg: dict | None = None,
    ):
        if len(in_channels) != 5 or num_features < 16 or num_features % 16:
            raise ValueError(
                'BTSHead: expected the channels of five maps and '
                'num_features, a multiple of 16, got in_channels='
                f'{list(in_channels)} and num_features={num_features}.'
            )
        f = num_features
        super().__init__(
            in_channels=in_channels,
            channels=f // 16,
            num_classes=1,
            threshold=0.0,  # of segmentation; None would warn
            dropout_ratio=0,
            in_index=[0, 1, 2, 3, 4],
            input_transform='multiple_select',
            loss_decode=loss_decode or dict(type='mmsapa.SILogLoss'),
            init_cfg=init_cfg or XAVIER,
        )
        del self.conv_seg  # the parent's classifier
        self.max_depth = max_depth
        self.reference_focal = reference_focal
        s0, s1, s2, s3, d = in_channels

        upsample_cfg = upsample_cfg or dict(type='nearest')
        self.upsamplers = ModuleList(
            UpsampleSlot(upsample_cfg, x, guide)
            for x, guide in ((d, s3), (f, s2), (f // 4, s1), (f // 4, s0))
        )
        # 1/16
        self.up_conv5, self.norm5 = _conv(d, f), _norm(f)
        self.conv5 = _conv(f + s3, f)
        # 1/8
        self.up_conv4, self.norm4 = _conv(f, f // 2), _norm(f // 2)
        self.conv4 = _conv(f // 2 + s2, f // 2)
        self.norm4_merged = _norm(f // 2)
        self.aspp = nn.ModuleDict(
            {
                str(rate): _dilated_conv(
                    f // 2 + (s2 + i * f // 4 if i else 0), f, rate, norm=i > 0
                )
                for i, rate in enumerate(RATES)
            }
        )
        self.conv_aspp = _conv(f // 2 + len(RATES) * f // 4, f // 4)
        self.reduce8 = _reduction(f // 4, f // 4, 3)
        # 1/4
        self.up_conv3, self.norm3 = _conv(f // 4, f // 4), _norm(f // 4)
        self.conv3 = _conv(f // 4 + s1 + 1, f // 4)
        self.reduce4 = _reduction(f // 4, f // 8, 3)
        # 1/2
        self.up_conv2, self.norm2 = _conv(f // 4, f // 8), _norm(f // 8)
        self.conv2 = _conv(f // 8 + s0 + 1, f // 8)
        self.reduce2 = _reduction(f // 8, f // 16, 3)
        # 1/1
        self.up_conv1 = _conv(f // 8, f // 16)
        self.reduce1 = _reduction(f // 16, f // 32, 1)
        self.conv1 = _conv(f // 16 + 4, f // 16)
        self.conv_depth = nn.Conv2d(f // 16, 1, 3, padding=1, bias=False)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Predict depths.

        Args:
            inputs (Sequence[Tensor]): As in :meth:`decode`.

        Returns:
            Tensor[N, 1, H, W]: Depths in meters, before ``reference_focal``.
        """
        return self.decode(inputs)[-1]

    def decode(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Predict depths, and return what guides them.

        Args:
            inputs (Sequence[Tensor]): The encoder's five maps of an image of
                size H, W; of strides 2, 4, 8, 16 and 32.

        Returns:
            tuple[Tensor[N, 1, H, W], ...]: The depths of the planes at 1/8,
            1/4 and 1/2 of the resolution, over ``max_depth``; the reduction
            at full resolution, from 0 to 1; and the depths in meters, at
            least in float32.

        Raises:
            ValueError: If H or W is not a multiple of 32.
        """
        s0, s1, s2, s3, d = maps = self._transform_inputs(inputs)
        _check_sizes(maps)
        up5, up4, up3, up2 = self.upsamplers

        d = d.relu()  # changes nothing after a ResNet
        x = self.norm5(self.up_conv5(up5(d, s3)))
        x = self.conv5(torch.cat([x, s3], 1))

        x = self.norm4(self.up_conv4(up4(x, s2)))
        dense = [torch.cat([x, s2], 1)]
        merged = self.norm4_merged(self.conv4(dense[0]))
        for i, conv in enumerate(self.aspp.values()):
            dense.append(conv(torch.cat(dense, 1) if i else merged))
        x = self.conv_aspp(torch.cat([merged, *dense[1:]], 1))
        z8 = self._plane_depth(self.reduce8(x), 8)

        x = self.norm3(self.up_conv3(up3(x, s1)))
        x = self.conv3(torch.cat([x, s1, z8[..., ::4, ::4]], 1))
        z4 = self._plane_depth(self.reduce4(x), 4)

        x = self.norm2(self.up_conv2(up2(x, s0)))
        x = self.conv2(torch.cat([x, s0, z4[..., ::2, ::2]], 1))
        z2 = self._plane_depth(self.reduce2(x), 2)

        x = self.up_conv1(F.interpolate(x, scale_factor=2, mode='nearest'))
        r1 = self.reduce1(x).sigmoid()
        x = self.conv1(torch.cat([x, r1, z2, z4, z8], 1))
        depth = self.max_depth * _widened(self.conv_depth(x)).sigmoid()
        return z8, z4, z2, r1, depth

    def _plane_depth(self, logits, scale):
        plane = to_plane(_widened(logits), self.max_depth)
        depth = local_planar_guidance(*plane, scale)
        return (depth / self.max_depth).to(logits.dtype)

    def loss_by_feat(
        self, depth: Tensor, batch_data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            depth (Tensor[N, 1, H, W]): Of :meth:`forward`.
            batch_data_samples (list[SegDataSample]): With ``gt_depth_map``.

        Returns:
            dict[str, Tensor]: Losses by their names.
        """
        samples = batch_data_samples
        depth = self._at_focal(depth, [sample.metainfo for sample in samples])
        truth = torch.stack([sample.gt_depth_map.data for sample in samples])
        losses = self.loss_decode
        if not isinstance(losses, nn.ModuleList):
            losses = [losses]
        return {loss.loss_name: loss(depth, truth) for loss in losses}

    def predict_by_feat(
        self, depth: Tensor, batch_img_metas: list[dict]
    ) -> Tensor:
        """Finish a prediction.

        Args:
            depth (Tensor[N, 1, H, W]): Of :meth:`forward`.
            batch_img_metas (list[dict]): Metainfo of the images.

        Returns:
            Tensor[N, 1, H, W]: Depths in meters, of the padded images.
        """
        depth = self._at_focal(depth, batch_img_metas)
        return super().predict_by_feat(depth, batch_img_metas)

    def _at_focal(self, depth, metas):
        if self.reference_focal is None:
            return depth
        if any('focal' not in meta for meta in metas):
            raise ValueError(
                'BTSHead: reference_focal is set and expects each image to '
                "have its focal length, got metainfo without 'focal'; add it "
                'to the meta_keys of PackSegInputs, or leave reference_focal '
                'out.'
            )
        focal = depth.new_tensor([meta['focal'] for meta in metas])
        return depth * (focal / self.reference_focal).view(-1, 1, 1, 1)


def _conv(in_channels, out_channels):
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.ELU())


def _norm(channels, eps=1.1e-5):
    return nn.BatchNorm2d(channels, eps, momentum=0.01)


def _dilated_conv(in_channels, features, rate, norm):
    """One of the dense ASPP; the first has no norm before it."""
    wide, narrow = features // 2, features // 4
    return nn.Sequential(
        _norm(in_channels) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(in_channels, wide, 1, bias=False),
        _norm(wide, 1e-5),
        nn.ReLU(),
        nn.Conv2d(wide, narrow, 3, 1, rate, rate, bias=False),
    )


def _reduction(in_channels, channels, out_channels):
    """A chain of 1x1 convolutions, each half as wide, down to 8 channels."""
    layers = []
    while channels >= 8:
        conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        layers += [conv, nn.ELU()]
        in_channels, channels = channels, channels // 2
    layers.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
    return nn.Sequential(*layers)


def _widened(x):
    # Half precision has too few digits for planes and depths.
    return x.to(accumulate_dtype(x.dtype))


def _check_sizes(maps):
    h, w = maps[-1].shape[2:]
    sizes = [tuple(x.shape[2:]) for x in maps]
    if sizes != [(h * s, w * s) for s in (16, 8, 4, 2, 1)]:
        raise ValueError(
            'BTSHead: expected maps of an image whose sides are multiples of '
            f'32, got maps of {sizes}; pad the images: data_preprocessor='
            'dict(size_divisor=32, seg_pad_val=0, test_cfg=dict('
            'size_divisor=32)).'
        )
