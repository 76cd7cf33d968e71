"""A close outside its own range, and what the sessions after it make of it: all prices by hand."""

import numpy as np
import pandas as pd
import pytest
from support.faulty_bars import cleaned

from pitwise.bars.basis import on_first_basis
from pitwise.bars.calendar import session_date
from pitwise.bars.schema import PRICES
from pitwise.cleaning.early_closes import with_early_closes
from pitwise.cleaning.moves import EVIDENCE, STATE, MoveParams, moves
from pitwise.cleaning.neighbours import Market, Neighbours

PARAMS = MoveParams(min_move=0.06, min_noise=6, max_volume_ratio=2.5, longest_scale_error=5)
EVE = 80
"""The session before the ex-date; 80 before it close at 100 and 101 dollars in turn."""
WRONG = (100.2, 101.0, 99.8, 94.0)
"""Open, high, low and close of the eve: six dollars are out of the close, and of nothing else."""
NEW = [(94.2, 95.0, 93.8, 94.5), (94.4, 95.2, 94.0, 95.0), (95.0, 95.4, 94.1, 94.3)]
"""The sessions from the ex-date on."""
OLD = [(100.3, 101.2, 99.9, 100.8), (100.7, 101.3, 99.9, 100.1), (100.0, 101.1, 99.7, 100.9)]
"""The same had nothing happened."""


def stock(after: list[tuple], eve: tuple = WRONG, symbol: str = "S") -> pd.DataFrame:
    before = [(100.5, 101.4, 99.6, 100.0 + i % 2) for i in range(EVE)]
    bars = pd.DataFrame([*before, eve, *after], columns=PRICES)
    days = session_date(5000 + np.arange(len(bars)))
    return bars.assign(symbol=symbol, date=days, volume=1e6)


def found(
    raw: pd.DataFrame, adjusted: bool = False, market: Market | None = None, price_factor: float = 1.0
) -> pd.DataFrame:
    """What is found where a row check has taken the closes outside their range away."""
    market = Market.none() if market is None else market
    inside = raw["close"].between(raw["low"], raw["high"]).to_numpy()
    comparable = raw[inside].assign(price_factor=price_factor, share_factor=price_factor)
    n = Neighbours(on_first_basis(comparable))
    outside = raw[~inside].assign(row=np.cumsum(inside)[~inside])
    told = moves(n, market, PARAMS, adjusted)
    return with_early_closes(told, n, comparable, outside, market, PARAMS, adjusted)


def verdicts(raw: pd.DataFrame, **more) -> list[tuple]:
    columns = ["row", "kind", "suspected", "settled"]
    return list(found(raw, **more)[columns].itertuples(index=False, name=None))


def test_nothing_is_told_before_the_session_after():
    assert verdicts(stock([])) == []


def test_it_is_provisional_at_the_close_of_the_ex_date():
    assert verdicts(stock(NEW[:1])) == [(EVE, "spin_off", "spin_off", -1)]


def test_it_stands_with_the_session_after_that():
    assert verdicts(stock(NEW[:2])) == [(EVE, "spin_off", "spin_off", 1)]
    assert verdicts(stock(NEW)) == [(EVE, "spin_off", "spin_off", 1)]


def test_a_wrong_close_with_the_next_session_on_the_old_level_is_no_distribution():
    assert verdicts(stock(OLD[:1])) == []
    assert verdicts(stock(OLD)) == []


def test_it_is_taken_back_by_a_session_on_the_old_level():
    assert verdicts(stock([NEW[0], OLD[1]]))[0] == (EVE, "jump", "spin_off", 1)


def test_the_part_is_what_is_missing_of_the_middle_of_that_row():
    (part,) = found(stock(NEW)).to_dict("records")
    assert part["close_before"] == pytest.approx(100.398, abs=0.001)  # the root of 101.0 * 99.8
    assert part["price_ratio"] == pytest.approx(94.5 / 100.398, abs=1e-5)
    assert part["move"] == pytest.approx(np.log(94.5 / 100.398), abs=1e-5)
    assert part["overnight"] == pytest.approx(np.log(94.2 / 100.398) / np.log(94.5 / 100.398), abs=1e-3)
    assert (part["close"], part["close_after"], part["shares"]) == (94.5, 95.0, pytest.approx(1))
    assert part["confidence"] == 0.9


