"""SAPA upsampling for MMSegmentation and MMDetection.

Importing it registers the upsample layer ``sapa``; heads and necks with an
upsampler slot are found as ``mmsapa.…`` when a config names them.
``mmsapa.ops`` needs torch alone.
"""

from importlib.util import find_spec

__version__ = '0.1.0'

if find_spec('mmengine') and find_spec('mmcv'):
    from . import upsamplers  # noqa: F401
