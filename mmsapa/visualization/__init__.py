"""Pictures of what upsample layers do."""

from .recorder import Recording, Stage, find_stages, record
from .sapa_sheet import draw_sapa_sheet

__all__ = ['Recording', 'Stage', 'draw_sapa_sheet', 'find_stages', 'record']
