"""How right the verdicts of cleaning are: on planted events and faults, and judged by another vendor.

Planted by `pitwise.simulation.drawn`, whose habits no detector was fitted to. Judged on the S&P 500's
file: by the second vendor's tape from 2015 on (PITWISE_SECOND_VENDOR_CSV) and by the list of public
events. "Held out" are the symbols of odd place in alphabetical order, which the judge of moves was not
fitted to. In a crash (`pitwise.simulation.crash`) nothing happened but what was planted.
"""

import argparse
import statistics

import numpy as np
import pandas as pd
from market import PROJECT, market_path, seconds
from tape import (
    LEFT,
    SAME,
    VISIBLE,
    compare,
    confirmed,
    contradicted,
    displaced,
    keyed,
    listed_faults,
    matched,
    public_events,
    second_vendor_path,
)

from pitwise.bars.basis import on_last_basis
from pitwise.bars.calendar import session_date, session_number
from pitwise.bars.sources.csv_files import csv_bars
from pitwise.cleaning.clean import Cleaned, CleanParams, clean
from pitwise.simulation.crash import crash_market, crash_sessions
from pitwise.simulation.drawn import drawn_market, plant_drawn
from pitwise.simulation.market import Market
from pitwise.stage import load_params

EVENTS = ["split", "spin_off", "jump", "halt", "gap", "symbol_reused"]
ROWS = ["bad_print", "scale_error", "displaced", "repeated", "stale", "no_volume", "absurd_volume"]
PLANTED = {
    **dict.fromkeys(["split", "spin_off", "special_dividend", "jump", "halt", "gap"], 50),
    **dict.fromkeys(["bad_print", "scale_error", "displaced", "absurd_volume"], 50),
    **{"stale": 20, "no_volume": 20, "symbol_reused": 8, "displaced_session": 3, "repeated_session": 1},
}
WINDOW = 30
BINS = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
NOT_A_FAULT = "too_little_history"


def told(cleaned: Cleaned) -> pd.DataFrame:
    """The events that stand."""
    events = cleaned.events
    if "status" in events:
        events = events[events["status"] != "withdrawn"]
    return events.reset_index(drop=True)


def refused(cleaned: Cleaned) -> pd.DataFrame:
    """The rows that are set aside for what they are."""
    return cleaned.quarantine[cleaned.quarantine["reason"] != NOT_A_FAULT]


# Planted.


def fault_rows(truth: pd.DataFrame) -> pd.DataFrame:
    """The truth's faults, a line for each row struck: symbol, date, kind."""
    faults = truth[truth["kind"].isin(ROWS)]
    each = faults.loc[faults.index.repeat(faults["sessions"])]
    behind = each.groupby(level=0).cumcount().to_numpy()
    dates = session_date(session_number(each["date"]) + behind)
    return each[["symbol", "kind"]].assign(date=dates).reset_index(drop=True)


def planted_scores(market: Market, cleaned: Cleaned) -> pd.DataFrame:
    """By kind: planted, caught (for whatever reason), found (under that name), right of those found.

    An event is right at its session; a row that is set aside, if any fault was planted in it.
    """
    truth = market.truth.assign(kind=market.truth["kind"].replace("special_dividend", "spin_off"))
    events, rows = told(cleaned), refused(cleaned)
    counts = {}
    for kind in EVENTS:
        true, found = keyed(truth[truth["kind"] == kind]), keyed(events[events["kind"] == kind])
        right = int(found.isin(true).sum())
        counts[kind] = len(true), int(true.isin(found).sum()), len(found), right
    faults = fault_rows(truth)
    set_aside, faulty = keyed(rows), keyed(faults)
    for kind in ROWS:
        true, found = keyed(faults[faults["kind"] == kind]), keyed(rows[rows["reason"] == kind])
        caught, right = int(true.isin(set_aside).sum()), int(found.isin(faulty).sum())
        counts[kind] = len(true), caught, len(found), right
    wrongly = int((~set_aside.isin(faulty)).sum())
    counts["any row"] = len(faulty), int(faulty.isin(set_aside).sum()), len(rows), len(rows) - wrongly
    return pd.DataFrame(counts, index=["planted", "caught", "found", "right"]).T


