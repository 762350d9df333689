"""Figures of upsamplers and their models; they need no mmseg or mmdet."""

from .comparison import (
    Comparison,
    Detections,
    disagreement,
    image_iou,
    match_detections,
)
from .comparison_figure import draw_comparison
from .recorder import Recording, Stage, find_stages, record
from .sapa_figure import draw_sapa_figure
from .zoom_boxes import find_boxes

__all__ = [
    'Comparison',
    'Detections',
    'Recording',
    'Stage',
    'disagreement',
    'draw_comparison',
    'draw_sapa_figure',
    'find_boxes',
    'find_stages',
    'image_iou',
    'match_detections',
    'record',
]
