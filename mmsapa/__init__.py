"""SAPA feature upsampling for PyTorch, MMSegmentation and MMDetection.

``mmsapa.ops`` and the layers of ``mmsapa.upsamplers`` need torch alone.
``mmsapa.use_upsampler`` puts them into a model of any library.
``mmsapa.openmmlab`` registers the layers with MMCV; heads and necks with an
upsampler slot are found as ``mmsapa.…`` when a config names them.
"""

import sys
from importlib import import_module

__version__ = '0.1.0'

# A config's custom_imports name this package, and mmengine, which reads the
# config, is loaded by then. Whoever has not loaded it wants torch alone, or
# names mmsapa.openmmlab.
if sys.modules.get('mmengine'):
    from . import openmmlab  # noqa: F401

_OF_ANYMODEL = ('find_steps', 'remove_upsampler', 'use_upsampler')


def __getattr__(name):
    if name not in _OF_ANYMODEL:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module('.anymodel', __name__), name)
