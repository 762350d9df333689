# SegNet with VGG-16 on CamVid, by the same protocol.
_base_ = './segnet_vgg16_max-unpool_1xb8-200e_sunrgbd-480x480.py'

crop_size = (360, 480)
model = dict(
    data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=11)
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(480, 360),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
dataset = dict(type='mmsapa.CamVidDataset', data_root='data/camvid')
train_dataloader = dict(dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(
            img_path='images/val', seg_map_path='annotations/val'
        ),
    )
)
test_dataloader = dict(dataset=dataset)

max_iters = 9_200  # 200 epochs of 46
train_cfg = dict(max_iters=max_iters, val_interval=460)
default_hooks = dict(checkpoint=dict(interval=460))
