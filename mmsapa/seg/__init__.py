"""Heads for MMSegmentation."""

from .segformer_head import SegformerHead

__all__ = ['SegformerHead']
