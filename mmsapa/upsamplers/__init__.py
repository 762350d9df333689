"""Upsample layers, and the slot that takes any of them."""

from . import flops  # noqa: F401  mmengine's counter learns the operator
from .a2u import A2U
from .dysample import DySample
from .fade import FADE
from .indexnet import IndexNet
from .sapa import SAPA
from .slot import UpsampleSlot
from .top_down import SlotMixin

__all__ = [
    'A2U',
    'FADE',
    'SAPA',
    'DySample',
    'IndexNet',
    'SlotMixin',
    'UpsampleSlot',
]
