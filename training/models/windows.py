"""Windows of the dataset as torch tensors: a batch is one gather from the rows, where these lie."""

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pitwise.evaluation.ranking import session_ranks
from pitwise.evaluation.sessions import SESSION
from pitwise.features.served import ServedWindows


class Batch(NamedTuple):
    windows: Tensor
    """(batch, length, n_features) raw."""
    returns: Tensor
    """(batch,) log returns over the horizon."""
    ranks: Tensor
    """(batch,) of these returns among the windows of the same session, -0.5 to 0.5; where no session has
    two windows there is nothing to rank, and it is the returns."""


class WindowDataset:
    """The windows of one split and their labels; indexed by a batch of positions at once.

    Args:
        windows: of the rows of the `dataset` stage.
        rows: those rows; `event_timestamp` and `label`.
        ends: positions of the rows at which the windows end.
        length: sessions in a window.
    """

    def __init__(self, windows: ServedWindows, rows: pd.DataFrame, ends: np.ndarray, length: int):
        self.ends = ends
        self.length = length
        at = windows.at[ends]
        self._at = torch.from_numpy(at)
        self._base = torch.from_numpy(windows.rows.base)
        self._factors = torch.from_numpy(windows.rows.factors(at))
        self._kinds = torch.from_numpy(windows.rows.kinds)
        labelled = rows[[SESSION, "label"]].iloc[ends]
        self.returns = torch.from_numpy(labelled["label"].to_numpy("float32"))
        self.ranks = self.returns
        if labelled[SESSION].duplicated().any():
            ranks = session_ranks(labelled["label"], labelled)
            self.ranks = torch.from_numpy(ranks.astype("float32"))

    def __len__(self) -> int:
        return len(self.ends)

    def to(self, device: torch.device) -> "WindowDataset":
        """The same windows on a device: rows, labels, and what batches are drawn and made by."""
        moved = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        return moved

    @property
    def device(self) -> torch.device:
        return self._base.device

    def __getitem__(self, positions: Tensor | list[int]) -> Batch:
        chosen = torch.as_tensor(positions, device=self.device)
        ends = self._at[chosen]
        rows = (ends[:, None] + torch.arange(1 - self.length, 1, device=self.device)).flatten()
        windows = self._base.index_select(0, rows).view(len(ends), self.length, -1)
        windows.mul_(self._factors[chosen][:, self._kinds][:, None])
        return Batch(windows, self.returns[chosen], self.ranks[chosen])


def batches(dataset: WindowDataset, size: int, shuffle: bool = False, every: int = 1) -> Iterator[Batch]:
    """One pass over the dataset.

    Args:
        size: windows in a batch; the last one may have fewer.
        shuffle: in an order that torch draws.
        every: how many windows one is taken of.
    """
    n, device = len(dataset), dataset.device
    order = torch.randperm(n, device=device) if shuffle else torch.arange(0, n, every, device=device)
    for positions in order.split(size):
        yield dataset[positions]
