# A2U matting with ResNet-34, max-pool and bilinear interpolation on
# Composition-1K: the baseline of the SAPA paper.
default_scope = 'mmsapa'
custom_imports = dict(imports=['mmsapa'], allow_failed_imports=False)

crop_size = 512
model = dict(
    type='mmsapa.Mattor',
    data_preprocessor=dict(type='mmsapa.MattingDataPreprocessor'),
    backbone=dict(
        type='mmsapa.MattingResNet',
        depth=34,
        init_cfg=dict(
            type='Pretrained',
            # torchvision:// may name newer weights.
            checkpoint='https://download.pytorch.org/models/'
            'resnet34-b627a593.pth',
        ),
    ),
    decode_head=dict(
        type='mmsapa.A2UHead', upsample_cfg=dict(type='bilinear')
    ),
    loss=dict(type='mmsapa.MattingLoss'),
    # A whole image at once; tile_size=1024 where memory is short.
    test_cfg=dict(tile_size=None),
)

train_pipeline = [
    dict(type='mmsapa.LoadForeground'),
    dict(type='mmsapa.LoadAlpha'),
    dict(type='mmsapa.LoadBackground'),
    dict(type='mmsapa.CompositeForeground', prob=0.5),
    dict(type='mmsapa.RandomSquareResize', size=640, prob=0.25),
    dict(type='mmsapa.RandomMattingAffine'),
    dict(type='mmsapa.RandomForegroundFlip', prob=0.5),
    dict(type='mmsapa.GenerateTrimap', kernel_size=(1, 29)),
    dict(type='mmsapa.CropAroundUnknown', crop_size=crop_size),
    dict(type='mmsapa.JitterForeground'),
    dict(type='mmsapa.CompositeImage'),
    dict(type='mmsapa.PackMattingInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmsapa.LoadTrimap'),
    dict(type='mmsapa.LoadAlpha'),
    dict(type='mmsapa.PackMattingInputs'),
]
dataset = dict(
    type='mmsapa.Composition1kDataset', data_root='data/composition-1k'
)
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(
            fg_path='Training_set/*/fg',
            alpha_path='Training_set/*/alpha',
            bg_path='train2014',
        ),
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
        data_prefix=dict(
            img_path='Test_set/merged',
            alpha_path='Test_set/alpha',
            trimap_path='Test_set/trimaps',
        ),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmsapa.MattingMetric')
test_evaluator = val_evaluator

# 30 epochs, which have 6000 iterations in the release.
epoch, max_iters = 6000, 180_000
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=0.01),
    # All that is not pretrained learns a hundred times faster.
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.01))),
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[20 * epoch, 26 * epoch],
        gamma=0.1,
        by_epoch=False,
    )
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=epoch
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
        interval=epoch,
        max_keep_ckpts=3,
        save_best='SAD',
        rule='less',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='mmsapa.MattingVisualizationHook'),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
sync_bn = 'torch'  # where several GPUs train

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='mmsapa.MattingVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer',
)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
