_base_ = './a2u-matting_r34_bilinear_1xb16-30e_comp1k-512x512.py'

model = dict(decode_head=dict(upsample_cfg=dict(type='sapa', variant='B')))
