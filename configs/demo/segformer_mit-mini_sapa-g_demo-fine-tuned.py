# The raced model again, but trained with bilinear interpolation before; the
# upsampler is put in and gets used to it in a quarter of the iterations.
_base_ = './segformer_mit-mini_sapa-g_demo.py'

# `make race` trains it.
load_from = 'work_dirs/race/runs/bilinear/seed-0/iter_6000.pth'

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
