"""Image matting: A2U matting on mmengine alone."""

from .data_sample import MattingDataSample

__all__ = ['MattingDataSample']
