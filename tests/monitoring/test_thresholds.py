import math

import numpy as np
import pandas as pd
import pytest

from monitoring.sketch import (
    BINS,
    joined,
    quantile_edges,
    read_sketch,
    sketch,
    three_ways,
    write_sketch,
)
from monitoring.thresholds import drift, psi, week_drift
from pitwise.errors import DataError

pytestmark = pytest.mark.unit

COLUMNS = ["a", "b", "c"]


def market(sessions: int, seed: int, symbols: int = 40, **shifts: float) -> pd.DataFrame:
    """Symbols that move together: half of the variance is the session's."""
    rng = np.random.default_rng(seed)
    common = np.repeat(rng.normal(size=(sessions, len(COLUMNS))), symbols, axis=0)
    own = rng.normal(size=(sessions * symbols, len(COLUMNS)))
    closes = pd.date_range("2020-01-01", periods=sessions, freq="D", tz="UTC").repeat(symbols)
    table = pd.DataFrame(common + own, columns=COLUMNS) + pd.Series(shifts).reindex(COLUMNS).fillna(0)
    return table.assign(event_timestamp=closes)


@pytest.fixture(scope="module")
def edges() -> dict:
    return quantile_edges(three_ways(market(200, 0), COLUMNS))


def test_the_index_is_the_sum_over_the_bins():
    # 0.5 is added to each bin.
    p, q = (50.5 / 101, 50.5 / 101), (80.5 / 101, 20.5 / 101)
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert psi(np.array([50, 50]), np.array([80, 20])) == pytest.approx(expected, rel=1e-12)


def test_a_sketch_counts_each_session_and_the_distance_from_its_median(edges):
    table = market(3, 1)
    made = sketch(table, edges)
    assert made.counts.shape == (3, 3 * len(COLUMNS), BINS)
    assert (made.counts.sum(axis=2) == 40).all()
    day = table.iloc[:40]
    at = made.columns.index("b within sessions")
    centred = day["b"] - day["b"].median()
    assert made.counts[0, at, 0] == (centred < edges["b within sessions"][0]).sum()
    name = "b standardised within sessions"
    below = (centred / centred.abs().median() < edges[name][0]).sum()
    assert made.counts[0, made.columns.index(name), 0] == below


def test_a_history_is_read_once(edges, tmp_path):
    table = market(6, 1)
    older = table["event_timestamp"] < table["event_timestamp"].unique()[4]
    write_sketch(sketch(table[older].reset_index(drop=True), edges), tmp_path / "sketch.npz")
    kept = read_sketch(tmp_path / "sketch.npz")
    both = joined(kept, sketch(table, edges))
    assert (both.counts == sketch(table, edges).counts).all()
    assert both.sessions.equals(sketch(table, edges).sessions)
    with pytest.raises(DataError, match="columns a"):
        sketch(table.drop(columns="a"), edges)
    (tmp_path / "sketch.npz").write_bytes(b"half")
    with pytest.raises(DataError, match="Delete it"):
        read_sketch(tmp_path / "sketch.npz")


def test_what_moves_together_alarms_as_often_as_it_was_asked_to(edges):
    alpha, weeks = 0.1, 60
    alarms = usual = 0
    made = sketch(market(200 + 5 * weeks, 2), edges)
    for at in range(200, 200 + 5 * weeks, 5):
        found = week_drift(made.counts[at - 200 : at], made.counts[at : at + 5], alpha, made.columns)
        alarms += bool(found.drifted)
        usual += bool((found.psi > 0.25).any())
    # Of 60 at 10%: 6 are expected, 14 or more have a chance of 0.1%.
    assert alarms < 14
    assert usual > 40


def test_what_moves_slowly_alarms_no_more_often(edges):
    """Means of 20 sessions: 300 hold no more than 15 months that are independent."""
    alpha, weeks, columns = 0.05, 60, 12
    rng = np.random.default_rng(5)
    n = 300 + 5 * weeks
    common = np.apply_along_axis(
        lambda x: np.convolve(x, np.ones(20) / np.sqrt(20), "valid"),
        0,
        rng.normal(size=(n + 19, columns)),
    )
    edge = np.quantile(rng.normal(size=5000) * np.sqrt(2), np.arange(1, BINS) / BINS)
    rows = common[:, :, None] + rng.normal(size=(n, columns, 40))
    at = np.searchsorted(edge, rows)
    counts = (at[..., None] == np.arange(BINS)).sum(axis=2)
    alarms = sum(
        bool(week_drift(counts[t - 300 : t], counts[t : t + 5], alpha, list("abcdefghijkl")).drifted)
        for t in range(300, n, 5)
    )
    # Of 60 at 5%: 3 are expected, 8 or more have a chance of 1%.
    assert alarms < 8


@pytest.mark.parametrize("shifted", ["a", "c"])
def test_a_shift_is_found_and_named(edges, shifted):
    reference, week = sketch(market(200, 3), edges), sketch(market(5, 4, **{shifted: 4.0}), edges)
    found = week_drift(reference.counts, week.counts, 0.02, reference.columns)
    assert found.drifted == [shifted]


def test_half_of_the_symbols_are_found_within_the_sessions(edges):
    week = market(5, 4)
    week["b"] += np.where(np.arange(len(week)) % 2, 2.0, -2.0)
    reference = sketch(market(200, 3), edges)
    found = week_drift(reference.counts, sketch(week, edges).counts, 0.02, reference.columns)
    assert set(found.drifted) == {"b within sessions", "b standardised within sessions"}


def test_what_lasts_shows_over_four_weeks(edges):
    before, month = market(450, 3), market(20, 8, a=1.0)
    month["event_timestamp"] += pd.Timedelta(days=450)
    counts = sketch(pd.concat([before, month], ignore_index=True), edges).counts
    names = sketch(month, edges).columns
    assert drift(counts, 5, 400, 0.02, names).drifted == ["a over four weeks"]
    assert drift(counts[:450], 5, 400, 0.02, names).drifted == []
    assert len(drift(counts[:410], 5, 400, 0.02, names).columns) == len(names)
