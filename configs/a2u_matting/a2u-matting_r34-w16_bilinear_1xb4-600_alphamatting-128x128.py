# A2U matting with a quarter of the channels on 20 photographs and the demo's
# scenes, tested on 7 photographs: what two CPU cores train from scratch in
# minutes. tools/dataset_converters/alphamatting.py makes the data. Model and
# schedule are ours.
_base_ = './a2u-matting_r34_bilinear_1xb16-30e_comp1k-512x512.py'

data_root = 'data/alphamatting'

model = dict(
    # Nothing pretrained.
    backbone=dict(base_channels=16, init_cfg=None),
    # Dropout would slow so short a schedule.
    decode_head=dict(channels=16, dropout_ratio=0.0),
)

train_pipeline = [
    dict(type='mmsapa.LoadForeground'),
    dict(type='mmsapa.LoadAlpha'),
    dict(type='mmsapa.LoadBackground'),
    dict(type='mmsapa.RandomMattingAffine'),
    dict(type='mmsapa.RandomForegroundFlip', prob=0.5),
    dict(type='mmsapa.GenerateTrimap', kernel_size=(1, 29)),
    dict(type='mmsapa.CropAroundUnknown', crop_size=128),
    dict(type='mmsapa.JitterForeground'),
    dict(type='mmsapa.CompositeImage'),
    dict(type='mmsapa.PackMattingInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(bg_path='backgrounds'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

max_iters = 600
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    # The encoder learns as fast as all else.
    paramwise_cfg=None,
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=40),
    dict(
        type='CosineAnnealingLR',
        eta_min=2e-5,
        by_epoch=False,
        begin=40,
        end=max_iters,
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
auto_scale_lr = dict(base_batch_size=4)
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
