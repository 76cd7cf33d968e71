"""Windows of the dataset as a torch Dataset: views over the rows, a batch is one gather."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

Batch = tuple[Tensor, Tensor]


class WindowDataset(Dataset):
    """The windows of one split and their labels; indexed by a batch of positions at once.

    Args:
        rows: point-in-time rows of the `dataset` stage.
        ends: positions in `rows` at which the windows end.
    """

    def __init__(self, rows: pd.DataFrame, ends: np.ndarray, features: Sequence[str], window: int):
        values = torch.from_numpy(rows[list(features)].to_numpy("float32"))
        self.views = values.unfold(0, window, 1).transpose(1, 2)
        self.starts = torch.from_numpy(ends - window + 1)
        self.labels = torch.from_numpy(rows["label"].to_numpy("float32")[ends])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, positions: list[int]) -> Batch:
        """Windows (batch, window, n_features) and labels (batch,)."""
        chosen = torch.as_tensor(positions)
        return self.views[self.starts[chosen]], self.labels[chosen]


def batches(dataset: WindowDataset, size: int, shuffle: bool = False) -> DataLoader:
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    return DataLoader(dataset, sampler=BatchSampler(order, size, drop_last=False), batch_size=None)
