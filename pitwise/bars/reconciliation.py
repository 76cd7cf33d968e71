"""Two sources of bars against each other: what stands in both was traded, what one has is its fault.

Levels need not agree. A vendor that adjusts for splits, spin-offs or dividends stands at a constant
factor to one that does not, and the factor steps at dates; prices are compared relative to it.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.calendar import is_session
from pitwise.bars.schema import BAR_KEY, NUMBERS, PRICES
from pitwise.errors import DataError

TOLERANCE = 0.001
"""Relative difference up to which two prices are the same; half a cent is allowed in any case."""
HALF_CENT = 0.005
SIDE = 7
"""Sessions on either side whose median is the ratio of the two sources: faults of up to four sessions
in a row do not move it, longer ones show as two steps."""
END = 3
"""As SIDE, at the first and last session that both have, where one side has none."""
DENIED = 2
"""Usual moves beyond the range of both neighbours: more, and they deny the price."""
FILLS = 5
"""Times as often as among opens that agree, an open is the close before: the source fills it in."""
STEP = 3
"""Usual moves of a step of the ratio from which the source whose price jumps can be told."""
RETURN_TOLERANCE = 0.001
UNLIKE = 0.5
"""Share of agreeing bars below which two sources mean different companies by one symbol."""
SIDES = ("a", "b")
VOTES = ("no_session", "missing", "own_range", "no_volume", "copy", "filled_open", "neighbours")
"""What can tell whose fault it is: no exchange session; a price that is missing; an open or close
outside the bar's own high and low; no volume; open, high and low of another session of the same symbol;
an open that is the close before, as some fill in; a price that the other source denies together with
the sessions before and after, in which both agree."""


def _sets(names: Sequence[str]) -> list[str]:
    """Every set of these names as a text; the bits of its place say which are in it."""
    count = len(names)
    return [" ".join(name for i, name in enumerate(names) if k >> i & 1) for k in range(1 << count)]


FIELDS = _sets(PRICES)
"""What `Reconciled.bars` may have in `fields`."""


class Reconciled(NamedTuple):
    bars: pd.DataFrame
    """Every bar of a symbol that both have, in the days that both cover; by symbol and date. `status` is
    agree, differ, only_a or only_b; the numbers of both, `open_a` to `volume_b`, as they came; `ratio`
    is the level of A over that of B around the bar; `fields` names the prices that differ, `difference`
    is the largest of theirs in logs, A over B; `fault` is a, b or unknown, empty where they agree;
    `told_by` names what told it, of VOTES. `inside` is False where the other's bars of the symbol begin
    later or end before."""
    steps: pd.DataFrame
    """Where the ratio changes: symbol, `before` and `date` (the sessions on both sides of the step),
    `ratio_before`, `ratio_after`, `step` (after over before), the log returns `return_a` and `return_b`
    across it, and `moves` (a | b | unknown): in which source the price jumps."""
    summary: dict[str, Any]
    """Counts; what `metrics/reconciliation.json` begins with."""


def reconciled(a: pd.DataFrame, b: pd.DataFrame, tolerance: float = TOLERANCE) -> Reconciled:
    """Compare two sources symbol by symbol and session by session.

    Args:
        a, b: symbol, date, prices in dollars, volume in shares; in any order. BRK-B is BRK.B.
        tolerance: relative; half a cent on the coarser of the two levels is allowed in any case.

    Raises:
        DataError: they have no symbol or no day in common.
    """
    (a, read_a), (b, read_b) = _keyed(a), _keyed(b)
    symbols = np.intersect1d(a["symbol"].unique(), b["symbol"].unique())
    if not len(symbols):
        raise DataError(
            f"A and B have no symbol in common: A has {_some(a['symbol'])}, B has {_some(b['symbol'])}."
        )
    first = max(a["date"].min(), b["date"].min())
    last = min(a["date"].max(), b["date"].max())
    if first > last:
        raise DataError(
            "A and B have no day in common: A is "
            f"{a['date'].min():%Y-%m-%d} to {a['date'].max():%Y-%m-%d}, B is "
            f"{b['date'].min():%Y-%m-%d} to {b['date'].max():%Y-%m-%d}."
        )
    shared = [s["symbol"].isin(symbols) & s["date"].between(first, last) for s in (a, b)]
    bars = _side_by_side(a[shared[0]], b[shared[1]])
    both = np.flatnonzero(bars["status"] == "both")
    found = bars.iloc[both].reset_index(drop=True)
    compared = _compared(found, tolerance)
    steps, across = _steps(found, compared, tolerance)
    said = compared[["status", "ratio", "fields", "difference"]].set_axis(both).reindex(bars.index)
    bars = bars.assign(
        **said.assign(status=said["status"].fillna(bars["status"]), fields=said["fields"].fillna(""))
    )
    fault, told_by = _faults(bars, both, compared, tolerance)
    bars = bars.drop(columns=["copy_a", "copy_b"]).assign(fault=fault, told_by=told_by)
    returns = _returns(found, compared["first"].to_numpy() | across)
    summary = {
        "first_session": f"{first:%Y-%m-%d}",
        "last_session": f"{last:%Y-%m-%d}",
        "tolerance": tolerance,
        "rows_a": read_a | {"not_compared": int((~shared[0]).sum())},
        "rows_b": read_b | {"not_compared": int((~shared[1]).sum())},
        "symbols_both": len(symbols),
        "symbols_only_a": sorted(set(a["symbol"].unique()) - set(symbols)),
        "symbols_only_b": sorted(set(b["symbol"].unique()) - set(symbols)),
        **_summary(bars),
        "ratio_steps": len(steps),
        "returns": len(returns),
        "returns_equal": int((np.abs(returns) <= RETURN_TOLERANCE).sum()),
    }
    return Reconciled(bars, steps, summary)


def _summary(bars: pd.DataFrame) -> dict[str, Any]:
    counts = bars["status"].value_counts()
    differ = bars[bars["status"] == "differ"]
    inside = bars["status"][bars["inside"]].value_counts()
    share = by_symbol(bars).set_index("symbol")["agree_share"]
    return {
        "symbols_unlike": share.index[share < UNLIKE].tolist(),
        "both": int(counts.get("agree", 0)) + len(differ),
        **{name: int(counts.get(name, 0)) for name in ("agree", "differ", "only_a", "only_b")},
        **{f"{name}_inside": int(inside.get(name, 0)) for name in ("only_a", "only_b")},
        "differ_by_price": {price: int(differ["fields"].str.contains(price).sum()) for price in PRICES},
        "differ_by_fault": {f: int((differ["fault"] == f).sum()) for f in (*SIDES, "unknown")},
    }


def by_symbol(bars: pd.DataFrame) -> pd.DataFrame:
    """Counts of each symbol's bars, worst first.

    Returns:
        symbol, agree, differ, only_a, only_b; of those that differ fault_a, fault_b and closes_differ;
        agree_share of the bars in both.
    """
    return _counts(bars, "symbol")


def by_session(bars: pd.DataFrame) -> pd.DataFrame:
    """As `by_symbol`, of each session."""
    return _counts(bars, "date")


def _counts(bars: pd.DataFrame, key: str) -> pd.DataFrame:
    counted = pd.DataFrame(
        {
            key: bars[key],
            **{name: bars["status"] == name for name in ("agree", "differ", "only_a", "only_b")},
            **{f"fault_{f}": (bars["fault"] == f) & (bars["status"] == "differ") for f in SIDES},
            "closes_differ": bars["fields"].isin([name for name in FIELDS if "close" in name]),
        }
    )
    counted = counted.groupby(key, sort=True).sum().reset_index()
    both = counted["agree"] + counted["differ"]
    counted["agree_share"] = counted["agree"] / both.where(both > 0)
    order = counted.assign(alone=counted["only_a"] + counted["only_b"])
    order = order.sort_values(["differ", "alone", key], ascending=[False, False, True])
    return order.drop(columns="alone").reset_index(drop=True)


def _keyed(bars: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Bars by symbol and date, the last of those that one symbol has on one day; and what was read."""
    rows = len(bars)
    bars = bars[[*BAR_KEY, *NUMBERS]].dropna(subset=BAR_KEY)
    unkeyed = rows - len(bars)
    if bars.empty:
        raise DataError("a source has no row with a symbol and a date.")
    bars = bars.assign(symbol=dotted(bars["symbol"]), date=bars["date"].astype("datetime64[us]"))
    bars = bars.sort_values(BAR_KEY, kind="stable")
    last = ~bars.duplicated(BAR_KEY, keep="last")
    read = {"rows": rows, "without_key": unkeyed, "repeated": int((~last).sum())}
    bars = bars[last].reset_index(drop=True)
    triple = bars[["symbol", "open", "high", "low"]]
    return bars.assign(copy=triple.duplicated(keep=False) & triple.notna().all(axis=1)), read


