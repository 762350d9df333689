"""Metrics, and what a model costs."""

from importlib.util import find_spec

from .matting_metric import MattingMetric

__all__ = ['MattingMetric']

if find_spec('mmseg'):
    from .boundary_iou import BoundaryIoU  # noqa: F401
    from .depth_metric import DepthMetric  # noqa: F401

    __all__ += ['BoundaryIoU', 'DepthMetric']
