# SegFormer-B1 with SAPA-G on the demo's scenes, small enough that two CPU
# cores train it from scratch in about eight minutes.
_base_ = '../segformer/segformer_mit-b1_sapa-g_1xb16-160k_ade20k-512x512.py'

data_root = 'data/demo/ade/ADEChallengeData2016'
crop_size = (128, 128)
metainfo = dict(
    classes=(
        'ground',
        'disc',
        'ring',
        'triangle',
        'cross',
        'star',
        'bar',
        'spiral',
    ),
    palette=[
        [64, 64, 64],
        [86, 180, 233],
        [230, 159, 0],
        [0, 158, 115],
        [213, 94, 0],
        [240, 228, 66],
        [0, 114, 178],
        [204, 121, 167],
    ],
)

model = dict(
    data_preprocessor=dict(size=crop_size),
    # Nothing pretrained; regularisation would slow so short a schedule.
    backbone=dict(init_cfg=None, drop_path_rate=0.0),
    decode_head=dict(num_classes=8, dropout_ratio=0.0),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25],
        direction=['horizontal', 'vertical'],
    ),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# ADE20KDataset knows the names of ADE20K's classes only.
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=metainfo,
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(**dataset, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    dataset=dict(**dataset, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

max_iters = 700
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
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
    checkpoint=dict(interval=50, max_keep_ckpts=2),
)
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
