"""Upsample layers in models that are not ours, found by one traced run.

It needs torch alone. ``mmsapa`` has the three functions too.
"""

from .replace import remove_upsampler, use_upsampler
from .trace import Step, Steps, find_steps

__all__ = ['Step', 'Steps', 'find_steps', 'remove_upsampler', 'use_upsampler']