def planted_beliefs(market: Market, cleaned: Cleaned) -> pd.DataFrame:
    """Confidence, and whether it was right, of the events told.

    A jump is right where nothing else was planted.
    """
    events = told(cleaned)
    if "confidence" not in events:
        return pd.DataFrame(columns=["kind", "confidence", "right"])
    truth = market.truth.assign(kind=market.truth["kind"].replace("special_dividend", "spin_off"))
    faults = keyed(fault_rows(truth))
    right = pd.Series(False, index=events.index)
    for kind, part in events.groupby("kind"):
        at = keyed(part)
        true = faults if kind in ROWS else keyed(truth[truth["kind"] == kind])
        if kind == "jump":
            others = truth[~truth["kind"].isin(["jump", "halt", "symbol_reused"])]
            right[part.index] = ~at.isin(keyed(others)) & ~at.isin(faults)
        else:
            right[part.index] = at.isin(true)
    return events[["kind", "confidence"]].assign(right=right)


# Judged.


class Judge:
    """What the tape and the list of public events say of the file."""

    def __init__(self, bars: pd.DataFrame, second: pd.DataFrame):
        self.bars, self.second = bars, second
        self.off = compare(bars, second)
        self.confirmed, self.contradicted = confirmed(self.off), contradicted(self.off)
        self.displaced, self.pairs = displaced(bars, self.off)
        self.events = public_events()
        self.held_out = set(sorted(bars["symbol"].astype(str).unique())[1::2])

    def held(self, index: pd.MultiIndex) -> np.ndarray:
        return index.get_level_values("symbol").isin(self.held_out)

    def bad_prints(self, cleaned: Cleaned) -> pd.Series:
        """Of the rows set aside as bad prints: True where the tape contradicts them, False where it
        confirms them; those it cannot judge are left out."""
        rows = refused(cleaned)
        at = keyed(rows[rows["reason"].isin(["bad_print", "scale_error"])])
        judged = self.off.reindex(at)[["high", "low", "close"]].notna().all(axis=1)
        wrong = self.contradicted.reindex(at)
        return wrong[judged | wrong].astype(bool)

    def left(self, cleaned: Cleaned) -> tuple[pd.Series, pd.Series]:
        """Of the spin-offs told, which are public; of the public ones that count, which were told."""
        return self._told_and_public(cleaned, ["spin_off"], LEFT)

    def splits(self, cleaned: Cleaned) -> tuple[pd.Series, pd.Series]:
        return self._told_and_public(cleaned, ["split"], ["split"])

    def _told_and_public(
        self, cleaned: Cleaned, found_kinds: list[str], kinds: list[str]
    ) -> tuple[pd.Series, pd.Series]:
        events = told(cleaned)
        found = events[events["kind"].isin(found_kinds)]
        public = self.events[self.events["kind"].isin(kinds)]
        match = matched(found, public)
        right = pd.Series(found.index.isin(match.dropna()), index=keyed(found))
        counts = public["price_ratio"] <= 1 - VISIBLE
        return right, match[counts].notna().set_axis(keyed(public[counts]))

    def wrong_closes(self, cleaned: Cleaned) -> pd.Series:
        """Of the closes more than 5% off the tape: which rows were set aside."""
        wrong = self.off.index[(self.off["close"].abs() > 0.05).to_numpy()]
        return pd.Series(wrong.isin(keyed(refused(cleaned))), index=wrong)

    def copies(self, cleaned: Cleaned) -> tuple[pd.Series, pd.Series]:
        """Of the displaced rows: set aside or not; of the pairs without a tape: one of them or not."""
        rows = keyed(refused(cleaned))
        first, other = keyed(self.pairs), keyed(self.pairs.assign(date=self.pairs["other"]))
        told_by_tape = pd.Series(self.displaced.isin(rows), index=self.displaced)
        return told_by_tape, pd.Series(first.isin(rows) | other.isin(rows), index=first)

    def returns(self, cleaned: Cleaned) -> pd.Series:
        """Of the daily returns of clean bars: True where the second vendor has the same.

        Left out: those over an ex-date of the list, those of a listed fault of the second vendor, and
        those of which it lacks a session.
        """
        bars = on_last_basis(cleaned.bars)
        at = keyed(bars)
        close = pd.DataFrame({"ours": bars["close"].to_numpy()}, index=at)
        theirs = self.second.set_index(keyed(self.second))["close"]
        listed = listed_faults(theirs.index)["close"]
        close["theirs"] = theirs[~listed].reindex(at)
        era = pd.Series(0, index=at)
        number = session_number(bars["date"])
        for row in self.events.itertuples():
            ex_date = session_number(pd.Series([row.date]))[0]
            era += (at.get_level_values("symbol") == row.symbol) & (number >= ex_date)
        symbol = at.get_level_values("symbol")
        returns = close / close.groupby(symbol).shift() - 1
        same_era = era == era.groupby(symbol).shift()
        judged = returns.notna().all(axis=1) & same_era
        return ((returns["ours"] - returns["theirs"]).abs() <= SAME)[judged]

    def true_rows_lost(self, cleaned: Cleaned) -> pd.Series:
        """By reason: rows set aside that the tape confirms."""
        rows = refused(cleaned)
        lost = self.confirmed.reindex(keyed(rows)).to_numpy(bool)
        return pd.Series(rows["reason"].to_numpy()[lost], index=keyed(rows)[lost], dtype=object)

    def beliefs(self, cleaned: Cleaned) -> pd.DataFrame:
        """Confidence and whether it was right, of what the tape or the list can judge."""
        events = told(cleaned)
        if "confidence" not in events:
            return pd.DataFrame(columns=["kind", "confidence", "right"])
        confidence = events["confidence"].set_axis(keyed(events))
        kinds = events["kind"].astype(str).set_axis(keyed(events))
        copy_right = pd.Series(True, index=self.displaced)
        copy_right = pd.concat([copy_right, pd.Series(False, index=self.off.index[self.confirmed])])
        answers = {
            ("spin_off",): self.left(cleaned)[0],
            ("split",): self.splits(cleaned)[0],
            ("bad_print", "scale_error"): self.bad_prints(cleaned),
            ("displaced", "repeated"): copy_right,
        }
        parts = []
        for names, right in answers.items():
            here = kinds.isin(names).to_numpy()
            verdict = right[~right.index.duplicated()].reindex(confidence.index[here])
            part = pd.DataFrame({"kind": kinds[here], "confidence": confidence[here], "right": verdict})
            parts.append(part.dropna())
        return pd.concat(parts, ignore_index=True)


