# The demo's model with bilinear interpolation, on 20 photographs and drawn
# scenes, tested on 7 photographs: what two CPU cores train from scratch in
# minutes. tools/dataset_converters/alphamatting.py makes the data. Model and
# schedule are ours.
_base_ = '../demo/a2u-matting_r34_sapa-g_demo.py'

data_root = 'data/alphamatting'

model = dict(
    decode_head=dict(upsample_cfg=dict(_delete_=True, type='bilinear'))
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
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(bg_path='backgrounds'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

max_iters = 600
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
