_base_ = (
    './mask2former_swin-b-in22k-384x384-pre_sapa-g_8xb2-160k_ade20k-640x640.py'
)

model = dict(
    decode_head=dict(pixel_decoder=dict(upsample_cfg=dict(variant='B')))
)