def judged_table(judge: Judge, cleaned: Cleaned) -> pd.DataFrame:
    """Each measure: share, and of how many; on all symbols and on those held out."""
    spin_right, spin_told = judge.left(cleaned)
    split_right, split_told = judge.splits(cleaned)
    large = spin_told[spin_told.index.isin(keyed(judge.events[judge.events["price_ratio"] <= 0.92]))]
    by_tape, pairs = judge.copies(cleaned)
    closes = judge.wrong_closes(cleaned)
    lost = judge.true_rows_lost(cleaned)
    true = judge.off.index[judge.confirmed.to_numpy()]
    copied = lost.isin(["displaced", "repeated"])
    rows = {
        "displaced, told by the tape: caught": by_tape,
        "displaced, pairs without a tape: caught": pairs,
        "true rows kept by the test of copies": pd.Series(~true.isin(lost.index[copied]), index=true),
        "true rows kept": pd.Series(~true.isin(lost.index), index=true),
        "bad prints: precision": judge.bad_prints(cleaned),
        "closes more than 5% wrong: caught": closes,
        "  of which no displaced row": closes[~closes.index.isin(judge.displaced)],
        "spin-offs and special dividends: precision": spin_right,
        f"spin-offs and special dividends of {VISIBLE:.0%} or more: recall": spin_told,
        "  of which of 8% or more": large,
        "splits: precision": split_right,
        "splits: recall": split_told,
        f"daily returns within {SAME}": judge.returns(cleaned),
    }
    table = {}
    for name, right in rows.items():
        held = right[judge.held(right.index)]
        table[name] = _share(right) | {f"{k}, held out": v for k, v in _share(held).items()}
    return pd.DataFrame(table).T


def _share(right: pd.Series) -> dict[str, str]:
    """The share, and how many were wrong of how many."""
    if not len(right):
        return {"share": "-", "wrong": "0 of 0"}
    wrong = int((~right.astype(bool)).sum())
    return {"share": f"{right.astype(bool).mean():.5f}", "wrong": f"{wrong:,} of {len(right):,}"}


def reliability(beliefs: pd.DataFrame) -> pd.DataFrame:
    """Of the verdicts of about the same confidence: how many, and the share that was right."""
    beliefs = beliefs.dropna().astype({"confidence": float, "right": bool})
    band = pd.cut(beliefs["confidence"], BINS, include_lowest=True)
    by_band = beliefs.groupby(band, observed=False)
    return pd.DataFrame(
        {"n": by_band.size(), "said": by_band["confidence"].mean(), "right": by_band["right"].mean()}
    ).round(3)


# The crash.


def windows(bars: pd.DataFrame, segment: pd.Series | None = None) -> int:
    """Windows of `WINDOW` consecutive sessions of a symbol, within a segment."""
    number = pd.Series(session_number(bars["date"]), index=bars.index)
    symbol = bars["symbol"].astype(str)
    joined = (number == number.shift() + 1) & (symbol == symbol.shift())
    if segment is not None:
        joined &= segment == segment.shift()
    length = (~joined).cumsum().value_counts()
    return int((length - WINDOW + 1).clip(lower=0).sum())


