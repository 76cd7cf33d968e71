"""Drift and accuracy of what was served. Nothing imports this room."""

from feature_repo import NO_TELEMETRY as NO_TELEMETRY  # before any library can phone home
