"""What is planted in a market, against the market beneath that has none of it."""

import numpy as np
import pandas as pd
import pytest
from support.markets import synthetic_params

from pitwise.bars.calendar import is_session, session_number
from pitwise.bars.schema import NUMBERS, PRICES
from pitwise.errors import DataError
from pitwise.simulation.faults import EVENTS, FAULTS, FORWARD_SPLITS, REVERSE_SPLITS, SPACING
from pitwise.simulation.market import Market, synthetic_market

EACH = 40
"""Faults planted of a kind."""


class Pairs(dict):
    """By kind: a market with that kind alone, made when it is asked for, and the bars beneath it."""

    def __init__(self):
        super().__init__()
        self.beneath = synthetic_market(synthetic_params()).bars

    def __missing__(self, kind: str) -> tuple[Market, pd.DataFrame]:
        faults = {kind: EACH if kind != "outage" else 3}
        self[kind] = synthetic_market(synthetic_params(faults=faults)), self.beneath
        return self[kind]


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return Pairs()


class Compared:
    """One truth row: a symbol's bars with and without the fault, by session number."""

    def __init__(self, got: pd.DataFrame, want: pd.DataFrame, date: pd.Timestamp):
        self.got, self.want = got, want
        self.at = int(session_number(pd.Series([date]))[0])

    def ratio(self, column: str, over: int = 0) -> float:
        """Value at the session over that of the market beneath."""
        return self.got.at[self.at + over, column] / self.want.at[self.at + over, column]

    def step(self, column: str) -> float:
        """What the fault did to the step from the session before: 1 if nothing."""
        before = self.got.index[self.got.index < self.at][-1]
        return self.ratio(column) / (self.got.at[before, column] / self.want.at[before, column])

    def absent(self, sessions: int, first: int = 0) -> bool:
        gone = range(self.at + first, self.at + first + sessions)
        return not set(gone) & set(self.got.index) and set(gone) <= set(self.want.index)


def log_range(bars: pd.DataFrame, at: int) -> float:
    return float(np.log(bars.at[at, "high"] / bars.at[at, "low"]))


def by_symbol(bars: pd.DataFrame) -> dict[str, pd.DataFrame]:
    numbered = bars.set_index(session_number(bars["date"]))
    return dict(iter(numbered.groupby("symbol")))


def planted(pairs, kind: str):
    """The truth's rows, each compared with the market beneath."""
    market, beneath = pairs[kind]
    got, want = by_symbol(market.bars), by_symbol(beneath)
    for row in market.truth.itertuples():
        yield row, Compared(got[row.symbol], want[row.symbol], row.date)


def test_as_many_are_planted_as_were_asked_for_and_well_apart():
    asked = dict.fromkeys([*EVENTS, *FAULTS], 20)
    bars, truth = synthetic_market(synthetic_params(symbols=100, faults=asked))
    assert truth["kind"].value_counts().to_dict() == asked
    assert list(truth.columns) == ["symbol", "date", "kind", "price_ratio", "sessions"]
    day = truth["date"].where(truth["kind"] != "not_a_session", truth["date"] - pd.Timedelta(days=1))
    between = pd.Series(session_number(day)).groupby(truth["symbol"].to_numpy()).diff().dropna()
    assert (between > SPACING).all()
    assert bars["symbol"].nunique() == 100


@pytest.mark.parametrize("kind", sorted({*EVENTS, *FAULTS}))
def test_bars_far_from_a_fault_are_those_of_the_market_beneath(pairs, kind):
    market, beneath = pairs[kind]
    untouched = ~beneath["symbol"].isin(market.truth["symbol"])
    got = market.bars[market.bars["symbol"].isin(beneath["symbol"][untouched])]
    pd.testing.assert_frame_equal(got.reset_index(drop=True), beneath[untouched].reset_index(drop=True))


