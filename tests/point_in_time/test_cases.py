"""Cases that were seen to go wrong, each with its figures."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from support.deliveries import delivery, spans
from support.project import PROJECT

from pitwise.bars.calendar import is_session, session_close
from pitwise.bars.landing import Landing, land, landings
from pitwise.bars.schema import PRICES
from pitwise.bars.versions import BarVersions, bar_versions, known_bars
from pitwise.cleaning.clean import CleanParams
from pitwise.features.history import CREATED, known
from pitwise.features.versions import feature_history
from pitwise.features.windows import last_windows
from pitwise.stage import load_params
from pitwise.workspace import Workspace

CALENDAR = pd.date_range("2014-01-02", "2015-12-31", unit="us").to_series()
DAYS = CALENDAR[is_session(CALENDAR)].to_numpy()
CLOSES = session_close(pd.Series(DAYS))
HOUR = pd.Timedelta(hours=1)


def stock(symbol: str, sessions: int, close: float = 100.0) -> pd.DataFrame:
    """Bars that move up and down a little; the close of session t is `close` plus t % 4 / 4.

    No two have the same other prices: they would be copies.
    """
    closes = close + np.arange(sessions) % 4 / 4
    others = closes + np.arange(sessions) / 10_000
    bars = pd.DataFrame({"symbol": symbol, "date": DAYS[:sessions], "open": others - 0.25})
    bars = bars.assign(high=others + 0.5, low=others - 0.5, close=closes, volume=1000.0)
    return bars.astype({"symbol": "string"})


def market(sessions: int = 60) -> pd.DataFrame:
    return pd.concat([stock("AAA", sessions), stock("BBB", sessions, 40.0)], ignore_index=True)


def versions_of(*deliveries: Landing) -> BarVersions:
    return bar_versions(deliveries, 0.95)


def first_load(bars: pd.DataFrame, **changes) -> Landing:
    last = int(np.searchsorted(DAYS, bars["date"].max()))
    return delivery(bars, CLOSES[last] + HOUR, history="assumed", **changes)


def features(versions: BarVersions, verdicts: str = "off", min_history: int = 34) -> pd.DataFrame:
    rules = load_params(PROJECT, "clean", CleanParams)
    rules = rules.model_copy(update={"verdicts": verdicts, "min_history": min_history})
    return feature_history(versions, rules)[1]


def wrong_and_split() -> pd.DataFrame:
    """A bad print in session 150 and a split in session 250."""
    bars = stock("AAA", 300, close=86.95)
    assert bars.loc[149, "close"] == 87.2
    bars.loc[150, ["high", "close"]] = [131.5, 130.8]
    bars.loc[250:, PRICES] /= 2
    bars.loc[250:, "volume"] *= 2
    return bars


def test_a_later_verdict_holds_from_its_own_instant_and_a_later_split_from_its_own():
    history = features(versions_of(first_load(wrong_and_split())), "all")
    closes = [known(history, CLOSES[t]).set_index("event_timestamp")["close"] for t in (150, 151, 299)]
    assert [seen[CLOSES[149]] for seen in closes] == [87.2] * 3
    assert closes[0][CLOSES[150]] == 130.8
    assert CLOSES[150] not in closes[1].index
    factor = [
        known(history, CLOSES[t]).set_index("event_timestamp").loc[CLOSES[250], "price_factor"]
        for t in (250, 251)
    ]
    assert factor == [1, 2]


def test_without_verdicts_a_person_sees_what_was_delivered():
    history = features(versions_of(first_load(wrong_and_split())), "off")
    for at in (CLOSES[150], CLOSES[299] + 9 * HOUR):
        seen = known(history, at).set_index("event_timestamp")
        assert seen.loc[CLOSES[149], "close"] == 87.2
        assert seen.loc[CLOSES[150], "close"] == 130.8
    assert len(known(history, CLOSES[150])) == 151
    assert (history[CREATED] == history["event_timestamp"].clip(lower=CLOSES[33])).all()


def test_a_window_is_on_the_share_basis_of_its_last_session():
    bars = stock("AAA", 60).assign(adj_close=lambda b: b["close"])
    bars.loc[50:, [*PRICES, "adj_close"]] /= 2
    bars.loc[50:, "volume"] *= 2
    bars.loc[:49, "adj_close"] /= 2
    history = features(versions_of(first_load(bars)))
    before = last_windows(known(history, CLOSES[49]), ["close", "volume"], 4)["AAA"].values
    assert before.tolist() == [[100.5, 1000], [100.75, 1000], [100, 1000], [100.25, 1000]]
    after = last_windows(known(history, CLOSES[51]), ["close", "volume"], 4)["AAA"].values
    assert after.tolist() == [[50, 2000], [50.125, 2000], [50.25, 2000], [50.375, 2000]]


def test_leaving_a_ticker_out_of_a_load_withdraws_nothing():
    bars = market()
    only = first_load(bars), delivery(stock("AAA", 61), CLOSES[60])
    again = delivery(bars, CLOSES[61])
    for loads in (only, (*only, again)):
        found = versions_of(*loads).bars
        assert not found["withdrawn"].any()
        assert found.groupby("symbol")["date"].size().to_dict() == {"AAA": 61, "BBB": 60}


def test_a_failed_ticker_withdraws_nothing_and_a_hole_in_one_that_was_got_does():
    bars = market()
    asked = date(2014, 1, 2), date(2014, 3, 31)
    got = bars[bars["symbol"] == "AAA"].drop(index=30)
    first = first_load(bars, source="yfinance", covers=dict.fromkeys(["AAA", "BBB"], asked))
    second = delivery(got, CLOSES[60], source="yfinance", covers={"AAA": asked})
    found = versions_of(first, second)
    gone = found.bars[found.bars["withdrawn"]]
    assert list(zip(gone["symbol"], gone["date"], gone["known_at"], strict=True)) == [
        ("AAA", DAYS[30], CLOSES[60])
    ]
    assert len(known_bars(found, CLOSES[59] + HOUR)) == 120
    assert len(known_bars(found)) == 119


def test_an_absent_bar_outside_of_what_is_covered_or_of_another_source_stays():
    bars = market()
    recent = bars[bars["date"] >= DAYS[50]]
    other = bars.drop(index=30)
    loads = (
        first_load(bars),
        delivery(recent, CLOSES[60]),
        delivery(other, CLOSES[61], source="yfinance"),
    )
    assert len(versions_of(*loads).bars) == 120


def dividend_of(bars: pd.DataFrame, session: int, step: float) -> pd.DataFrame:
    """With an adjusted close of cents that a dividend at that session moves before it."""
    paid = (bars["symbol"] == "AAA") & (bars["date"] < DAYS[session])
    return bars.assign(adj_close=bars["close"].where(~paid, (bars["close"] * step).round(2)))


def test_one_dividend_is_one_row_of_factors_and_a_version_of_no_past_bar():
    before, after = dividend_of(market(), 0, 1.0), dividend_of(market(61), 60, 0.98)
    first = versions_of(first_load(before))
    found = versions_of(first_load(before), delivery(after, CLOSES[60] + HOUR))
    assert len(found.bars) == 122
    assert not found.bars.duplicated(["symbol", "date"]).any()
    new = found.factors[found.factors["known_at"] > CLOSES[59] + HOUR]
    assert new[["symbol", "kind"]].values.tolist() == [["AAA", "adjusted_close"]]
    assert new["date"].tolist() == [pd.Timestamp(DAYS[60])]
    assert new["factor"].iloc[0] == pytest.approx(1 / 0.98, rel=1e-4)
    assert len(found.factors) == len(first.factors) + 1
    history = features(found)
    assert not history.duplicated(["symbol", "event_timestamp"]).any()


def test_the_last_sessions_alone_after_a_dividend_are_the_same_one_row():
    before, after = dividend_of(market(), 0, 1.0), dividend_of(market(63), 60, 0.98)
    recent = after[after["date"] >= DAYS[55]]
    whole = versions_of(first_load(before), delivery(after, CLOSES[62]))
    part = versions_of(first_load(before), delivery(recent, CLOSES[62]))
    steps = whole.factors[whole.factors["factor"].sub(1).abs() > 1e-6]
    assert steps["date"].tolist() == [pd.Timestamp(DAYS[60])]
    same = part.factors[part.factors["factor"].sub(1).abs() > 1e-6]
    assert same["date"].tolist() == steps["date"].tolist()
    assert same["factor"].iloc[0] == pytest.approx(steps["factor"].iloc[0], rel=2e-4)


def test_a_split_of_a_source_on_the_newest_basis_is_one_row_and_prices_stay_as_delivered():
    bars, later = market(), market(61)
    split = {"basis": "split_adjusted"}
    mine = later["symbol"] == "AAA"
    later.loc[mine, PRICES] /= 2
    later.loc[mine, "volume"] *= 2
    found = versions_of(first_load(bars, **split), delivery(later, CLOSES[60], **split))
    assert len(found.bars) == 122
    splits = found.factors[found.factors["kind"] == "split"]
    assert splits[["symbol", "date", "factor"]].values.tolist() == [["AAA", pd.Timestamp(DAYS[60]), 2.0]]
    closes = known_bars(found, symbols=["AAA"])["close"]
    assert closes.iloc[[58, 59, 60]].tolist() == [100.5, 100.75, 50.0]


def live(*bars: tuple) -> pd.DataFrame:
    """(row of the market, close, instant) as live bars."""
    rows = pd.concat([row.to_frame().T.assign(close=close, known_at=at) for row, close, at in bars])
    return rows.astype(
        {"symbol": "string", "date": "datetime64[us]", "close": "float64"}
    ).infer_objects()


def test_an_old_file_again_does_not_undo_a_live_correction_and_new_news_does():
    bars = market()
    posted = live((bars.loc[58], 100.3, CLOSES[59] + 2 * HOUR))
    drained = delivery(posted, CLOSES[60], source="live", covers={})
    loads = first_load(bars), drained, delivery(bars, CLOSES[61])

    def close(found: BarVersions, at: pd.Timestamp | None = None) -> float:
        return known_bars(found, at, ["AAA"]).set_index("date").loc[DAYS[58], "close"]

    found = versions_of(*loads)
    assert close(found, CLOSES[59] + HOUR) == 100.5
    assert close(found, CLOSES[59] + 2 * HOUR) == 100.3
    assert close(found) == 100.3
    bars.loc[58, "close"] = 100.4
    assert close(versions_of(*loads, delivery(bars, CLOSES[62]))) == 100.4


def test_a_duplicate_row_of_the_source_hides_no_live_bar_and_contradicting_rows_stay_refused():
    bars = market()
    twice = pd.concat([bars, bars.loc[[58]], bars.loc[[40]].assign(close=100.1)], ignore_index=True)
    posted = live(
        (bars.loc[58], 100.3, CLOSES[59] + 2 * HOUR), (bars.loc[119], 40.4, CLOSES[59] + 2 * HOUR)
    )
    drained = delivery(posted, CLOSES[60], source="live", covers={})
    found = versions_of(first_load(twice), drained, delivery(twice, CLOSES[61]))
    rows = known_bars(found, symbols=["AAA"])
    assert rows.loc[rows["date"] == DAYS[58], "close"].tolist() == [100.3]
    assert sorted(rows.loc[rows["date"] == DAYS[40], "close"]) == [100.0, 100.1]
    history = features(found)
    assert CLOSES[40] not in set(history.loc[history["symbol"] == "AAA", "event_timestamp"])


def test_made_again_from_the_landings_nothing_that_was_known_is_restamped(tmp_path):
    workspace = Workspace(tmp_path)
    bars = market()
    tuesday = bars.copy()
    tuesday.loc[50, "close"] = 100.3
    loads = first_load(bars), delivery(tuesday, CLOSES[60])
    history = features(versions_of(*loads))
    for each in loads:
        land(workspace, each)
    again = features(versions_of(*landings(workspace)))
    pd.testing.assert_frame_equal(again, history, check_exact=True)
    monday = known(again, CLOSES[59] + HOUR)
    assert monday.set_index(["symbol", "event_timestamp"]).loc[("AAA", CLOSES[50]), "close"] == 100.5
    now = known(again).set_index(["symbol", "event_timestamp"])
    assert now.loc[("AAA", CLOSES[50]), "close"] == 100.3


def test_min_history_counts_the_bars_that_were_there():
    bars = market(40)
    history = features(versions_of(first_load(bars)))
    assert known(history, CLOSES[32]).empty
    assert len(known(history, CLOSES[33])) == 68


def test_a_session_is_sealed_by_its_coverage_once():
    bars = pd.concat([stock(f"S{i:02d}", 61) for i in range(20)], ignore_index=True)
    new, older = bars["date"] == DAYS[60], bars["date"] < DAYS[60]
    some = delivery(bars[new & (bars["symbol"] < "S18")], CLOSES[60] + HOUR)
    most = delivery(bars[new & (bars["symbol"] < "S19")], CLOSES[60] + 2 * HOUR)
    rest = delivery(bars[new], CLOSES[60] + 3 * HOUR)
    seals = versions_of(first_load(bars[older]), some).seals
    assert pd.Timestamp(DAYS[60]) not in set(seals["date"])
    for loads in ([some, most], [some, most, rest]):
        seals = versions_of(first_load(bars[older]), *loads).seals.set_index("date")["sealed_at"]
        assert seals[DAYS[60]] == CLOSES[60] + 2 * HOUR
        assert seals[DAYS[59]] == CLOSES[59]
    nothing = bars.iloc[:0]
    by_hand = delivery(
        nothing, CLOSES[60] + 90 * pd.Timedelta(minutes=1), seals=(pd.Timestamp(DAYS[60]).date(),)
    )
    seals = versions_of(first_load(bars[older]), some, by_hand, rest).seals.set_index("date")[
        "sealed_at"
    ]
    assert seals[DAYS[60]] == CLOSES[60] + 1.5 * HOUR
    assert spans(nothing) == {}
