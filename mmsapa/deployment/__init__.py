"""Models with our layers outside of Python; torch alone."""

from .decompositions import decompositions
from .onnx import export_onnx

__all__ = ['decompositions', 'export_onnx']
