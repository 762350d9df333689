# UPerNet R50 with SAPA-G in its top-down path on ADE20K: all else unchanged.
_base_ = (
    # 'mmseg::' would find no fork of MMSegmentation.
    __import__('mmseg').__path__[0]
    + '/.mim/configs/upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
)
custom_imports = dict(imports=['mmsapa'], allow_failed_imports=False)

model = dict(
    decode_head=dict(
        type='mmsapa.UPerHead', upsample_cfg=dict(type='sapa', variant='G')
    )
)

# The library has no such entry; its batches are of 16 images, too.
auto_scale_lr = dict(enable=False, base_batch_size=16)
