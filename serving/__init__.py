"""The champion, run from the online store. Never torch, never training."""

from feature_repo import NO_TELEMETRY as NO_TELEMETRY  # before any library can phone home
