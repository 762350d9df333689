_base_ = './segnet_vgg16_max-unpool_1xb8-50e_horse-256x256.py'

model = dict(decode_head=dict(upsample_cfg=dict(type='sapa', variant='G')))
