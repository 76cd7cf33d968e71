"""Windows of the dataset as a torch Dataset: a batch is one gather."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from pitwise.features.served import ServedWindows

Batch = tuple[Tensor, Tensor]


class WindowDataset(Dataset):
    """The windows of one split and their labels; indexed by a batch of positions at once.

    Args:
        windows: of the rows of the `dataset` stage.
        labels: (n,) log return of each row.
        ends: positions of the rows at which the windows end.
        length: sessions in a window.
    """

    def __init__(self, windows: ServedWindows, labels: np.ndarray, ends: np.ndarray, length: int):
        self.windows = windows
        self.ends = ends
        self.length = length
        self.labels = torch.from_numpy(labels[ends].astype("float32"))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, positions: list[int]) -> Batch:
        """Windows (batch, length, n_features) and labels (batch,)."""
        chosen = torch.as_tensor(positions)
        windows = self.windows.gather(self.ends[chosen.numpy()], self.length)
        return torch.from_numpy(windows), self.labels[chosen]


def batches(dataset: WindowDataset, size: int, shuffle: bool = False) -> DataLoader:
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    return DataLoader(dataset, sampler=BatchSampler(order, size, drop_last=False), batch_size=None)
