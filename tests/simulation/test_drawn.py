"""What is planted by drawn habits, against the market beneath."""

import numpy as np
import pandas as pd
import pytest

from pitwise.bars.calendar import session_number
from pitwise.bars.schema import BAR_KEY, NUMBERS, PRICES
from pitwise.errors import DataError
from pitwise.simulation.drawn import COPIED, DRAWN, EVENTS, FAULTS, drawn_market

EACH = 12
SIZE = {"symbols": 60, "sessions": 700, "seed": 5}


def market(seed: int = 5, **counts: int):
    return drawn_market(**SIZE | {"seed": seed}, counts=counts)


@pytest.fixture(scope="module")
def beneath() -> pd.DataFrame:
    return market().bars


def compared(counts: dict[str, int], beneath: pd.DataFrame) -> pd.DataFrame:
    """The truth's rows beside the bars as they came, and (`true_`) as they are beneath."""
    bars, truth = market(**counts)
    rows = truth.merge(bars, on=BAR_KEY, how="left")
    return rows.merge(beneath.rename(columns={c: f"true_{c}" for c in NUMBERS}), on=BAR_KEY)


def test_as_many_are_planted_as_were_asked_for():
    asked = dict.fromkeys([*EVENTS, *FAULTS], EACH) | {"symbol_reused": 3}
    truth = market(**asked).truth
    assert truth["kind"].value_counts().to_dict() == asked


def test_the_seed_says_it_all():
    asked = dict.fromkeys([*EVENTS, *FAULTS], 3)
    first, again = market(**asked), market(**asked)
    pd.testing.assert_frame_equal(first.bars, again.bars)
    pd.testing.assert_frame_equal(first.truth, again.truth)


def test_habits_differ_from_market_to_market():
    """Nobody can read a constant off: the median spin-off of one market is no other's."""
    medians = [market(seed, spin_off=EACH).truth["price_ratio"].median() for seed in range(8)]
    assert max(medians) - min(medians) > 0.15


@pytest.mark.parametrize("kind", ["split", "spin_off", "special_dividend"])
def test_prices_step_by_the_ratio_of_the_truth(kind, beneath):
    bars, truth = market(**{kind: EACH})
    for row in truth.itertuples():
        got, want = (b[b["symbol"] == row.symbol].set_index("date")["close"] for b in (bars, beneath))
        steps = (got / want).loc[: row.date]
        assert steps.iloc[-1] / steps.iloc[-2] == pytest.approx(row.price_ratio, rel=0.01)
    assert (bars["close"].to_numpy() == beneath["close"].to_numpy())[-1]


@pytest.mark.parametrize("kind", ["split", "spin_off", "special_dividend", "jump", "halt"])
def test_what_happened_leaves_bars_that_agree_with_themselves(kind):
    bars = market(**{kind: EACH}).bars
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()


def test_a_displaced_bar_is_that_of_another_session_mostly_a_later_one(beneath):
    rows = compared({"displaced": EACH}, beneath)
    other = rows[["symbol", COPIED]].rename(columns={COPIED: "date"}).merge(beneath, on=BAR_KEY)
    assert (rows[PRICES].to_numpy() == other[PRICES].to_numpy()).all()
    assert (rows[PRICES].to_numpy() != rows[[f"true_{p}" for p in PRICES]].to_numpy()).any(axis=1).all()
    assert (rows[COPIED] > rows["date"]).mean() > 0.5


def test_a_displaced_session_strikes_many_symbols_with_one_other_session():
    truth = market(displaced_session=1).truth
    assert len(truth) > 2
    assert set(truth["kind"]) == {"displaced"}
    assert truth["date"].nunique() == truth[COPIED].nunique() == 1


def test_a_repeated_session_is_the_one_before(beneath):
    truth = market(repeated_session=1).truth
    assert len(truth) > 10
    assert set(truth["kind"]) == {"repeated"}
    back = session_number(truth["date"]) - session_number(truth[COPIED])
    assert (back == 1).all()


def test_a_bad_print_changes_prices_of_one_session_alone(beneath):
    bars, truth = market(bad_print=EACH)
    changed = (bars[PRICES].to_numpy() != beneath[PRICES].to_numpy()).any(axis=1)
    pd.testing.assert_frame_equal(
        bars.loc[changed, BAR_KEY].reset_index(drop=True), truth[BAR_KEY], check_dtype=False
    )


def test_a_run_without_volume_has_none(beneath):
    rows = compared({"no_volume": EACH}, beneath)
    assert (rows["volume"] == 0).all()


def test_a_stale_run_repeats_the_bar_before(beneath):
    bars, truth = market(stale=EACH)
    at = bars.merge(truth[truth["kind"] == "stale"], on=BAR_KEY, how="left")["kind"].notna().to_numpy()
    rows = np.flatnonzero(at)
    assert (bars[PRICES].to_numpy()[rows] == bars[PRICES].to_numpy()[rows - 1]).all()


def test_absent_sessions_are_absent(beneath):
    bars, truth = market(gap=EACH, halt=EACH)
    assert len(beneath) - len(bars) == truth["sessions"].sum()


def test_no_room_is_said():
    with pytest.raises(DataError, match="room for"):
        drawn_market(symbols=2, sessions=100, seed=1, counts={"split": 500})


def test_an_unknown_kind_is_said():
    with pytest.raises(DataError, match=r"earthquake: no such kind; kinds are split"):
        market(earthquake=1)
    assert "displaced_session" in DRAWN
