_base_ = './segformer_mit-b1_sapa-g_1xb16-160k_ade20k-512x512.py'

model = dict(decode_head=dict(upsample_cfg=dict(variant='B')))