def dotted(symbols: pd.Series) -> np.ndarray:
    """Symbols with one mark between a share and its class: BRK-B and BRK/B are BRK.B."""
    names = symbols.astype("category")
    same = [re.sub(r"[-. /_]", ".", str(name)) for name in names.cat.categories]
    return np.array(same, object)[names.cat.codes]


def _side_by_side(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    joined = a.merge(b, on=BAR_KEY, how="outer", suffixes=("_a", "_b"), indicator="status", sort=True)
    joined["status"] = (
        joined["status"].astype(str).map({"both": "both", "left_only": "only_a", "right_only": "only_b"})
    )
    for side in SIDES:
        joined[f"copy_{side}"] = joined[f"copy_{side}"].eq(True)
    joined["inside"] = True
    for status, other in (("only_a", b), ("only_b", a)):
        span = other.groupby("symbol")["date"].agg(["min", "max"])
        alone = np.flatnonzero(joined["status"] == status)
        rows = joined.iloc[alone]
        seen = span.reindex(rows["symbol"])
        within = (rows["date"].to_numpy() >= seen["min"].to_numpy()) & (
            rows["date"].to_numpy() <= seen["max"].to_numpy()
        )
        joined.iloc[alone, joined.columns.get_loc("inside")] = within
    return joined


def _prices(bars: pd.DataFrame, side: str) -> np.ndarray:
    """Prices of a side in dollars; (n, 4), NaN where there is none above 0."""
    prices = bars[[f"{name}_{side}" for name in PRICES]].to_numpy("float64")
    return np.where(np.isfinite(prices) & (prices > 0), prices, np.nan)


def _compared(bars: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """Of bars that both have: status, ratio, fields, difference, and what the steps and faults need."""
    a, b = _prices(bars, "a"), _prices(bars, "b")
    logs = np.log(a) - np.log(b)
    middle = _middle(logs)
    first = np.ones(len(bars), bool)
    first[1:] = bars["symbol"].to_numpy()[1:] != bars["symbol"].to_numpy()[:-1]
    run = np.cumsum(first)
    before, after = _around(middle, run, -1), _around(middle, run, 1)
    # The ends have one side alone, and a step can be near; a symbol with one bar has none to tell by.
    near_before, near_after = _around(middle, run, -1, END), _around(middle, run, 1, END)
    before = np.nan_to_num(np.where(np.isfinite(before), before, near_after))
    after = np.nan_to_num(np.where(np.isfinite(after), after, near_before))
    level, equal = before, _equal(a, b, before, tolerance)
    later = _equal(a, b, after, tolerance)
    nearer = ~equal.any(axis=1) & (np.abs(middle - after) < np.abs(middle - before))
    level, equal = _best(level, equal, after, later, nearer)
    # Within a stretch at another level that is shorter than both windows its ends have found the level.
    found = pd.Series(level).where(equal.sum(axis=1) > len(PRICES) // 2).groupby(run)
    for filled in (found.ffill(), found.bfill()):
        near = filled.fillna(pd.Series(level)).to_numpy()
        level, equal = _best(level, equal, near, _equal(a, b, near, tolerance))
    beyond = np.where(equal, 0, np.nan_to_num(logs - level[:, None]))
    worst = np.abs(beyond).argmax(axis=1)
    differs = ~equal.all(axis=1)
    return pd.DataFrame(
        {
            "status": np.where(differs, "differ", "agree"),
            "ratio": np.exp(level),
            "fields": _named(PRICES, ~equal),
            **{f"differs_{price}": ~equal[:, i] for i, price in enumerate(PRICES)},
            "difference": np.where(differs, beyond[np.arange(len(beyond)), worst], np.nan),
            "first": first,
        }
    )


def _best(
    level: np.ndarray,
    equal: np.ndarray,
    other_level: np.ndarray,
    other_equal: np.ndarray,
    nearer: np.ndarray | bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Of two levels the one at which more prices are the same: the first, unless `nearer`, of equals."""
    gain = other_equal.sum(axis=1) - equal.sum(axis=1)
    better = (gain > 0) | ((gain == 0) & nearer)
    return np.where(better, other_level, level), np.where(better[:, None], other_equal, equal)


def _named(names: Sequence[str], where: np.ndarray) -> np.ndarray:
    """Of each row the names of the columns that are True, with a space between; (n,)."""
    return np.array(_sets(names), object)[where @ (1 << np.arange(len(names)))]


def _differs(compared: pd.DataFrame) -> np.ndarray:
    """Which prices of each bar differ; (n, 4) bool."""
    return compared[[f"differs_{price}" for price in PRICES]].to_numpy()


def _middle(values: np.ndarray) -> np.ndarray:
    """Of each row the lower of the middle values that are known: always one of them; (n,)."""
    known = np.isfinite(values).sum(axis=1)
    ordered = np.sort(values, axis=1)
    return ordered[np.arange(len(values)), np.maximum(known - 1, 0) // 2]


def _around(values: np.ndarray, run: np.ndarray, direction: int, rows: int = SIDE) -> np.ndarray:
    """The middle value of the `rows` before (-1) or after (1) each row, of its run alone; (n,)."""
    near = np.full((len(values), rows), np.nan)
    for i in range(1, min(rows, len(values) - 1) + 1):
        here, there = (
            (slice(i, None), slice(None, -i)) if direction < 0 else (slice(None, -i), slice(i, None))
        )
        near[here, i - 1] = np.where(run[here] == run[there], values[there], np.nan)
    return _middle(near)


def _equal(a: np.ndarray, b: np.ndarray, level: np.ndarray, tolerance: float) -> np.ndarray:
    """Which prices are the same at this level of A over B (log); (n, 4). Missing in both is the same."""
    ratio = np.exp(level)[:, None]
    allowed = np.maximum(tolerance * a, HALF_CENT * np.maximum(1, ratio)) * (1 + 1e-9) + 1e-9
    return (np.abs(a - b * ratio) <= allowed) | (np.isnan(a) & np.isnan(b))


def _steps(
    bars: pd.DataFrame, compared: pd.DataFrame, tolerance: float
) -> tuple[pd.DataFrame, np.ndarray]:
    """The steps of the ratio, between bars of which most prices agree; and which rows a step leads to.

    A step between two such bars lies anywhere among those between them: all of these and the later one
    are led to; (n,) bool.
    """
    level = np.log(compared["ratio"].to_numpy())
    run = np.cumsum(compared["first"].to_numpy())
    sure = np.flatnonzero(_differs(compared).sum(axis=1) < len(PRICES) // 2)
    change = np.diff(level[sure])
    rounding = HALF_CENT * np.maximum(1, np.exp(level)) / bars["close_a"].to_numpy()
    least = np.maximum(2 * tolerance, np.fmax(rounding[sure][1:], rounding[sure][:-1]))
    at = np.flatnonzero((np.abs(change) > least) & (run[sure][1:] == run[sure][:-1]))
    left, right, step = sure[at], sure[at + 1], change[at]
    closes = [np.log(_prices(bars, side)[:, PRICES.index("close")]) for side in SIDES]
    across_a, across_b = (close[right] - close[left] for close in closes)
    more = np.abs(across_a) - np.abs(across_b)
    plain = np.abs(step) > STEP * _usual(bars, run, tolerance)[right]
    moves = np.select(
        [plain & (more > np.abs(step) / 2), plain & (-more > np.abs(step) / 2)], SIDES, "unknown"
    )
    marks = np.zeros(len(bars) + 1, int)
    np.add.at(marks, left + 1, 1)
    np.add.at(marks, right + 1, -1)
    steps = pd.DataFrame(
        {
            "symbol": bars["symbol"].to_numpy()[right],
            "before": bars["date"].to_numpy()[left],
            "date": bars["date"].to_numpy()[right],
            "ratio_before": np.exp(level[left]),
            "ratio_after": np.exp(level[right]),
            "step": np.exp(step),
            "return_a": across_a,
            "return_b": across_b,
            "moves": moves,
        }
    )
    return steps, np.cumsum(marks)[:-1] > 0


def _usual(bars: pd.DataFrame, run: np.ndarray, tolerance: float) -> np.ndarray:
    """The usual daily move of each bar's symbol: median size of B's log returns; (n,), never 0."""
    size = pd.Series(np.log(_prices(bars, "b")[:, PRICES.index("close")])).groupby(run).diff().abs()
    return size.groupby(run).transform("median").fillna(0).clip(lower=tolerance).to_numpy()


def _returns(bars: pd.DataFrame, without: np.ndarray) -> np.ndarray:
    """Log returns of A less those of B between bars that both have, where both are known."""
    closes = [np.log(_prices(bars, side)[:, PRICES.index("close")]) for side in SIDES]
    less = np.diff(closes[0], prepend=np.nan) - np.diff(closes[1], prepend=np.nan)
    return less[~without & np.isfinite(less)]


def _faults(
    bars: pd.DataFrame, both: np.ndarray, compared: pd.DataFrame, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whose fault each bar is that does not agree, and what told it; (n,) each."""
    seen = {"a": _signs(bars, "a", "b", tolerance), "b": _signs(bars, "b", "a", tolerance)}
    paired, distance = bars.iloc[both], _distances(bars.iloc[both], compared, tolerance)
    # Of the two rows that a copy makes alike, the true one agrees but for an open, as many do.
    displaced = _differs(compared)[:, :3].sum(axis=1) >= 2
    for side, other in (("a", "b"), ("b", "a")):
        signs = seen[side]
        signs["copy"][both] &= displaced
        signs["filled_open"][both] = _fills_open(paired, side, compared)
        denied = distance[side] > distance[other] + DENIED
        signs["neighbours"][both] = denied & (distance[other] <= DENIED)
    votes = {side: np.stack([signs[name] for name in VOTES], axis=1) for side, signs in seen.items()}
    # The weakest sign: it tells nothing against another one of the other source.
    weak = VOTES.index("filled_open")
    for side, other in (("a", "b"), ("b", "a")):
        votes[side][:, weak] &= ~np.delete(votes[other], weak, axis=1).any(axis=1)
    against_a, against_b = (votes[side].any(axis=1) for side in SIDES)
    agrees = (bars["status"] == "agree").to_numpy()
    fault = np.select([agrees, against_a & ~against_b, against_b & ~against_a], ["", *SIDES], "unknown")
    told = np.where((fault == "a")[:, None], votes["a"], votes["b"]) & np.isin(fault, SIDES)[:, None]
    return fault, _named(VOTES, told)


def _signs(bars: pd.DataFrame, side: str, other: str, tolerance: float) -> dict[str, np.ndarray]:
    """Of VOTES those that a bar itself shows to be wrong beside the other's; (n,) bool each."""
    mine, theirs = _prices(bars, side), _prices(bars, other)
    there, others = ((bars["status"] != f"only_{s}").to_numpy() for s in (other, side))
    traded, others_traded = ((bars[f"volume_{s}"] > 0).to_numpy() for s in (side, other))
    lacks = np.isnan(mine) & (np.isfinite(theirs) | ~others[:, None])
    copied, others_copied = (bars[f"copy_{s}"].to_numpy(copy=True) for s in (side, other))
    return {
        "no_session": there & ~is_session(bars["date"]),
        "missing": there & lacks.any(axis=1),
        "own_range": _breaks_own_range(mine, tolerance) & ~_breaks_own_range(theirs, tolerance),
        "no_volume": there & ~traded & (others_traded | ~others),
        "copy": copied & ~others_copied,
        "filled_open": np.zeros(len(bars), bool),
        "neighbours": np.zeros(len(bars), bool),
    }


def _fills_open(bars: pd.DataFrame, side: str, compared: pd.DataFrame) -> np.ndarray:
    """True where an open is the close of the session before and the other source has another; (n,).

    Chance makes some equal in every source. None counts where they are not many times as frequent among
    the opens that differ as among those that agree.
    """
    opened, *_, close = _prices(bars, side).T
    others = _prices(bars, SIDES[1 - SIDES.index(side)])[:, PRICES.index("open")]
    before = np.where(compared["first"], np.nan, np.append(np.nan, close[:-1]))
    same = np.isclose(opened, before, rtol=1e-6, atol=0)
    differs = compared["differs_open"].to_numpy() & np.isfinite(others)
    habit = same[differs].sum() * max((~differs).sum(), 1) > FILLS * same[~differs].sum() * differs.sum()
    return same & differs & habit


def _breaks_own_range(prices: np.ndarray, tolerance: float) -> np.ndarray:
    """True where open or close lie outside of high and low; (n,)."""
    opened, high, low, close = prices.T
    slack = np.maximum(tolerance * close, HALF_CENT)
    return (np.fmax(opened, close) > high + slack) | (np.fmin(opened, close) < low - slack)


def _distances(bars: pd.DataFrame, compared: pd.DataFrame, tolerance: float) -> dict[str, np.ndarray]:
    """How far a bar's prices lie outside of the range of the sessions around it, in usual moves; (n,).

    Of a bar that differs the prices that do, else all. A usual move is the symbol's own plus what the
    agreeing bars of the session do, so that a session in which all fall denies none. NaN where the
    sources do not agree on the high and low of both neighbours.
    """
    first = compared["first"].to_numpy()
    run = np.cumsum(first)
    agree = (compared["status"] == "agree").to_numpy()
    same = ~compared[["differs_high", "differs_low"]].to_numpy().any(axis=1)
    n = len(bars)
    known = np.zeros(n, bool)
    known[1:-1] = (run[:-2] == run[2:]) & same[:-2] & same[2:]
    asked = _differs(compared) | agree[:, None]
    beyond = {}
    for side in SIDES:
        prices = _prices(bars, side)
        high, low = (np.log(prices[:, PRICES.index(name)]) for name in ("high", "low"))
        top, bottom = np.full(n, np.nan), np.full(n, np.nan)
        top[1:-1] = np.maximum(high[:-2], high[2:])
        bottom[1:-1] = np.minimum(low[:-2], low[2:])
        logs = np.where(asked, np.log(prices), np.nan)
        over = np.fmax(logs - top[:, None], bottom[:, None] - logs)
        beyond[side] = np.where(known, np.fmax(np.fmax.reduce(over, axis=1), 0), np.nan)
    together = pd.Series(np.where(agree, beyond["b"], np.nan)).groupby(bars["date"].to_numpy())
    usual = _usual(bars, run, tolerance) + together.transform("median").fillna(0).to_numpy()
    return {side: values / usual for side, values in beyond.items()}


def _some(symbols: pd.Series) -> str:
    names = sorted(symbols.unique())
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
