"""The upsamplers that are compared: upsample_cfg by the name in tables."""

PRESETS = {
    'nearest': dict(type='nearest'),
    'bilinear': dict(type='bilinear', align_corners=False),
    'max-unpool': dict(type='max_unpool'),
    'carafe': dict(type='carafe'),
    'indexnet': dict(type='indexnet'),
    'a2u': dict(type='a2u'),
    'fade': dict(type='fade'),
    'dysample': dict(type='dysample'),
    'sapa-i': dict(type='sapa', variant='I'),
    'sapa-b': dict(type='sapa', variant='B'),
    'sapa-g': dict(type='sapa', variant='G'),
    # Ours, not the paper's: they start as that interpolation.
    'sapa-i-bilinear': dict(type='sapa', variant='I', prior='bilinear'),
    'sapa-b-bilinear': dict(type='sapa', variant='B', prior='bilinear'),
    'sapa-g-bilinear': dict(type='sapa', variant='G', prior='bilinear'),
    'sapa-b-nearest': dict(type='sapa', variant='B', prior='nearest'),
    'sapa-g-nearest': dict(type='sapa', variant='G', prior='nearest'),
}
