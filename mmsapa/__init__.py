"""SAPA upsampling for MMSegmentation and MMDetection."""

__version__ = '0.1.0'
