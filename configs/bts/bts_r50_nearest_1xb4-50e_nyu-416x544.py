# BTS with ResNet-50 on NYU Depth v2, by the protocol of its PyTorch release:
# the baseline of the SAPA paper.
_base_ = (
    # 'mmseg::' would find no fork of MMSegmentation.
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/default_runtime.py'
)
custom_imports = dict(imports=['mmsapa'], allow_failed_imports=False)

crop_size = (416, 544)
max_depth = 10  # meters
model = dict(
    type='DepthEstimator',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=crop_size,
        seg_pad_val=0,  # a pixel without depth, not one at 255 m
        test_cfg=dict(size_divisor=32),
    ),
    backbone=dict(
        type='mmsapa.StemResNet',
        depth=50,
        init_cfg=dict(
            type='Pretrained',
            # torchvision:// may name newer weights.
            checkpoint='https://download.pytorch.org/models/'
            'resnet50-0676ba61.pth',
        ),
    ),
    decode_head=dict(
        type='mmsapa.BTSHead',
        max_depth=max_depth,
        upsample_cfg=dict(type='nearest'),
    ),
    test_cfg=dict(mode='whole'),
)

# Paths of the lists start at data_prefix.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmsapa.LoadDepthAnnotation', depth_rescale_factor=1e-3),
    # The frame without depth.
    dict(type='mmsapa.FixedCrop', rows=(45, 472), columns=(43, 608)),
    dict(type='RandomRotate', prob=1.0, degree=2.5, seg_pad_val=0),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsapa.RandomGammaColor'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmsapa.LoadDepthAnnotation', depth_rescale_factor=1e-3),
    dict(type='PackSegInputs'),
]
# Of tools/test.py --tta alone: an image and its mirror image.
tta_model = dict(type='mmsapa.DepthTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)],
            # Loaded last, since depth is not flipped in the end either.
            [test_pipeline[1]],
            [test_pipeline[2]],
        ],
    ),
]
dataset = dict(type='mmsapa.NYUDepthDataset', data_root='data/nyu_depth_v2')
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **dataset,
        ann_file='nyudepthv2_train_files_with_gt.txt',
        data_prefix=dict(img_path='sync'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        ann_file='nyudepthv2_test_files_with_gt.txt',
        data_prefix=dict(img_path='official_splits/test'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='mmsapa.DepthMetric', max_depth_eval=max_depth, crop_type='eigen'
)
test_evaluator = val_evaluator
# Pictures of a test share one scale of colors.
visualizer = dict(type='mmsapa.DepthVisualizer', max_depth=max_depth)

max_iters = 302_900  # 50 epochs of 6058
optim_wrapper = dict(
    type='OptimWrapper',
    # With a smaller eps trainings were reported to end in NaN.
    optimizer=dict(type='AdamW', lr=1e-4, eps=1e-3, weight_decay=1e-2),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(decay_mult=0.0))),
)
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=1e-5,
        begin=0,
        end=max_iters + 1,  # the last rate would come a step earlier
        by_epoch=False,
    )
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=500
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
        interval=6058,
        max_keep_ckpts=3,
        # As the release, the best of each measure by itself.
        save_best=[
            *('d1', 'd2', 'd3', 'abs_rel', 'sq_rel'),
            *('rmse', 'rmse_log', 'log10', 'silog'),
        ],
        rule=['greater'] * 3 + ['less'] * 6,
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
auto_scale_lr = dict(enable=False, base_batch_size=4)
