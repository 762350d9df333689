# Mask2Former Swin-B with SAPA-G in its pixel decoder's step from stride 8 to 4
# on ADE20K: all else unchanged.
_base_ = (
    # 'mmseg::' would find no fork of MMSegmentation.
    __import__('mmseg').__path__[0]
    + '/.mim/configs/mask2former/mask2former_swin-b-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py'  # noqa: E501
)
custom_imports = dict(imports=['mmsapa'], allow_failed_imports=False)

model = dict(
    decode_head=dict(
        pixel_decoder=dict(
            type='mmsapa.MSDeformAttnPixelDecoder',
            upsample_cfg=dict(type='sapa', variant='G'),
        )
    )
)