@pytest.mark.parametrize(
    ("close", "after"),
    [
        (107.0, [(107.1, 107.9, 106.6, 107.2), (107.0, 107.8, 106.4, 107.5)]),  # nothing is paid in
        (99.0, [(99.1, 99.9, 98.8, 99.4), (99.2, 100.0, 98.9, 99.5)]),  # less than two ordinary days
        (94.0, [(97.5, 98.4, 96.3, 96.5), (96.6, 98.2, 96.0, 96.3)]),  # the next session opens elsewhere
        (94.0, [(94.2, 99.6, 93.8, 99.2), (99.0, 99.9, 98.5, 99.4)]),  # it closes on the old level
    ],
)
def test_another_close_outside_its_range_is_no_distribution(close, after):
    raw = stock(after, eve=(100.2, 101.0, 99.8, close))
    assert "spin_off" not in found(raw)["suspected"].tolist()


def test_what_many_people_traded_at_is_news_of_the_last_minutes():
    raw = stock(NEW)
    raw.loc[EVE, "volume"] = 4e6
    assert "spin_off" not in found(raw)["kind"].tolist()


def test_of_two_such_rows_of_a_session_nothing_says_which_is_right():
    raw = stock(NEW)
    again = raw.iloc[[EVE]].assign(close=93.0)
    twice = pd.concat([raw[: EVE + 1], again, raw[EVE + 1 :]], ignore_index=True)
    assert "spin_off" not in found(twice)["kind"].tolist()


def test_it_says_nothing_of_a_session_that_is_not_the_next_one():
    raw = stock(NEW).drop(index=EVE + 1).reset_index(drop=True)
    assert "spin_off" not in found(raw)["kind"].tolist()


def test_it_says_nothing_of_the_symbol_that_comes_next():
    raw = pd.concat([stock([]), stock(NEW, eve=NEW[0], symbol="T")[EVE + 1 :]], ignore_index=True)
    assert verdicts(raw) == []


def test_a_vendor_who_takes_distributions_out_would_have_shown_it():
    assert "spin_off" not in found(stock(NEW), adjusted=True)["kind"].tolist()


def test_a_panic_has_no_distributions():
    raw = stock(NEW)
    size = 5000 + len(raw) + 1
    calm = Market(*(np.full(size, x) for x in (0.0, 0.5, 1.0, 0.0, 0.01, 0.0, 0.0)))
    assert verdicts(raw, market=calm) == [(EVE, "spin_off", "spin_off", 1)]
    calm.reach[5000 + EVE] = 4.0
    assert "spin_off" not in found(raw, market=calm)["kind"].tolist()


def test_prices_are_on_the_basis_of_the_bar_before():
    (part,) = found(stock(NEW), price_factor=7.0).to_dict("records")
    assert (part["row"], part["kind"], part["settled"]) == (EVE, "spin_off", 1)
    assert part["close_before"] == pytest.approx(7 * 100.398, abs=0.01)


def test_it_goes_before_the_jump_that_the_bars_on_both_sides_make():
    raw = stock(NEW)
    raw.loc[EVE, "close"] *= 0.8
    raw.loc[EVE + 1 :, PRICES] *= 0.8
    inside = raw.drop(index=EVE).reset_index(drop=True)
    assert moves(Neighbours(inside), Market.none(), PARAMS)["kind"].tolist() == ["jump"]
    assert verdicts(raw) == [(EVE, "spin_off", "spin_off", 1)]


def test_without_such_a_row_all_is_as_it_was():
    raw = stock(NEW, eve=NEW[0])
    told = found(raw)
    pd.testing.assert_frame_equal(told, moves(Neighbours(raw), Market.none(), PARAMS))
    assert list(told) == [*STATE, *EVIDENCE]


@pytest.mark.filterwarnings("error")
def test_no_such_row_makes_a_library_complain():
    for volume in (0.0, 1e6):
        raw = stock(NEW)
        raw.loc[EVE - 25 : EVE, "volume"] = volume
        found(raw)
    young = stock(NEW)[EVE:].reset_index(drop=True)
    assert found(young).empty
    found(stock(NEW)[EVE - 1 :].reset_index(drop=True))


def test_the_history_is_cut_at_the_ex_date_and_the_row_stays_set_aside():
    bars, quarantine, events = cleaned(stock(NEW).astype({"symbol": "string"}))
    assert quarantine["reason"].tolist() == ["close_outside_range"]
    assert events[["kind", "status", "told_by"]].values.tolist() == [["spin_off", "confirmed", "prices"]]
    assert events["date"].item() == stock(NEW)["date"][EVE + 1]
    assert bars["segment"].tolist() == [0] * EVE + [1] * len(NEW)
