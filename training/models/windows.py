"""Windows of the dataset as a torch Dataset: a batch is one gather."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

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


class WindowDataset(Dataset):
    """The windows of one split and their labels; indexed by a batch of positions at once.

    Args:
        windows: of the rows of the `dataset` stage.
        rows: those rows; `event_timestamp` and `label`.
        ends: positions of the rows at which the windows end.
        length: sessions in a window.
    """

    def __init__(self, windows: ServedWindows, rows: pd.DataFrame, ends: np.ndarray, length: int):
        self.windows = windows
        self.ends = ends
        self.length = length
        labelled = rows[[SESSION, "label"]].iloc[ends]
        self.returns = torch.from_numpy(labelled["label"].to_numpy("float32"))
        self.ranks = self.returns
        if labelled[SESSION].duplicated().any():
            ranks = session_ranks(labelled["label"], labelled)
            self.ranks = torch.from_numpy(ranks.astype("float32"))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, positions: list[int]) -> Batch:
        chosen = torch.as_tensor(positions)
        windows = self.windows.gather(self.ends[chosen.numpy()], self.length)
        return Batch(torch.from_numpy(windows), self.returns[chosen], self.ranks[chosen])


def batches(dataset: WindowDataset, size: int, shuffle: bool = False) -> DataLoader:
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    return DataLoader(dataset, sampler=BatchSampler(order, size, drop_last=False), batch_size=None)
