# SegNet with VGG-16 on Weizmann horses: 50 epochs at a rate of .01, as the
# SAPA authors' rebuttal states; all else is the protocol of SUN RGB-D.
_base_ = './segnet_vgg16_max-unpool_1xb8-200e_sunrgbd-480x480.py'

crop_size = (256, 256)
model = dict(
    data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=2)
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(256, 256),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
dataset = dict(type='mmsapa.WeizmannHorseDataset', data_root='data/horse')
train_dataloader = dict(dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader

max_iters = 1_250  # 50 epochs of 25
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=125))
