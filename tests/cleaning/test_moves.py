"""What odd moves are and from when it stands, each planted by hand in one calm stock of a market."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.faulty_bars import AT, PRICES, busy, calm_stock, earnings, move

from pitwise.cleaning.moves import EVIDENCE, STATE, MoveParams, moves
from pitwise.cleaning.neighbours import FEW_SYMBOLS, MARKET_SYMBOLS, Market, Neighbours, market_of
from pitwise.simulation.crash import crash_market
from pitwise.simulation.drawn import drawn_market

PARAMS = MoveParams(min_move=0.06, min_noise=6, max_volume_ratio=2.5, longest_scale_error=5)
VERDICT = ["row", "kind", "suspected", "settled", "sessions"]


def market(bars: pd.DataFrame) -> Market:
    n = Neighbours(bars)
    return market_of(n.session.astype(int), n.log_return, n.turnover, gap=n.gap)


def found(bars: pd.DataFrame, of: Market | None = None, adjusted: bool = False) -> pd.DataFrame:
    return moves(Neighbours(bars), Market.none() if of is None else of, PARAMS, adjusted)


def verdicts(bars: pd.DataFrame, of: Market | None = None) -> list[tuple]:
    return list(found(bars, of)[VERDICT].itertuples(index=False, name=None))


def close_at(bars: pd.DataFrame, ratio: float, at: int = AT) -> None:
    """One session's close is off, and the range with it."""
    bars.loc[at, "close"] *= ratio
    bars.loc[at, "high"] = bars.loc[at, ["high", "close"]].max()
    bars.loc[at, "low"] = bars.loc[at, ["low", "close"]].min()


def test_a_calm_stock_has_no_odd_move(calm):
    nothing = found(calm)
    assert nothing.empty
    assert list(nothing) == [*STATE, *EVIDENCE]


@pytest.mark.parametrize("ratio", [0.5, 0.85, 1.2, 2.0])
def test_a_close_that_the_next_session_takes_back_is_a_bad_print(calm, ratio):
    close_at(calm, ratio)
    (row, kind, _, settled, sessions) = verdicts(calm)[0]
    assert (row, kind, settled, sessions) == (AT, "bad_print", 1, 1)
    assert len(verdicts(calm)) == 1  # its way back is no move
    assert verdicts(calm[: AT + 1])[0][3] == -1


def test_news_behind_a_bad_print_is_held_against_the_bar_before_it(calm):
    close_at(calm, 0.8)
    move(calm, 1.12, AT + 1)
    calm.loc[AT + 1, "open"] = calm.loc[AT - 1, "close"]
    calm.loc[AT + 1, "low"] = calm.loc[AT + 1, ["open", "close"]].min()
    (bad, news) = found(calm).to_dict("records")
    assert (bad["row"], bad["kind"], news["row"], news["kind"]) == (AT, "bad_print", AT + 1, "jump")
    assert news["close_before"] == calm["close"][AT - 1]
    assert news["move"] == pytest.approx(np.log(calm["close"][AT + 1] / calm["close"][AT - 1]))


def test_a_swing_that_people_traded_on_is_settled_at_its_own_close(calm):
    close_at(calm, 1.2)
    calm.loc[AT, "volume"] *= 8
    assert verdicts(calm)[0] == (AT, "jump", "jump", 0, 1)
    assert verdicts(calm[: AT + 1]) == [(AT, "jump", "jump", 0, 1)]


def test_a_swing_whose_news_came_after_the_close_is_no_bad_print(calm):
    close_at(calm, 1.2)
    calm.loc[AT + 1, "volume"] *= 8
    assert {kind for _, kind, *_ in verdicts(calm)} == {"jump"}


@pytest.mark.parametrize("factor", [1000, 100, 10, 0.1, 0.01])
@pytest.mark.parametrize("sessions", [1, 3, 5])
def test_a_power_of_ten_that_goes_back_is_an_error_of_scale(calm, factor, sessions):
    calm.loc[AT : AT + sessions - 1, PRICES] *= factor
    assert verdicts(calm) == [(AT, "scale_error", "scale_error", sessions, sessions)]
    until = calm[: AT + sessions]
    assert verdicts(until) == [(AT, "scale_error", "scale_error", -1, 1)]


def test_a_split_by_ten_waits_for_five_bars(calm):
    move(calm, 0.1)
    calm.loc[AT:, "volume"] *= 10
    assert verdicts(calm) == [(AT, "split", "split", 5, 1)]
    assert verdicts(calm[: AT + 5]) == [(AT, "split", "split", -1, 1)]


@pytest.mark.parametrize("shares", [2, 3, 1.5, 4, 7, 20, 1 / 2, 1 / 3, 1 / 5])
def test_a_plain_ratio_on_ordinary_dollars_is_a_split(calm, shares):
    move(calm, 1 / shares)
    calm.loc[AT:, "volume"] *= shares
    (split,) = found(calm).to_dict("records")
    assert (split["row"], split["kind"], split["settled"]) == (AT, "split", 1)
    assert split["price_ratio"] == pytest.approx(1 / shares)
    assert split["confidence"] > 0.75
    assert split["dollar_volume"] == pytest.approx(1, abs=0.6)


