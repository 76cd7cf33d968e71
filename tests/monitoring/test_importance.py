from types import SimpleNamespace

import numpy as np
import pytest

from monitoring.importance import Windows, _within, permutation_importance

pytestmark = pytest.mark.unit

NAMES = ("used", "idle")


class LastOfFirst:
    """A model whose score is the first feature in the window's last session."""

    def get_outputs(self):
        return [SimpleNamespace(name=name) for name in ("score", "log_return", "p_up", "scale")]

    def run(self, names, inputs):
        said = inputs["windows"][:, -1, 0]
        return [said, said, said, np.ones_like(said)]


def windows(sessions: int = 20, symbols: int = 30) -> Windows:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(sessions * symbols, 3, 2)).astype("float32")
    return Windows(
        values,
        np.tile(np.arange(symbols), sessions),
        np.repeat(np.arange(sessions), symbols),
        values[:, -1, 0].astype(float),
    )


def test_what_the_model_uses_carries_its_rank_ic_and_what_it_does_not_moves_nothing():
    found = permutation_importance(LastOfFirst(), windows(), NAMES, seed=1).set_index("feature")
    # The score is the return: all of a rank IC of 1 is lost, as far as 20 exchanges of 30 go.
    assert found.loc["used", "lost"] == pytest.approx(1, abs=0.2)
    assert found.loc["used", "moved"] == pytest.approx(found.loc["used", "lost"])
    assert found.loc["used", "lost_se"] == pytest.approx(1 / np.sqrt(29) / np.sqrt(20), rel=0.5)
    assert found.loc["idle", ["moved", "lost"]].tolist() == pytest.approx([0, 0], abs=1e-12)
    assert found.loc["used", ["rank_ic", "rank_ic_se"]].tolist() == pytest.approx([1, 0], abs=1e-12)
    # 20 sessions of 30 symbols that say nothing: 0, give or take 1 / sqrt(29 * 20).
    assert abs(found.loc["idle", "rank_ic"]) < 4 / np.sqrt(29 * 20)
    assert found.loc["idle", "rank_ic_se"] == pytest.approx(1 / np.sqrt(29 * 20), rel=0.5)


def test_rows_are_exchanged_within_their_session_alone():
    sessions = np.array([2, 0, 2, 1, 0, 2])
    for seed in range(5):
        at = _within(sessions, np.random.default_rng(seed))
        assert (sessions[at] == sessions).all()
        assert sorted(at) == list(range(6))


def test_without_outcomes_there_is_still_what_moved():
    given = windows()
    found = permutation_importance(
        LastOfFirst(),
        Windows(given.values, given.symbols, given.sessions, given.returns * np.nan),
        NAMES,
        1,
    )
    assert found[["lost", "rank_ic"]].isna().all(axis=None)
    assert found["moved"].notna().all()
