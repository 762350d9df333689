# BTS with MobileNetV2 on the 1,449 labeled frames of NYU Depth v2 at half
# size: what two CPU cores train in minutes. Protocol and schedule are ours.
_base_ = 'bts_r50_nearest_1xb4-50e_nyu-416x544.py'

crop_size = (192, 256)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(0, 1, 2, 4, 6),
        norm_cfg=dict(type='BN'),
        init_cfg=dict(type='Pretrained', checkpoint='mmcls://mobilenet_v2'),
    ),
    decode_head=dict(in_channels=[16, 24, 32, 96, 320], num_features=64),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmsapa.LoadDepthAnnotation', depth_rescale_factor=1e-3),
    # The frame without depth.
    dict(type='mmsapa.FixedCrop', rows=(23, 236), columns=(22, 304)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmsapa.RandomGammaColor'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    _delete_=True,
    type='mmsapa.NYUDepthDataset',
    data_root='data/nyu_labeled_half',
)
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(
            img_path='images/train', depth_map_path='annotations/train'
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(
            img_path='images/test', depth_map_path='annotations/test'
        ),
        test_mode=True,
        pipeline={{_base_.test_pipeline}},
    ),
)
test_dataloader = val_dataloader

max_iters = 600
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=0.01),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=30),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=False,
        begin=30,
        end=max_iters,
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    checkpoint=dict(
        _delete_=True,
        type='CheckpointHook',
        by_epoch=False,
        interval=50,
        max_keep_ckpts=2,
    ),
)
randomness = dict(seed=0)
