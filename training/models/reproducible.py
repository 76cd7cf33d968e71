"""A fit that can be made again, and that leaves the process as it was."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils import deterministic

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
"""On a GPU, deterministic matrix products need this variable."""


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Torch draws from `seed` and has deterministic algorithms; before and after, all is as it was.

    What a fit would change for the whole process comes back at the end, also of one that fails: the
    states of Python's, NumPy's and torch's generators, torch's flags and a variable of the environment.
    """
    cublas = os.environ.get(CUBLAS)
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    draws = random.getstate(), np.random.get_state()
    filled = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        with torch.random.fork_rng():
            os.environ[CUBLAS] = ":4096:8"
            torch.manual_seed(seed)
            torch.use_deterministic_algorithms(True)
            # Would fill every fresh tensor: an eighth of the speed, for nothing.
            deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            yield
    finally:
        random.setstate(draws[0])
        np.random.set_state(draws[1])
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        if cublas is None:
            os.environ.pop(CUBLAS, None)
        else:
            os.environ[CUBLAS] = cublas