@pytest.mark.parametrize("ratio", [0.88, 0.7, 0.43])
def test_a_part_that_leaves_overnight_is_a_spin_off(calm, ratio):
    move(calm, ratio)
    busy(calm, 2)
    (part,) = found(calm).to_dict("records")
    assert (part["row"], part["kind"], part["settled"]) == (AT, "spin_off", 1)
    assert part["price_ratio"] == pytest.approx(calm["close"][AT] / calm["close"][AT - 1])


def lasts(bars: pd.DataFrame, first: float, second: float) -> None:
    """The volume of row `AT` and of the next one, times what it usually is."""
    usual = np.exp(np.log(bars.loc[AT - 20 : AT - 1, "volume"]).mean())
    bars.loc[[AT, AT + 1], "volume"] = [first * usual, second * usual]


def test_a_part_of_less_than_an_odd_move_is_told_too(calm):
    move(calm, 0.95)
    lasts(calm, 1.3, 1.3)
    assert verdicts(calm) == [(AT, "spin_off", "spin_off", 1, 1)]
    assert verdicts(calm[: AT + 1]) == [(AT, "spin_off", "spin_off", -1, 1)]
    young = calm[AT - 5 :].reset_index(drop=True)
    assert verdicts(young) == []  # it has not shown its ordinary days


def test_a_part_that_is_there_again_at_the_next_open_never_left(calm):
    calm.loc[AT, PRICES] *= 0.95
    lasts(calm, 1.3, 1.3)
    assert verdicts(calm[: AT + 1]) == [(AT, "spin_off", "spin_off", -1, 1)]
    assert verdicts(calm) == [(AT, "jump", "spin_off", 1, 1)]


@pytest.mark.parametrize(("after", "kind"), [(2.0, "spin_off"), (0.5, "jump")])
def test_trading_that_lasts_tells_a_distribution_from_news(calm, after, kind):
    move(calm, 0.87)
    lasts(calm, 2.2, after)
    calm.loc[AT, "low"] = calm.loc[AT, "high"] * 0.96
    assert verdicts(calm)[0][1] == kind
    assert verdicts(calm)[0][3] == 1


def test_heavy_trading_does_not_settle_what_the_next_session_may_tell(calm):
    move(calm, 0.7)
    lasts(calm, 3.0, 3.0)
    assert verdicts(calm[: AT + 1])[0][3] == -1
    assert verdicts(calm) == [(AT, "spin_off", verdicts(calm[: AT + 1])[0][2], 1, 1)]


def test_a_wide_range_is_news(calm):
    move(calm, 0.9)
    lasts(calm, 1.5, 1.5)
    assert found(calm)["kind"].tolist() == ["spin_off"]
    calm.loc[AT, "high"] *= 1.06
    calm.loc[AT, "low"] *= 0.96
    assert found(calm)["kind"].tolist() == ["jump"]


def test_a_fall_overnight_is_held_against_the_markets(calm):
    move(calm, 0.95)
    lasts(calm, 1.3, 1.3)
    session = Neighbours(calm).session.astype(int)
    of = Market(*(np.full(session.max() + 2, x) for x in (0.0, 0.5, 1.0, 0.0, 0.01, 0.0, 0.0)))
    assert verdicts(calm, of) == [(AT, "spin_off", "spin_off", 1, 1)]
    of.gap[session[AT]] = -0.03
    assert verdicts(calm, of) == []


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_earnings_are_news(calm, ratio):
    earnings(calm, ratio)
    assert verdicts(calm) == [(AT, "jump", "jump", 0, 1)]


def test_a_fall_within_the_session_is_no_distribution_however_little_is_traded(calm):
    move(calm, 0.7, AT + 1)
    calm.loc[AT, ["low", "close"]] *= 0.7
    assert verdicts(calm) == [(AT, "jump", "bad_print", 1, 1)]


def test_what_an_adjusted_close_does_not_show_is_hardly_a_distribution(calm):
    move(calm, 0.93)
    busy(calm, 1.5)
    assert found(calm)["kind"].tolist() == ["spin_off"]
    (news,) = found(calm, adjusted=True).to_dict("records")
    assert news["kind"] == "jump"
    assert news["confidence"] < 1


@pytest.mark.parametrize(("column", "ratio"), [("high", 1.4), ("low", 0.7)])
def test_a_wick_beyond_all_that_was_traded_is_a_bad_print_at_once(calm, column, ratio):
    calm.loc[AT, column] *= ratio
    assert verdicts(calm) == [(AT, "bad_print", "bad_print", 0, 1)]
    calm.loc[AT, "volume"] *= 4
    assert verdicts(calm) == []


def test_a_long_wick_may_have_been_traded(calm):
    calm.loc[AT, "low"] *= 0.85
    assert verdicts(calm) == []


def test_a_history_that_begins_before_the_shares_are_out_is_told_by_the_regular_trading(calm):
    young = calm[AT:].reset_index(drop=True)
    young.loc[:9, "volume"] /= 50
    young.loc[:9, PRICES] *= 0.9
    assert verdicts(young)[0] == (0, "bad_print", "", 12, 10)
    assert all(row > 0 for row, *_ in verdicts(young[:12]))


