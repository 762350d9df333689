# SegNet with VGG-16 on SUN RGB-D, as far as the supplement of the SAPA paper
# states it: batch 8, SGD with a constant rate of .01 and a momentum of .9, 200
# epochs, random scaling, cropping and flipping. What it does not state is
# marked "ours".
_base_ = (
    # 'mmseg::' would find no fork of MMSegmentation.
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/default_runtime.py'
)
custom_imports = dict(imports=['mmsapa'], allow_failed_imports=False)

crop_size = (480, 480)  # ours
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=crop_size,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='mmsapa.SegNetVGG',
        depth=16,
        init_cfg=dict(
            type='Pretrained',
            # With batch norms, ours; vgg16-397923af.pth is without.
            checkpoint='https://download.pytorch.org/models/'
            'vgg16_bn-6c64b313.pth',
        ),
    ),
    decode_head=dict(
        type='mmsapa.SegNetHead',
        num_classes=37,
        upsample_cfg=dict(type='max_unpool'),
        # Median-frequency balancing: class_weight='…/class_weights.json'.
        loss_decode=dict(
            type='mmsapa.BalancedCrossEntropyLoss', class_weight=None
        ),
    ),
    # The sizes come from the guides: images need no padding.
    test_cfg=dict(mode='whole'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(  # range and size are ours
        type='RandomResize',
        scale=(640, 480),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(type='mmsapa.SUNRGBDSegDataset', data_root='data/sunrgbd')
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**dataset, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(
            img_path='images/test', seg_map_path='annotations/test'
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='mmsapa.BoundaryIoU'),
]
test_evaluator = val_evaluator

max_iters = 132_200  # 200 epochs of 661
# Decay is ours: as SegNet's authors have it, none on biases and norms.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = []
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=6610
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=6610,
        max_keep_ckpts=3,
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
