"""Point-in-time dataset, models, honest evaluation, registry."""

import pitwise as pitwise  # before any library can phone home

KINDS = ("gradient_boosting", "ann", "lstm", "transformer")
"""The models that are fitted; each has its stage `train@kind` and its section of `params.yaml`."""
ENSEMBLE = "ensemble"
"""Several of them as one; it has a stage and a section of that name."""
CANDIDATES = (*KINDS, ENSEMBLE)
"""What a run evaluates and registers."""
