"""Point-in-time dataset, models, honest evaluation, registry."""

import pitwise as pitwise  # before any library can phone home

NETS = ("ann", "lstm", "transformer")
"""The models that are fitted on a GPU where there is one."""
KINDS = ("gradient_boosting", *NETS)
"""The models that are fitted; each has its stage `train@kind` and its section of `params.yaml`."""
ENSEMBLE = "ensemble"
"""Several of them as one; it has a stage and a section of that name."""
CANDIDATES = (*KINDS, ENSEMBLE)
"""What a run evaluates and registers."""
