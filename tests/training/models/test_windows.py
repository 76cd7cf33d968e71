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
    before = dataset[[20]].windows
    dataset._base[dataset.ends[20], 0] = -123.0
    assert before[0, -1, 0] != -123.0
    assert dataset[[20]].windows[0, -1, 0] == dataset[[21]].windows[0, -2, 0] == -123.0


def test_a_batch_equals_a_plain_loop(rows):
    dataset = small.part(rows, "validation")
    positions = [0, 7, 3, len(dataset) - 1]
    windows, returns, _ = dataset[positions]
    ends = np.flatnonzero(rows["split"] == "validation")
    for i, position in enumerate(positions):
        of_window = rows.iloc[ends[position] - small.WINDOW + 1 : ends[position] + 1]
        assert of_window["symbol"].nunique() == 1
        np.testing.assert_array_equal(windows[i], of_window[list(small.FEATURES)].astype("float32"))
        assert returns[i] == np.float32(rows["label"].iloc[ends[position]])


def test_training_and_serving_cut_the_same_windows(rows):
    values = rows[list(small.FEATURES)].to_numpy("float32")
    ends = np.flatnonzero(rows["split"] == "test")
    dataset = small.at_ends(rows, ends)
    np.testing.assert_array_equal(small.all_windows(dataset), gather(values, ends, small.WINDOW))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_pass_sees_every_window_once(rows, shuffle):
    dataset = small.part(rows, "train")
    torch.manual_seed(0)
    seen = torch.cat([batch.returns for batch in batches(dataset, 32, shuffle)])
    assert torch.equal(seen.sort().values, dataset.returns.sort().values)
    assert torch.equal(seen, dataset.returns) != shuffle


def test_ranks_are_of_the_returns_among_the_windows_of_the_session(rows):
    ends = np.flatnonzero(rows["split"] == "train")
    dataset = small.at_ends(rows, ends)
    session = (rows["event_timestamp"].iloc[ends] == rows["event_timestamp"].iloc[ends[30]]).to_numpy()
    assert session.sum() == 4
    places = dataset.returns[session].argsort().argsort().numpy()
    np.testing.assert_allclose(dataset.ranks[session], np.array([-0.375, -0.125, 0.125, 0.375])[places])


def test_one_symbol_has_no_ranks_and_keeps_its_returns(rows):
    alone = rows[rows["symbol"] == "S000"].reset_index(drop=True)
    dataset = small.part(alone, "train")
    assert torch.equal(dataset.ranks, dataset.returns)
