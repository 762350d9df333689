"""Pictures of what an upsampler does; neither mmseg nor mmdet is needed."""

from .comparison import (
    Comparison,
    Detections,
    disagreement,
    draw_comparison,
    find_boxes,
    image_iou,
    match_detections,
)

__all__ = [
    'Comparison',
    'Detections',
    'disagreement',
    'draw_comparison',
    'find_boxes',
    'image_iou',
    'match_detections',
]
