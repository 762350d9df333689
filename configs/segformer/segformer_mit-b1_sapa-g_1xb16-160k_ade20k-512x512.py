# SegFormer-B1 with SAPA-G on ADE20K, by the protocol of the SAPA paper.
_base_ = (
    # 'mmseg::' would find no fork of MMSegmentation.
    __import__('mmseg').__path__[0]
    + '/.mim/configs/segformer/segformer_mit-b1_8xb2-160k_ade20k-512x512.py'
)
custom_imports = dict(imports=['mmsapa'], allow_failed_imports=False)

model = dict(
    decode_head=dict(
        type='mmsapa.SegformerHead',
        upsample_cfg=dict(type='sapa', variant='G'),
        embedding='linear',  # as SegFormer's authors have it
        norm_cfg=dict(type='BN', requires_grad=True),
    )
)

# One GPU holds the whole batch.
train_dataloader = dict(batch_size=16, num_workers=8)
auto_scale_lr = dict(enable=False, base_batch_size=16)

# The test image is resized once more, up to multiples of 32.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    # The ground truth keeps its size.
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