def test_a_split_moves_the_price_for_good_and_the_shares_the_other_way(pairs):
    for row, bar in planted(pairs, "split"):
        assert np.isclose(row.price_ratio, [*1 / FORWARD_SPLITS, *1 / REVERSE_SPLITS]).any()
        for price in PRICES:
            assert bar.step(price) == pytest.approx(row.price_ratio, rel=0.02)
        assert 0.99 <= bar.step("volume") * row.price_ratio <= 1.51


def test_a_spin_off_lowers_the_price_for_good_and_leaves_the_shares(pairs):
    for row, bar in planted(pairs, "spin_off"):
        assert 0.45 <= row.price_ratio <= 0.92
        assert abs(row.price_ratio / np.array([1 / 2, 2 / 3]) - 1).min() > 0.019
        assert bar.step("close") == pytest.approx(row.price_ratio, rel=0.02)
        assert bar.step("open") == pytest.approx(row.price_ratio, rel=0.02)
        # The dollar volume of spin-offs is lognormal, twice the ordinary one: four deviations of 0.4.
        assert abs(np.log(bar.step("volume") * row.price_ratio) - 0.75) < 1.6


def test_a_jump_stays_and_is_traded(pairs):
    overnight = []
    for row, bar in planted(pairs, "jump"):
        bars, at = bar.got, bar.at
        assert row.price_ratio == pytest.approx(
            bars.at[at, "close"] / bars.at[at - 1, "close"], rel=0.01
        )
        assert 0.07 < abs(bar.step("close") - 1) < 0.36
        overnight.append(np.log(bar.step("open")) / np.log(bar.step("close")))
        assert bars.at[at, "low"] <= bars.at[at, "open"] <= bars.at[at, "high"]
        assert 2.9 < bar.ratio("volume") < 10.1
        assert 1 <= bar.ratio("volume", over=7) < 2.0
        assert log_range(bars, at) > 0.99 * log_range(bar.want, at)
        assert bars.at[at + 1, "close"] / bar.want.at[at + 1, "close"] == pytest.approx(
            bar.ratio("close"), rel=0.02
        )
    assert 0.5 < np.mean(overnight) < 0.85
    assert min(overnight) > -0.05
    assert max(overnight) < 1.25


def test_a_bad_print_is_wrong_for_one_session_only(pairs):
    wicks = 0
    for row, bar in planted(pairs, "bad_print"):
        changed = [c for c in PRICES if bar.got.at[bar.at, c] != bar.want.at[bar.at, c]]
        wicks += "close" not in changed
        wrong = "close" if "close" in changed else changed[0]
        assert 0.07 < abs(bar.ratio(wrong) - 1) < 0.61
        assert bar.got.at[bar.at, wrong] / bar.got.at[bar.at - 1, "close"] == row.price_ratio
        for over in (-1, 1):
            assert all(bar.ratio(c, over) == 1 for c in NUMBERS)
        assert bar.ratio("open") == bar.ratio("volume") == 1
    assert 4 <= wicks <= 24


def test_a_scale_error_moves_whole_bars_and_then_ends(pairs):
    for row, bar in planted(pairs, "scale_error"):
        assert row.price_ratio in (100, 10, 0.1, 0.01)
        assert 1 <= row.sessions <= 5
        for over in range(row.sessions):
            assert all(np.isclose(bar.ratio(c, over), row.price_ratio, rtol=1e-3) for c in PRICES)
            assert bar.ratio("volume", over) == 1
        assert bar.ratio("close", -1) == bar.ratio("close", row.sessions) == 1


def test_a_stale_bar_is_the_one_before_again(pairs):
    zero = 0
    for row, bar in planted(pairs, "stale"):
        assert 5 <= row.sessions <= 12
        stale = bar.got.loc[bar.at : bar.at + row.sessions - 1]
        before = bar.got.loc[bar.at - 1]
        assert len(stale) == row.sessions
        assert (stale[PRICES] == before[PRICES]).all(axis=None)
        assert stale["volume"].isin([0, before["volume"]]).all()
        zero += stale["volume"].eq(0).all()
        assert bar.ratio("close", row.sessions) == 1
    assert 8 <= zero <= 32


