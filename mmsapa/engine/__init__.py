"""Configs, checkpoints, runners: what the tools and their tests share."""

from ..errors import UserError

__all__ = ['UserError']
