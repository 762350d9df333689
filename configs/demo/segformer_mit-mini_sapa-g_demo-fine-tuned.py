# The same model, trained with bilinear interpolation, then fine-tuned with the
# upsampler for a quarter of the iterations.
_base_ = './segformer_mit-mini_sapa-g_demo.py'

# `make compare` trains it.
load_from = 'work_dirs/comparison/seed-0/bilinear/iter_6000.pth'

max_iters = 1500
optim_wrapper = dict(optimizer=dict(lr=6e-4))
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
