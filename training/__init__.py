"""Point-in-time dataset, models, honest evaluation, registry."""

from feature_repo import NO_TELEMETRY as NO_TELEMETRY  # before any library can phone home

KINDS = ("ann", "lstm")
"""The models there are; each has its stage `train@kind` and its section of `params.yaml`."""
