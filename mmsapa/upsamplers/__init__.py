"""Upsample layers, which need torch alone, and the slot that takes any.

The slot and the mixin need mmengine and mmcv, and are imported when they are
asked for.
"""

from importlib import import_module

from .a2u import A2U
from .carafe import CARAFE
from .dysample import DySample
from .fade import FADE
from .indexnet import IndexNet
from .max_unpool import MaxUnpool
from .sapa import SAPA

__all__ = [
    'A2U',
    'CARAFE',
    'FADE',
    'SAPA',
    'DySample',
    'IndexNet',
    'MaxUnpool',
]

_OF_OPENMMLAB = dict(SlotMixin='mixin', UpsampleSlot='slot')


def __getattr__(name):
    if name not in _OF_OPENMMLAB:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_OF_OPENMMLAB[name]}', __name__), name)