def test_evidence_is_in_numbers_and_what_is_not_known_is_nan(calm):
    move(calm, 0.7)
    calm.loc[AT, "volume"] = 0
    (part,) = found(calm[: AT + 1]).to_dict("records")
    assert np.isnan(
        [part[name] for name in ("dollar_volume", "shares", "move_peers", "close_after")]
    ).all()
    assert part["overnight"] == pytest.approx(1, abs=0.1)
    assert part["move_noise"] > 20


def test_a_crash_has_neither_a_distribution_nor_a_bad_print():
    bars = crash_market(100, 360, seed=3)
    assert set(found(bars, market(bars))["kind"]) <= {"jump"}


def test_a_bad_print_of_a_crash_is_found():
    bars = crash_market(60, 360, seed=4)
    of = market(bars)
    worst = bars["date"] == pd.Timestamp(of.table().nlargest(1, "reach")["date"].item())
    row = bars.index[worst][10]
    bars.loc[row, PRICES] *= 100
    wrong = found(bars, market(bars)).set_index("row").loc[row]
    assert (wrong["kind"], wrong["sessions"]) == ("scale_error", 1)


def test_the_same_fall_is_odd_in_a_calm_session_only():
    market_bars = pd.concat(
        [calm_stock().assign(symbol=f"S{i:02d}") for i in range(30)], ignore_index=True
    )
    rng = np.random.default_rng(1)
    wild = rng.normal(0, 0.06, 30)
    calm_market, wild_market = market_bars.copy(), market_bars.copy()
    for i in range(30):
        since = (market_bars["symbol"] == f"S{i:02d}") & (market_bars.groupby("symbol").cumcount() >= AT)
        fall = np.log(0.8) if i == 0 else 0.0
        calm_market.loc[since, PRICES] *= np.exp(fall)
        wild_market.loc[since, PRICES] *= np.exp(fall if i == 0 else wild[i])
    assert found(calm_market, market(calm_market))["row"].tolist() == [AT]
    assert found(wild_market, market(wild_market)).empty


@pytest.mark.parametrize("symbols", [5, MARKET_SYMBOLS - 1])
def test_a_crash_of_a_small_market_is_known_as_one(symbols):
    bars = crash_market(symbols, 360, seed=3)
    assert set(found(bars, market(bars))["kind"]) <= {"jump"}


def test_of_two_stocks_each_is_judged_by_its_own_past():
    bars = crash_market(FEW_SYMBOLS - 1, 360, seed=3)
    pd.testing.assert_frame_equal(found(bars, market(bars)), found(bars))


@pytest.mark.filterwarnings("error")
def test_no_bar_makes_a_library_complain(calm):
    calm.loc[5, "volume"] = 0.0
    calm.loc[30:60, PRICES] = 7.0
    calm.loc[60:85, "volume"] = 0.0
    calm.loc[100, "high"] *= 3
    calm.loc[150:, PRICES] *= 100
    found(calm)
    for few in range(4):
        found(calm[:few], market(calm[:few]))


def at_close(verdicts: pd.DataFrame, bars: pd.DataFrame, last: pd.Timestamp) -> pd.DataFrame:
    """What was told at the close of a session, by what is told now."""
    cut = bars.reset_index(drop=True)
    symbol, there = cut["symbol"], (cut["date"] <= last).to_numpy()
    row = verdicts["row"].to_numpy(int)
    verdicts = verdicts[there[row]].copy()
    row = verdicts["row"].to_numpy(int)
    later = np.minimum(row + verdicts["settled"].to_numpy(int), len(cut) - 1)
    stands = (verdicts["settled"] >= 0) & there[later] & (symbol[later].array == symbol[row].array)
    verdicts["kind"] = verdicts["kind"].where(stands, verdicts["suspected"])
    verdicts["settled"] = verdicts["settled"].where(stands, -1)
    verdicts["row"] = np.cumsum(there)[row] - 1
    return verdicts[verdicts["kind"] != ""].reset_index(drop=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.15, 0.99))
def test_what_was_told_at_a_close_does_not_hang_on_what_came_after(seed, share):
    counts = {"split": 4, "spin_off": 4, "jump": 6, "bad_print": 20, "scale_error": 8, "gap": 4}
    bars = drawn_market(30, 300, seed, counts).bars
    days = np.sort(bars["date"].unique())
    last = pd.Timestamp(days[int(share * len(days))])
    then = bars[bars["date"] <= last]
    whole, told = found(bars, market(bars)), found(then, market(then))
    expected = at_close(whole, bars, last)
    state = ["row", "kind", "suspected", "settled"]
    pd.testing.assert_frame_equal(told[state], expected[state], check_exact=True)
    settled = (told["settled"] >= 0).to_numpy()
    columns = [c for c in (*STATE, *EVIDENCE) if c != "close_after"]
    pd.testing.assert_frame_equal(
        told.loc[settled, columns], expected.loc[settled, columns], check_exact=True
    )
