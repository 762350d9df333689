_base_ = './segnet_vgg16_max-unpool_1xb8-200e_camvid-360x480.py'

model = dict(decode_head=dict(upsample_cfg=dict(type='sapa', variant='G')))
