# SegFormer with half of MiT-B0, one block per stage, and SAPA-G on the demo's
# scenes, small enough that one CPU core trains it from scratch in five to ten
# minutes: the model of tools/analysis_tools/compare_upsamplers.py.
_base_ = './segformer_mit-b1_sapa-g_demo.py'

model = dict(
    backbone=dict(embed_dims=32, num_layers=[1, 1, 1, 1]),
    decode_head=dict(in_channels=[32, 64, 160, 256], channels=64),
)

# In so short a training many small steps achieve more than few large ones.
# After 2000 of them classes are still confused, and figures tell little.
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=2)
max_iters = 6000
optim_wrapper = dict(optimizer=dict(lr=2e-3, fused=True))
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
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=500))
evaluators = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='mmsapa.BoundaryIoU'),
]
val_evaluator = evaluators
test_evaluator = evaluators
