_base_ = './panoptic-fpn_r50_fpn-sapa-g_1x_coco.py'

model = dict(neck=dict(upsample_cfg=dict(variant='B')))
