"""Pictures of what upsamplers do; neither mmseg nor mmdet is needed."""

from .comparison import (
    Comparison,
    Detections,
    disagreement,
    find_boxes,
    image_iou,
    match_detections,
)
from .comparison_sheet import draw_comparison
from .recorder import Recording, Stage, find_stages, record
from .sapa_sheet import draw_sapa_sheet

__all__ = [
    'Comparison',
    'Detections',
    'Recording',
    'Stage',
    'disagreement',
    'draw_comparison',
    'draw_sapa_sheet',
    'find_boxes',
    'find_stages',
    'image_iou',
    'match_detections',
    'record',
]
