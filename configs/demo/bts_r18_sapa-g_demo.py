# BTS with half of ResNet-18's channels and SAPA-G on the demo's rooms, small
# enough that two CPU cores train it from scratch in five to eight minutes.
_base_ = '../bts/bts_r50_sapa-g_1xb4-50e_nyu-416x544.py'

data_root = 'data/demo/nyu'

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        depth=18,
        stem_channels=32,
        base_channels=32,
        # Nothing pretrained, so that nothing may be frozen either.
        freeze=False,
        init_cfg=None,
    ),
    decode_head=dict(in_channels=[32, 32, 64, 128, 256], num_features=64),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmsapa.LoadDepthAnnotation'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    num_workers=1,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
# The rooms have no frame.
val_evaluator = dict(crop_type=None)
test_evaluator = val_evaluator

max_iters = 1200
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=40),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=False,
        begin=40,
        end=max_iters,
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(
        _delete_=True,
        type='CheckpointHook',
        by_epoch=False,
        interval=50,
        max_keep_ckpts=2,
    ),
)
randomness = dict(seed=0)
