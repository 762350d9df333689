# Faster R-CNN R101 with SAPA-G in its FPN on COCO: all else unchanged.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py'
custom_imports = dict(imports=['mmsapa'], allow_failed_imports=False)

model = dict(
    neck=dict(type='mmsapa.FPN', upsample_cfg=dict(type='sapa', variant='G'))
)
