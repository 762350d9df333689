"""What the papers published, where it is found in OpenMMLab, and reasons.

Published figures are written as they were printed, because their digits
count: the baseline's in whole, every other's as what it adds to that; in
millions of parameters and 10^9 multiply-accumulates. Ours stand nowhere: they
are counted. They are those of SAPA's paper and of the README of its code, but
for FADE's and DySample's, from the READMEs of theirs. Of DySample's only those
in Panoptic FPN are of as many upsamplers as here.

A model with a slot is one entry of MODELS.
"""

from typing import NamedTuple


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
SAPA_G = tuple(
    Reason('sapa-g', column, REPEATED, like='sapa-b')
    for column in ('params', 'flops')
)


def uncounted(pixels, *upsamplers):
    """Reasons why get_flops.py counts less than there is.

    Args:
        pixels (int): Of all maps that are upsampled, of 256 channels.
        *upsamplers (str): Those with a published figure.
    """
    products = {
        'indexnet': ('indices and numbers', 4 * 256),
        'a2u': ('affinities', 256 + 4 * 9),
        'fade': ('the gate and what it mixes', 2 * 4 * 256),
    }
    return tuple(
        Reason(
            name,
            'flops',
            f'get_flops.py does not count products of {products[name][0]}, '
            'one by one: with them',
            adds=products[name][1] * pixels,
        )
        for name in upsamplers
    )


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
            'fade': '+.29',
            'sapa-i': '+.00',
            'sapa-b': '+.1',
            'sapa-g': '+.1',
        },
        flops={
            'bilinear': '15.91',
            'carafe': '+1.45',
            'indexnet': '+30.65',
            'a2u': '+.41',
            'fade': '+2.65',
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
            Reason(
                'sapa-i',
                'params',
                'the paper leaves out the affine parameters of its norms: '
                'without them',
                adds=-6 * 4 * 256,
            ),
            *SAPA_G,
            *uncounted(
                3 * 64**2 + 2 * 32**2 + 16**2, 'indexnet', 'a2u', 'fade'
            ),
        ),
    ),
    'maskformer-swin-b': Model(
        title='MaskFormer Swin-B, ADE20K',
        config='maskformer/maskformer_swin-b-in22k-384x384-pre_sapa-g_8xb2-'
        '160k_ade20k-640x640.py',
        slot='decode_head.pixel_decoder',
        baseline='nearest',
        size=(640, 640),
        params={
            'nearest': '102',
            'carafe': '+.22',
            'indexnet': '+6.30',
            'a2u': '+.03',
            'sapa-i': '+.00',
            'sapa-b': '+.05',
            'sapa-g': '+.05',
        },
        flops={
            'nearest': '195',
            'carafe': '+.84',
            'indexnet': '+17.64',
            'a2u': '+.23',
            'sapa-i': '+.43',
            'sapa-b': '+.59',
            'sapa-g': '+.59',
        },
        reasons=(
            *SAPA_G,
            *uncounted(80**2 + 40**2 + 20**2, 'indexnet', 'a2u'),
        ),
        remark="The baseline's FLOPs were counted by its authors, by another "
        'tool on other code: why they are more, we do not know.',
    ),
    'mask2former-swin-b': Model(
        title='Mask2Former Swin-B, ADE20K',
        config='mask2former/mask2former_swin-b-in22k-384x384-pre_sapa-g_8xb2-'
        '160k_ade20k-640x640.py',
        slot='decode_head.pixel_decoder',
        baseline='bilinear',
        size=(640, 640),
        params={
            'bilinear': '107',
            'carafe': '+.07',
            'indexnet': '+2.10',
            'a2u': '+.01',
            'sapa-i': '+.00',
            'sapa-b': '+.02',
            'sapa-g': '+.02',
        },
        flops={
            'bilinear': '223',
            'carafe': '+.63',
            'indexnet': '+13.44',
            'a2u': '+.18',
            'sapa-i': '+.33',
            'sapa-b': '+.45',
            'sapa-g': '+.45',
        },
        reasons=(*SAPA_G, *uncounted(80**2, 'indexnet', 'a2u')),
        remark="The baseline's FLOPs were counted by its authors, by another "
        'tool on other code: why they are more, we do not know, but that '
        "mmengine's leaves out 0.6 G of masked attention.",
    ),
    'upernet-r50': Model(
        title='UPerNet R50, ADE20K',
        config='upernet/upernet_r50_sapa-g_4xb4-160k_ade20k-512x512.py',
        slot='decode_head',
        baseline='bilinear',
        size=(512, 512),
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
            'indexnet': '+6.30',
            'a2u': '+.03',
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
            SAPA_G[0],
        ),
        remark=PROPOSALS,
    ),
    'faster-rcnn-r101': Model(
        title='Faster R-CNN R101 FPN, COCO',
        config='faster_rcnn/faster-rcnn_r101_fpn-sapa-g_1x_coco.py',
        slot='neck',
        baseline='nearest',
        size=(800, 1280),
        remark=PROPOSALS,
    ),
    'mask-rcnn-r50': Model(
        title='Mask R-CNN R50 FPN, COCO',
        config='mask_rcnn/mask-rcnn_r50_fpn-sapa-g_1x_coco.py',
        slot='neck',
        baseline='nearest',
        size=(800, 1280),
        remark=PROPOSALS,
    ),
    'mask-rcnn-r101': Model(
        title='Mask R-CNN R101 FPN, COCO',
        config='mask_rcnn/mask-rcnn_r101_fpn-sapa-g_1x_coco.py',
        slot='neck',
        baseline='nearest',
        size=(800, 1280),
        remark=PROPOSALS,
    ),
    'panoptic-fpn-r50': Model(
        title='Panoptic FPN R50, COCO',
        config='panoptic_fpn/panoptic-fpn_r50_fpn-sapa-g_1x_coco.py',
        slot='neck',
        baseline='nearest',
        size=(800, 1280),
        params={'nearest': '46.0', 'dysample': '+.0246'},
        reasons=(
            Reason(
                'dysample',
                'params',
                'its authors leave out biases: without them',
                adds=-3 * 32,
            ),
        ),
        remark=PROPOSALS,
    ),
    'bts-r50': Slots(
        title='BTS R50, NYU Depth v2',
        channels=((1024, 2048), (512, 512), (256, 128), (64, 128)),
        baseline='nearest',
        params={
            'carafe': '+.41',
            'indexnet': '+44.20',
            'a2u': '+.08',
            'sapa-b': '+.16',
            'sapa-g': '+.25',
        },
        remark='Published baseline: 49.53 M, with nearest.',
    ),
    'a2u-matting-r34': Slots(
        title='A2U matting R34, Composition-1K',
        channels=((256, 256), (128, 128), (64, 64), (64, 64)),
        baseline='bilinear',
        params={
            'carafe': '+.26',
            'indexnet': '+12.26',
            'a2u': '+.02',
            'fade': '+.12',
            'sapa-i': '+0',
            'sapa-b': '+.04',
            'sapa-g': '+.04',
        },
        reasons=(SAPA_G[0],),
        remark='Published baseline: 8.05 M, with bilinear. No form of '
        'IndexNet that we know has the published size.',
    ),
}
