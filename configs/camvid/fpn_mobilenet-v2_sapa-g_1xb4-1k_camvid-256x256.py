# The same with Semantic FPN, and SAPA-G in the three steps of its neck.
_base_ = './segformer_mobilenet-v2_sapa-g_1xb4-1k_camvid-256x256.py'

model = dict(
    neck=dict(
        type='mmsapa.SegFPN',
        in_channels=[24, 32, 96, 320],
        out_channels=64,
        num_outs=4,
        upsample_cfg=dict(type='sapa', variant='G'),
    ),
    decode_head=dict(
        _delete_=True,
        type='FPNHead',
        in_channels=[64, 64, 64, 64],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=64,
        num_classes=11,
        dropout_ratio=0.1,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
)
