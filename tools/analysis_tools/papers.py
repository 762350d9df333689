"""What the papers published, where it is found in OpenMMLab, and reasons.

Published figures are written as they were printed, because their digits
count: the baseline's in whole, every other's as what it adds to that; in
millions of parameters and 10^9 multiply-accumulates. Ours stand nowhere: they
are counted.

A model with a slot is one entry of MODELS.
"""

from typing import NamedTuple

UPSAMPLERS = {
    'nearest': dict(type='nearest'),
    'bilinear': dict(type='bilinear', align_corners=False),
    'carafe': dict(type='carafe'),
    'indexnet': dict(type='indexnet'),
    'a2u': dict(type='a2u'),
    'fade': dict(type='fade'),
    'dysample': dict(type='dysample'),
    'sapa-i': dict(type='sapa', variant='I'),
    'sapa-b': dict(type='sapa', variant='B'),
    'sapa-g': dict(type='sapa', variant='G'),
}


class Reason(NamedTuple):
    """Why a published figure differs; the table tries whether it holds.

    Either ``adds`` brings our figure to the published one, or the published
    one is that of the upsampler ``like``.
    """

    upsampler: str
    column: str  # params or flops
    text: str
    adds: int = 0
    like: str | None = None


class Model(NamedTuple):
    """A model of OpenMMLab with a slot."""

    title: str
    config: str  # below configs/
    slot: str  # the part of cfg.model that takes upsample_cfg
    baseline: str
    size: tuple[int, int]  # of the image, H and W
    params: dict[str, str] = {}
    flops: dict[str, str] = {}
    reasons: tuple[Reason, ...] = ()
    remark: str = ''


class Slots(NamedTuple):
    """The upsamplers of a model that is not in OpenMMLab, by themselves."""

    title: str
    channels: tuple[tuple[int, int], ...]  # of guide and x, stage by stage
    baseline: str
    params: dict[str, str]
    reasons: tuple[Reason, ...] = ()
    remark: str = ''


REPEATED = "the paper repeats SAPA-B's:"

# Mix Transformer B1 at 512x512: channels and pixels of its stages.
_STAGES = ((64, 128**2), (128, 64**2), (320, 32**2), (512, 16**2))
_BIASES = (
    # Patch embedding, and in two blocks a 3x3 convolution of 4C channels.
    sum(pixels * (c + 2 * 4 * c) for c, pixels in _STAGES)
    # In the blocks of three stages what reduces keys and values to 16x16.
    + sum(2 * 16**2 * c for c, _ in _STAGES[:3])
    # The classes.
    + 128**2 * 150
)
_FUSED = 128**2 * 256  # numbers in the fused map

# With random weights, 1000 is what was kept of every image from 400x640 on.
PROPOSALS = 'FLOPs are those with all of the 1000 proposals that may be kept.'

MODELS = {
    'segformer-b1': Model(
        title='SegFormer-B1, ADE20K',
        config='segformer/'
        'segformer_mit-b1_sapa-g_1xb16-160k_ade20k-512x512.py',
        slot='decode_head',
        baseline='bilinear',
        size=(512, 512),
        params={
            'bilinear': '13.74',
            'carafe': '+.44',
            'indexnet': '+12.60',
            'a2u': '+.06',
            'sapa-i': '+0',
            'sapa-b': '+.1',
            'sapa-g': '+.1',
        },
        flops={
            'bilinear': '15.91',
            'carafe': '+1.45',
            'indexnet': '+30.65',
            'a2u': '+.41',
            'sapa-i': '+.75',
            'sapa-b': '+1.02',
            'sapa-g': '+1.02',
        },
        reasons=(
            # NVlabs/SegFormer, mmseg/models/decode_heads: decode_head.py
            # makes conv_seg, segformer_head.py has its own linear_pred.
            Reason(
                'bilinear',
                'params',
                "its authors' head also carries a conv_seg of 128 to 150 "
                'channels that is never called: with it',
                adds=128 * 150 + 150,
            ),
            # NVlabs/SegFormer, tools/get_flops.py: mmcv 1.2.7's counter,
            # which knows no LayerNorm yet (its pull request 897), and what
            # attention multiplies.
            Reason(
                'bilinear',
                'flops',
                "its authors' counter adds the biases of convolutions, ReLU "
                'and BN to the products: with them',
                adds=_BIASES + _FUSED + 2 * _FUSED,
            ),
            Reason('sapa-g', 'params', REPEATED, like='sapa-b'),
            Reason('sapa-g', 'flops', REPEATED, like='sapa-b'),
        ),
    ),
    'faster-rcnn-r50': Model(
        title='Faster R-CNN R50 FPN, COCO',
        config='faster_rcnn/faster-rcnn_r50_fpn-sapa-g_1x_coco.py',
        slot='neck',
        baseline='nearest',
        size=(800, 1280),
        params={
            'nearest': '41.53',
            'carafe': '+.22',
            'sapa-i': '+0',
            'sapa-b': '+.05',
            'sapa-g': '+.05',
        },
        reasons=(
            # As mmcv's own counter does, of those days: requires_grad only.
            Reason(
                'nearest',
                'params',
                'the frozen stem and first stage of ResNet were left out: '
                'without them',
                # conv1 and bn1; three blocks, the first with a shortcut.
                adds=-(
                    3 * 49 * 64
                    + 2 * 64
                    + 64 * (64 + 576 + 256)
                    + 64 * 256
                    + 2 * 64 * (256 + 576 + 256)
                    + 3 * 2 * (64 + 64 + 256)
                    + 2 * 256
                ),
            ),
            Reason('sapa-g', 'params', REPEATED, like='sapa-b'),
        ),
        remark=PROPOSALS,
    ),
    'bts-r50': Slots(
        title='BTS R50, NYU Depth v2',
        channels=((1024, 2048), (512, 512), (256, 128), (64, 128)),
        baseline='nearest',
        params={'sapa-b': '+.16', 'sapa-g': '+.25'},
        remark='Published baseline: 49.53 M, with nearest.',
    ),
    'a2u-matting-r34': Slots(
        title='A2U matting R34, Composition-1K',
        channels=((256, 256), (128, 128), (64, 64), (64, 64)),
        baseline='bilinear',
        params={'sapa-i': '+0', 'sapa-b': '+.04', 'sapa-g': '+.04'},
        reasons=(Reason('sapa-g', 'params', REPEATED, like='sapa-b'),),
        remark='Published baseline: 8.05 M, with bilinear.',
    ),
}
