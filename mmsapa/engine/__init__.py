"""Configs, checkpoints, runners: what the tools and their tests share."""
