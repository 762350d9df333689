"""SAPA upsampling for MMSegmentation and MMDetection.

Importing it registers the upsample layer ``sapa``; heads and necks with an
upsampler slot are found as ``mmsapa.…`` when a config names them.
``mmsapa.ops`` needs torch alone.
"""

import sys
from importlib.util import find_spec

__version__ = '0.1.0'

# `python -m mmsapa.info` is asked what is wrong with them.
_is_asked = 'mmsapa.info' in sys.orig_argv

if find_spec('mmengine') and find_spec('mmcv') and not _is_asked:
    from . import upsamplers  # noqa: F401
