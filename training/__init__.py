"""Point-in-time dataset, models, honest evaluation, registry."""

import pitwise as pitwise  # before any library can phone home

KINDS = ("gradient_boosting", "ann", "lstm")
"""The models there are; each has its stage `train@kind` and its section of `params.yaml`."""
