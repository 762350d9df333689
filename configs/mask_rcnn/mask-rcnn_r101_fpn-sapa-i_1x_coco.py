_base_ = './mask-rcnn_r101_fpn-sapa-g_1x_coco.py'

model = dict(neck=dict(upsample_cfg=dict(variant='I')))
