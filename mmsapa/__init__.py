"""SAPA feature upsampling for PyTorch, MMSegmentation and MMDetection.

``mmsapa.ops`` and the layers of ``mmsapa.upsamplers`` need torch alone.
``mmsapa.openmmlab`` registers the layers with MMCV; heads and necks with an
upsampler slot are found as ``mmsapa.…`` when a config names them.
"""

import sys

__version__ = '0.1.0'

# A config's custom_imports name this package, and mmengine, which reads the
# config, is loaded by then. Whoever has not loaded it wants torch alone.
if sys.modules.get('mmengine'):
    from . import openmmlab  # noqa: F401