def crash_scores(seed: int, params: CleanParams) -> dict[str, int]:
    market = plant_drawn(crash_market(456, 400, seed), seed, {"bad_print": 20})
    cleaned = clean(market.bars, params)
    events, set_aside = told(cleaned), keyed(refused(cleaned))
    planted = keyed(market.truth)
    best = market.bars[~keyed(market.bars).isin(planted)]
    days = np.sort(market.bars["date"].unique())[crash_sessions(400, seed)]
    fell = events["date"].isin(days)
    counts, calm = events[fell]["kind"].value_counts(), events[~fell]["kind"].value_counts()
    kinds = ("spin_off", "split", "symbol_reused")
    return {
        **{f"{kind}, in its 12 sessions": int(counts.get(kind, 0)) for kind in kinds},
        **{f"{kind}, in the {400 - 12} others": int(calm.get(kind, 0)) for kind in kinds},
        "bad prints planted": len(planted),
        "caught": int(planted.isin(set_aside).sum()),
        "rows set aside, not planted": int((~set_aside.isin(planted)).sum()),
        "windows": windows(best),
        "windows lost": windows(best) - windows(cleaned.bars, cleaned.bars["segment"]),
    }


def planted(seeds: int, params: CleanParams) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores by kind, added up over markets; and what was believed."""
    scores, beliefs = [], []
    for seed in range(seeds):
        market = drawn_market(250, 900, seed, PLANTED)
        cleaned = clean(market.bars, params)
        scores.append(planted_scores(market, cleaned))
        beliefs.append(planted_beliefs(market, cleaned))
    total = sum(scores[1:], start=scores[0])
    total["precision"] = (total["right"] / total["found"]).round(3)
    total["recall"] = (total["caught"] / total["planted"]).round(3)
    total.loc["jump", "precision"] = float("nan")  # the market makes large moves that nobody planted
    return total, pd.concat(beliefs)


def main(seeds: int, each: bool) -> None:
    params = load_params(PROJECT, "clean", CleanParams)
    total, beliefs = planted(seeds, params)
    print(f"planted, {seeds} markets\n{total.to_string()}\n")

    bars, second = csv_bars(market_path()), csv_bars(second_vendor_path())
    judge = Judge(bars, second)
    cleaned = clean(bars, params)
    print(f"judged on the S&P 500's file\n{judged_table(judge, cleaned).to_string()}\n")
    print("rows set aside, and those of them that the second vendor confirms")
    lost = judge.true_rows_lost(cleaned).value_counts()
    reasons = cleaned.quarantine["reason"].value_counts().to_frame("rows")
    print(reasons.assign(confirmed=lost).fillna(0).astype(int).to_string(), "\n")
    if each:
        print_each(judge, cleaned)

    for name, part in {"planted": beliefs, "judged": judge.beliefs(cleaned)}.items():
        print(f"confidence, {name}\n{reliability(part).to_string()}\n")

    crashes = pd.DataFrame([crash_scores(seed, params) for seed in range(seeds)])
    print(f"a crash, {seeds} markets of 456 symbols\n{crashes.sum().to_string()}\n")

    times = [seconds(lambda: clean(bars, params)) for _ in range(3)]
    print(f"the whole market in {statistics.median(times):.2f} s (median of 3)")


def print_each(judge: Judge, cleaned: Cleaned) -> None:
    """Whatever was judged wrong, by name."""
    spin_right, spin_told = judge.left(cleaned)
    split_right, split_told = judge.splits(cleaned)
    by_tape, pairs = judge.copies(cleaned)
    lists = {
        "spin-offs told, not public": spin_right,
        "spin-offs public, not told": spin_told,
        "splits told, not public": split_right,
        "splits public, not told": split_told,
        "bad prints that the tape confirms": judge.bad_prints(cleaned),
        "closes more than 5% wrong, kept": judge.wrong_closes(cleaned),
        "displaced rows kept": by_tape,
        "equal pairs kept": pairs,
        "returns that differ": judge.returns(cleaned),
    }
    for name, right in lists.items():
        wrong = right.index[~right.to_numpy(bool)]
        print(f"{name}: {', '.join(f'{symbol} {date:%Y-%m-%d}' for symbol, date in wrong)}\n")
    lost = judge.true_rows_lost(cleaned)
    print("true rows set aside:", ", ".join(f"{s} {d:%Y-%m-%d} {r}" for (s, d), r in lost.items()), "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="markets to plant in, and to crash")
    parser.add_argument("--each", action="store_true", help="name whatever was judged wrong")
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.each)
