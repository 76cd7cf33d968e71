"""Drift and accuracy of what was served. Nothing imports this room."""

import pitwise as pitwise  # before any library can phone home