def test_an_absurd_volume_is_a_thousandfold_or_more(pairs):
    for _, bar in planted(pairs, "absurd_volume"):
        assert 999 < bar.ratio("volume") < 100_001
        assert all(bar.ratio(c) == 1 for c in PRICES)


def test_a_halt_ends_with_a_gap_and_much_volume(pairs):
    gaps = []
    for row, bar in planted(pairs, "halt"):
        assert 1 <= row.sessions <= 15
        assert bar.absent(row.sessions)
        bar.at += row.sessions
        gaps.append(np.log(bar.step("close")))
        assert 1.9 < bar.ratio("volume") < 8.1
    assert 0.05 < np.std(gaps) < 0.2


@pytest.mark.parametrize("kind", ["gap", "outage"])
def test_lost_sessions_are_absent_and_nothing_else_is_special(pairs, kind):
    for row, bar in planted(pairs, kind):
        assert row.kind == "gap"
        assert bar.absent(row.sessions)
        assert all(bar.ratio(c, over) == 1 for c in NUMBERS for over in (-1, row.sessions))


def test_an_outage_strikes_a_large_part_of_the_symbols_at_once(pairs):
    truth = pairs["outage"][0].truth
    assert truth["date"].nunique() == 3
    assert (truth.groupby("date").size() >= 0.15 * synthetic_params().symbols).all()


def test_a_symbol_comes_back_as_another_company(pairs):
    price, volume = [], []
    for row, bar in planted(pairs, "symbol_reused"):
        before = bar.got.index[bar.got.index < bar.at]
        after = bar.got.index[bar.got.index >= bar.at]
        assert 80 <= bar.at - before[-1] - 1 <= 250
        assert min(len(before), len(after)) >= 60
        assert row.sessions == 1
        price.append(np.log(bar.step("close")))
        volume.append(np.log(bar.step("volume")))
    assert np.std(price) > 0.7
    assert np.std(volume) > 0.8


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("missing", lambda b: b[PRICES].isna().sum(axis=1) == 1),
        ("non_positive", lambda b: (b[PRICES] <= 0).sum(axis=1) == 1),
        ("high_below_low", lambda b: b["high"] < b["low"]),
        ("negative_volume", lambda b: b["volume"] < 0),
        ("not_a_session", lambda b: pd.Series(~is_session(b["date"]), index=b.index)),
        ("duplicate", lambda b: b.duplicated()),
    ],
)
def test_a_broken_row_is_where_the_truth_has_it_and_nowhere_else(pairs, kind, broken):
    market, beneath = pairs[kind]
    rows = market.bars[broken(market.bars)]
    assert list(zip(rows["symbol"], rows["date"], strict=True)) == list(
        zip(market.truth["symbol"], market.truth["date"], strict=True)
    )
    extra = EACH if kind in ("not_a_session", "duplicate") else 0
    assert len(market.bars) == len(beneath) + extra


def test_of_a_conflicting_duplicate_one_bar_is_true(pairs):
    market, beneath = pairs["conflicting_duplicate"]
    twice = market.bars[market.bars.duplicated(["symbol", "date"], keep=False)]
    assert len(twice) == 2 * EACH
    true = beneath.set_index(["symbol", "date"])["close"]
    first = 0
    for row in market.truth.itertuples():
        closes = twice.loc[
            (twice["symbol"] == row.symbol) & (twice["date"] == row.date), "close"
        ].tolist()
        right = true[(row.symbol, row.date)]
        assert right in closes
        first += closes[0] == right
        wrong = closes[1] if closes[0] == right else closes[0]
        assert wrong / right == pytest.approx(row.price_ratio, rel=0.01)
    assert 8 <= first <= 32


def test_too_many_faults_for_the_room_are_refused():
    with pytest.raises(DataError, match="2 symbols of 100 sessions have no room for another jump"):
        synthetic_market(synthetic_params(symbols=2, sessions=100, faults={"jump": 50}))
