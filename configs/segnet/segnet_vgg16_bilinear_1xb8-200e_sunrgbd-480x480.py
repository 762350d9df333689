_base_ = './segnet_vgg16_max-unpool_1xb8-200e_sunrgbd-480x480.py'

model = dict(decode_head=dict(upsample_cfg=dict(type='bilinear')))
