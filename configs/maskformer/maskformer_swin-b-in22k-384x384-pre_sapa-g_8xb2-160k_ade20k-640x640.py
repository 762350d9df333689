# MaskFormer Swin-B with SAPA-G in its pixel decoder on ADE20K. MMSegmentation
# has it with Swin-S at 512x512; the larger backbone and crop are those of
# MaskFormer's authors, as MMSegmentation has them for Mask2Former.
_base_ = (
    # 'mmseg::' would find no fork of MMSegmentation.
    __import__('mmseg').__path__[0]
    + '/.mim/configs/maskformer/maskformer_swin-s_upernet_8xb2-160k_ade20k-512x512.py'  # noqa: E501
)
custom_imports = dict(imports=['mmsapa'], allow_failed_imports=False)

crop_size = (640, 640)
pretrained = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_base_patch4_window12_384_22k_20220317-e5c09f74.pth'  # noqa: E501
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        pretrain_img_size=384,
        embed_dims=128,
        num_heads=[4, 8, 16, 32],
        window_size=12,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(
        type='mmsapa.MaskFormerHead',
        in_channels=[128, 256, 512, 1024],
        pixel_decoder=dict(
            type='mmsapa.PixelDecoder',
            upsample_cfg=dict(type='sapa', variant='G'),
        ),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(
        type='RandomChoiceResize',
        scales=[640 * x // 10 for x in range(5, 21)],
        resize_type='ResizeShortestEdge',
        max_size=2560,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2560, 640), keep_ratio=True),
    # The ground truth keeps its size.
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# The library has no such entry; its batches are of 16 images, too.
auto_scale_lr = dict(enable=False, base_batch_size=16)
