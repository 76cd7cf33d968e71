import numpy as np
import pandas as pd
import pytest
import torch
from support import small_runs as small

from pitwise.features.windows import gather
from training.models.windows import batches


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return small.dataset_rows(small.market(4, 120, seed=5))


def test_windows_are_gathered_from_the_rows_and_stored_nowhere(rows):
    dataset = small.part(rows, "train")
    before = dataset[[20]][0]
    dataset.windows._rows.base[dataset.ends[20], 0] = -123.0
    assert before[0, -1, 0] != -123.0
    assert dataset[[20]][0][0, -1, 0] == dataset[[21]][0][0, -2, 0] == -123.0


def test_a_batch_equals_a_plain_loop(rows):
    dataset = small.part(rows, "validation")
    positions = [0, 7, 3, len(dataset) - 1]
    windows, labels = dataset[positions]
    ends = np.flatnonzero(rows["split"] == "validation")
    for i, position in enumerate(positions):
        of_window = rows.iloc[ends[position] - small.WINDOW + 1 : ends[position] + 1]
        assert of_window["symbol"].nunique() == 1
        np.testing.assert_array_equal(windows[i], of_window[list(small.FEATURES)].astype("float32"))
        assert labels[i] == np.float32(rows["label"].iloc[ends[position]])


def test_training_and_serving_cut_the_same_windows(rows):
    values = rows[list(small.FEATURES)].to_numpy("float32")
    ends = np.flatnonzero(rows["split"] == "test")
    dataset = small.at_ends(rows, ends)
    np.testing.assert_array_equal(small.all_windows(dataset), gather(values, ends, small.WINDOW))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_pass_sees_every_window_once(rows, shuffle):
    dataset = small.part(rows, "train")
    torch.manual_seed(0)
    seen = torch.cat([labels for _, labels in batches(dataset, 32, shuffle)])
    assert torch.equal(seen.sort().values, dataset.labels.sort().values)
    assert torch.equal(seen, dataset.labels) != shuffle
