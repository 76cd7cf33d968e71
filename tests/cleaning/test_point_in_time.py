"""What is clean of the first sessions does not depend on later ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deliveries import delivery, exactly, versions_of
from support.faulty_bars import AT, CLEAN, PRICES

from pitwise.bars.calendar import session_close
from pitwise.bars.landing import Landing
from pitwise.cleaning.as_of import EVER, history, pasts, spans_between
from pitwise.cleaning.clean import clean
from pitwise.cleaning.events import LIFE, known_events
from pitwise.simulation.market import SyntheticParams, synthetic_market

FAULTS = {"split": 4, "spin_off": 2, "jump": 2, "bad_print": 3, "scale_error": 2, "stale": 3, "gap": 1}
FAULTS |= {"duplicate": 2, "conflicting_duplicate": 2, "absurd_volume": 2}
PARAMS = CLEAN.model_copy(update={"min_history": 1})
HOUR = pd.Timedelta("1h")


def market(seed: int, vendor: bool, symbols: int = 6) -> pd.DataFrame:
    sizes = {"symbols": symbols, "start": "2012-01-03", "sessions": 260}
    raw = synthetic_market(SyntheticParams(**sizes, seed=seed, signal=0, faults=FAULTS)).bars
    rng = np.random.default_rng(seed)
    silent = (raw["symbol"] == "SYN2") & raw["date"].between("2012-04-02", "2012-07-20")
    raw = raw[~silent].reset_index(drop=True)
    if vendor:  # dividends, splits and errors of a vendor, at random
        ratio = rng.choice(
            [1.0, 1.01, 2.0, 1.25, 1.43, 0.7], len(raw), p=[0.97, 0.01, 0.005] + [0.005] * 3
        )
        raw["adj_close"] = (raw["close"] * ratio.cumprod()).where(rng.random(len(raw)) > 0.01)
        wrong = rng.random(len(raw)) < 0.01
        raw.loc[wrong, ["high", "close"]] *= 1.4
        raw.loc[rng.random(len(raw)) < 0.05, PRICES] *= 2  # whole bars, and right again at the next
    return raw


def on(raw: pd.DataFrame, share: float) -> pd.Timestamp:
    days = np.sort(raw["date"].unique())
    return pd.Timestamp(days[int(share * len(days))])


@given(seed=st.integers(0, 1000), vendor=st.booleans(), share=st.floats(0.1, 0.95))
@settings(max_examples=10, deadline=None)
def test_bars_judged_by_themselves_are_cleaned_as_if_there_were_no_later_ones(seed, vendor, share):
    raw = market(seed, vendor)
    params = PARAMS.model_copy(update={"verdicts": "off"})
    until = on(raw, share)
    whole = clean(raw, params)
    early = clean(raw[raw["date"] <= until], params)
    for of_all, alone in zip(whole[:2], early[:2], strict=True):
        first = of_all[of_all["date"] <= until].reset_index(drop=True)
        pd.testing.assert_frame_equal(first, alone, check_exact=True)


@given(seed=st.integers(0, 1000), share=st.floats(0.1, 0.95))
@settings(max_examples=8, deadline=None)
def test_what_was_set_aside_and_told_by_a_session_is_what_its_bars_alone_say(seed, share):
    raw = market(seed, vendor=False)
    until = on(raw, share)
    at = session_close(pd.Series([until])).item()
    whole = clean(raw, PARAMS)
    early = clean(raw[raw["date"] <= until], PARAMS)
    # A bar with a later session's prices was never there, which is known when that session is.
    absent = whole.events.loc[whole.events["kind"] == "displaced", "symbol"]
    aside = whole.quarantine[(whole.quarantine["date"] <= until) & (whole.quarantine["since"] <= at)]
    aside, alone = (q[~q["symbol"].isin(absent)] for q in (aside, early.quarantine))
    columns = ["symbol", "date", "reason", "since"]
    exactly(aside[columns], alone[columns])
    columns = ["symbol", "date", "kind", "status", *LIFE]
    told, alone = (e[~e["symbol"].isin(absent)] for e in (known_events(whole.events, at), early.events))
    exactly(told[columns], alone[columns])


def test_what_the_adjusted_close_told_of_a_bar_stays_told_where_the_bar_is_set_aside_later(calm):
    raw = calm.assign(adj_close=calm["close"])
    raw.loc[AT, ["high", "close"]] *= 1.4
    at = session_close(raw["date"])[AT]
    landing = delivery(raw, session_close(raw["date"]).max() + HOUR, history="assumed")
    told = history(versions_of([landing]), PARAMS).cleaned.events
    early = clean(raw[: AT + 1], PARAMS).events
    assert early["kind"].tolist() == ["bad_close", "bad_print"]
    exactly(known_events(told, at)[["kind", "status"]], early[["kind", "status"]])


@given(seed=st.integers(0, 1000), vendor=st.booleans())
@settings(max_examples=4, deadline=None)
def test_the_pasts_of_all_symbols_are_what_the_bars_known_then_say(seed, vendor):
    raw = market(seed, vendor).dropna(subset=["symbol", "date"])
    landing = delivery(raw, session_close(raw["date"]).max() + HOUR, history="assumed")
    versions = versions_of([landing])
    told = history(versions, PARAMS)
    for share in (0.2, 0.5, 0.8):
        until = on(raw, share)
        at = session_close(pd.Series([until])).item() + HOUR
        names = pd.Series(sorted(raw["symbol"].unique()), dtype="string")
        spans = pd.DataFrame({"symbol": names, "since": EVER, "until": at})
        then = pasts(versions, spans, told.market, PARAMS)
        part = delivery(raw[raw["date"] <= until], at, history="assumed")
        alone = history(versions_of([part]), PARAMS)
        symbol = then.spans.set_index("name")["symbol"]
        absent = told.market.absent
        # But for the bars that carry the prices of a session yet to come: their symbols are left out.
        odd = absent.loc[(absent["date"] <= until) & (absent["copy_of"] > until), "symbol"]
        for table in ("bars", "quarantine"):
            past, wanted = getattr(then.cleaned, table), getattr(alone.cleaned, table)
            past = past.assign(symbol=past["symbol"].map(symbol).astype("string"))
            past, wanted = (t[~t["symbol"].isin(odd)] for t in (past, wanted))
            order = ["symbol", "date", *wanted.columns.difference(["symbol", "date"])]
            exactly(past.sort_values(order), wanted.sort_values(order))


def test_between_two_changes_of_a_symbol_its_bars_are_those_of_the_first_sessions():
    raw = market(3, vendor=False).dropna(subset=["symbol", "date"])
    landing = delivery(raw, session_close(raw["date"]).max() + HOUR, history="assumed")
    versions = versions_of([landing])
    told = history(versions, PARAMS)
    assert len(told.changes) >= 10
    spans = spans_between(told.changes)
    past = pasts(versions, spans, told.market, PARAMS)
    then = past.cleaned.bars
    for span in past.spans.itertuples(index=False):
        middle = span.since + (min(span.until, landing.received_at) - span.since) / 2
        its = raw[(session_close(raw["date"]) <= middle) & (raw["symbol"] == span.symbol)]
        if its.empty:
            continue
        alone = clean(its, PARAMS, market=told.market).bars
        first = then[(then["symbol"] == span.name) & (then["date"] <= its["date"].max())]
        exactly(first.drop(columns="symbol"), alone.drop(columns="symbol"))


def copied(bars: pd.DataFrame, at: int, of: int) -> pd.DataFrame:
    """One session carries the prices and the volume of another."""
    bars.loc[at, [*PRICES, "volume"]] = bars.loc[of, [*PRICES, "volume"]].to_numpy()
    return bars


def wild(calm: pd.DataFrame) -> pd.DataFrame:
    """The stock with days of 3% and calm nights, so that a bar of another session shows."""
    moves = np.random.default_rng(0).normal(0, 0.03, 300).cumsum()
    calm[["high", "low", "close"]] *= np.exp(moves)[:, None]
    calm["open"] *= np.exp(np.append(0, moves[:-1]))
    calm["high"] = calm[PRICES].max(axis=1)
    calm["low"] = calm[PRICES].min(axis=1)
    return calm


def observed(bars: pd.DataFrame) -> list[Landing]:
    """Each session live, an hour after its close."""
    closes = session_close(bars["date"])
    days = zip(bars.groupby("date"), closes.drop_duplicates(), strict=True)
    return [delivery(rows, close + HOUR) for (_, rows), close in days]


@pytest.mark.parametrize("until", [AT, AT + 1, AT + 2, AT + 10, 299])
def test_a_bar_of_an_assumed_history_with_a_later_session_s_prices_is_absent_at_every_instant(
    calm, until
):
    raw = copied(wild(calm), at=AT, of=AT + 1)
    closes = session_close(raw["date"])
    versions = versions_of([delivery(raw, closes[299] + HOUR, history="assumed")])
    told = history(versions, PARAMS)
    assert told.cleaned.quarantine[["date", "reason"]].values.tolist() == [
        [raw["date"][AT], "displaced"]
    ]
    assert told.cleaned.quarantine["since"].item() == closes[AT]
    displaced = told.cleaned.events[told.cleaned.events["kind"] == "displaced"]
    assert displaced["copy_of"].tolist() == [raw["date"][AT + 1]]
    spans = pd.DataFrame({"symbol": ["S000"], "since": EVER, "until": closes[until] + HOUR})
    then = pasts(versions, spans.astype({"symbol": "string"}), told.market, PARAMS).cleaned.bars
    assert then["date"].tolist() == [*raw["date"][:AT], *raw["date"][AT + 1 : until + 1]]


def test_of_bars_observed_live_the_later_one_is_refused_as_repeated(calm):
    raw = copied(wild(calm), at=AT, of=AT + 1)
    told = history(versions_of(observed(raw)), PARAMS).cleaned
    assert told.quarantine[["date", "reason"]].values.tolist() == [[raw["date"][AT + 1], "repeated"]]
    assert told.quarantine["since"].item() == session_close(raw["date"])[AT + 1] + HOUR
    repeated = told.events[told.events["kind"] == "repeated"]
    assert repeated["copy_of"].tolist() == [raw["date"][AT]]
    assert repeated["first_known"].item() == session_close(raw["date"])[AT + 1] + HOUR


def test_of_a_history_assumed_up_to_a_bar_seen_live_the_live_one_is_the_copy(calm):
    raw = copied(wild(calm), at=AT, of=AT + 1)
    received = session_close(raw["date"])[AT] + HOUR
    first = delivery(raw[: AT + 1], received, history="assumed")
    told = history(versions_of([first, *observed(raw[AT + 1 :])]), PARAMS).cleaned
    assert told.quarantine[["date", "reason"]].values.tolist() == [[raw["date"][AT + 1], "repeated"]]


def test_a_symbol_has_no_clean_bars_before_its_least_history(calm):
    other = calm[100:].assign(symbol="ZZZ")
    raw = pd.concat([calm, other], ignore_index=True)
    days = calm["date"]
    assert set(clean(raw[raw["date"] <= days[178]], CLEAN).bars["symbol"]) == {calm["symbol"][0]}
    bars = clean(raw[raw["date"] <= days[179]], CLEAN).bars
    assert (bars["symbol"] == "ZZZ").sum() == 80


def test_an_absence_of_a_quarter_breaks_the_history_where_bars_are_judged_by_others(calm):
    gone = calm.drop(index=range(AT, AT + 60)).reset_index(drop=True)
    for verdicts, last in (("off", 0), ("all", 1)):
        bars = clean(gone, CLEAN.model_copy(update={"verdicts": verdicts})).bars
        assert bars["segment"].tolist() == [0] * AT + [last] * 90


def test_a_split_without_an_adjusted_close_is_left_in_where_bars_are_judged_by_themselves(calm):
    calm.loc[AT:, PRICES] /= 2
    cleaned = clean(calm, CLEAN.model_copy(update={"verdicts": "off"}))
    assert (cleaned.bars["price_factor"] == 1).all()
    assert cleaned.events.empty


def test_a_bar_of_a_session_that_is_not_sealed_is_judged_by_itself_alone(calm):
    last = calm["date"][299]
    calm.loc[299, PRICES] *= 100
    cleaned = clean(calm, CLEAN, unsealed=[last])
    assert cleaned.quarantine.empty
    assert cleaned.bars["price_factor"].tolist() == [1.0] * 300
    assert cleaned.events.empty
    judged = clean(calm, CLEAN)
    assert judged.quarantine.empty  # not yet: it may be a split
    events = judged.events[["date", "kind", "status"]]
    assert events.values.tolist() == [[last, "scale_error", "provisional"]]


def test_a_bar_that_is_not_sealed_has_no_part_in_the_verdict_on_the_one_before(calm):
    calm.loc[298, ["high", "close"]] *= 1.4
    assert clean(calm, CLEAN).quarantine["reason"].tolist() == ["bad_print"]
    assert clean(calm, CLEAN, unsealed=[calm["date"][299]]).quarantine.empty


def test_factors_and_segment_are_carried_on_to_a_bar_that_is_not_sealed(calm):
    adjusted = calm["close"].copy()
    calm.loc[AT:, PRICES] /= 2
    calm.loc[AT:, "volume"] *= 2
    calm.loc[299, ["open", "high", "low", "close"]] /= 3
    raw = calm.assign(adj_close=adjusted)
    bars = clean(raw, CLEAN, unsealed=[calm["date"][299]]).bars
    assert bars["share_factor"].round(9).tolist() == [1.0] * AT + [2.0] * (299 - AT) + [6.0]


def test_a_bar_is_judged_by_whether_its_session_was_over_when_it_became_known(calm):
    close = pd.Timestamp("2014-01-02 21:00", tz="UTC")
    calm["known_at"] = pd.Timestamp("2020-01-01", tz="UTC")
    calm.loc[0, "known_at"] = close - pd.Timedelta("1us")
    assert clean(calm, CLEAN).quarantine["reason"].tolist() == ["not_a_session"]
    calm.loc[0, "known_at"] = close
    assert clean(calm, CLEAN).quarantine.empty


@pytest.mark.parametrize("verdicts", ["off", "all"])
def test_a_step_that_is_taken_back_later_is_judged_as_it_was_before_that(calm, verdicts):
    raw = calm.assign(adj_close=calm["close"])
    raw.loc[AT, PRICES] *= 2  # as a split 1:2, until the next bar
    bars = clean(raw, CLEAN.model_copy(update={"verdicts": verdicts})).bars
    assert bars["price_factor"].tolist() == [1.0] * AT + [0.5] + [1.0] * (299 - AT)
    assert bars["share_factor"].tolist() == bars["price_factor"].tolist()
