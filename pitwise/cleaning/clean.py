"""Raw bars to bars that can be trusted, and the rest to quarantine with a reason.

Nothing is dropped silently: rows in = rows clean + rows quarantined.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pydantic import Field

from pitwise.bars.basis import on_last_basis
from pitwise.bars.calendar import is_session, session_date
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, PRICES, in_order
from pitwise.cleaning.adjustment import Steps, adjusted, vendor_steps, with_factors
from pitwise.cleaning.bad_prints import (
    GLITCHES,
    WITHOUT_THE_MARKET,
    GlitchParams,
    bad_print,
    glitch_events,
    panics,
    stale_by_then,
    wicks,
)
from pitwise.cleaning.corporate_actions import (
    EVENT_COLUMNS,
    ActionParams,
    absences,
    lost_sessions,
    moves,
    new_companies,
    segments,
)
from pitwise.cleaning.neighbours import Neighbours, market_moves
from pitwise.cleaning.row_checks import reasons
from pitwise.errors import DataError
from pitwise.stage import Params
from pitwise.workspace import Workspace

TOO_LITTLE_HISTORY = "too_little_history"
EVENT_ORDER = ["symbol", "date", "kind"]
GROUP = 1_000_000
"""Bars judged at a time, more or less: what they need lies in memory."""

CLEAN_SCHEMA = pa.DataFrameSchema(
    {
        "symbol": pa.Column("string", pa.Check.str_length(min_value=1)),
        "date": pa.Column("datetime64[us]"),
        **{p: pa.Column("float64", pa.Check.gt(0)) for p in PRICES},
        "volume": pa.Column("float64", pa.Check.ge(0)),
        "price_factor": pa.Column("float64", pa.Check.gt(0)),
        "share_factor": pa.Column("float64", pa.Check.gt(0)),
        "segment": pa.Column("int32", pa.Check.ge(0)),
    },
    unique=["symbol", "date"],
    strict=True,
    ordered=True,
)
"""What every later stage may rely on."""


class Cleaned(NamedTuple):
    """What became of raw bars."""

    bars: pd.DataFrame
    """The clean ones as they were traded, sorted by symbol and date. `price_factor` and `share_factor`
    take splits and known dividends out: see `pitwise.bars.basis`."""
    quarantine: pd.DataFrame
    """The rows set aside, as they came, with a `reason`."""
    events: pd.DataFrame
    """What happened to the companies: symbol, date, kind, price_ratio, sessions, evidence."""


class CleanParams(Params):
    min_history: int = Field(ge=1)
    split_step: float = Field(gt=1)
    verdicts: Literal["all", "look_back", "off"]
    """Which judgements beside the row checks and the vendor's adjustment: all, which see the whole
    file; those that use only bars up to their own; or none."""
    glitches: GlitchParams
    actions: ActionParams


def clean(
    raw: pd.DataFrame,
    params: CleanParams,
    earlier: Mapping[str, int] | None = None,
    unsealed: Collection[pd.Timestamp] = (),
) -> Cleaned:
    """Split raw bars into clean ones and quarantined ones, and find what happened to the companies.

    With `verdicts` off or look_back, the bars of the first sessions and what is set aside of them are
    the same whether later sessions are there or not, but for symbols that get `min_history` only later.

    Args:
        raw: bars as they came; `adj_close` and `known_at` are optional.
        earlier: clean sessions that a symbol had before `raw` begins; none where it is not named.
        unsealed: sessions that are not complete: their bars are judged by the row checks alone, and
            have no part in the judgement of others.

    Raises:
        DataError: no row is left.
    """
    cleaned = cleaned_or_nothing(raw, params, earlier, unsealed)
    if cleaned.bars.empty:
        raise nothing_left(cleaned.quarantine, params)
    return cleaned


def cleaned_or_nothing(
    raw: pd.DataFrame,
    params: CleanParams,
    earlier: Mapping[str, int] | None = None,
    unsealed: Collection[pd.Timestamp] = (),
) -> Cleaned:
    """As `clean`, but it is no error if no row is left."""
    parts = zip(*cleaned_by_group(raw, params, earlier, unsealed), strict=True)
    bars, quarantine, events = (pd.concat(tables) for tables in parts)
    return Cleaned(
        bars.reset_index(drop=True),
        quarantine.sort_index().reset_index(drop=True),
        events.reset_index(drop=True),
    )


def nothing_left(quarantine: pd.DataFrame, params: CleanParams) -> DataError:
    counts = ", ".join(f"{n:,} {r}" for r, n in quarantine["reason"].value_counts().items())
    return DataError(
        f"{Workspace.bar_versions}: no row is left after cleaning ({counts}). A symbol needs "
        f"{params.min_history} clean sessions (clean.min_history)."
    )


def cleaned_by_group(
    raw: pd.DataFrame,
    params: CleanParams,
    earlier: Mapping[str, int] | None = None,
    unsealed: Collection[pd.Timestamp] = (),
) -> Iterator[Cleaned]:
    """As `clean`, some symbols after others, for millions of bars: at least once, by symbol.

    A symbol's bars are judged by themselves and by what the market did, which is found first. The index
    of the quarantine is the row in `raw`.
    """
    groups = [_Symbols(rows, params, unsealed) for rows in _parts(raw)]
    if params.verdicts == "look_back":
        for group in groups:
            group.refuse_stale()
    if params.verdicts == "all":
        seen = _Sessions.together(group.refuse_without_the_market() for group in groups)
        market, panic = market_moves(seen.number, seen.log_return), panics(seen.number, seen.long_wick)
        for group in groups:
            group.refuse_bad_prints(market, panic)
    for group in groups:
        group.refuse_short_histories(earlier or {})
    if params.verdicts != "all":
        yield from (group.cleaned() for group in groups)
        return
    seen = _Sessions.together(group.on_last_basis() for group in groups)
    market = market_moves(seen.number, seen.log_return)
    seen = _Sessions.together(_Sessions.of(Neighbours(group.came())) for group in groups)
    market_came = market_moves(seen.number, seen.log_return)
    lost = lost_sessions(seen.number, seen.first, params.actions)
    del seen
    for group in groups:
        bars, quarantine, events = group.cleaned(market)
        events = pd.concat([events, group.missing_sessions(market_came, lost)], ignore_index=True)
        yield Cleaned(bars, quarantine, events.sort_values(EVENT_ORDER, ignore_index=True))


class _Sessions(NamedTuple):
    """What the market is told from; (n,) each, of bars by symbol and date."""

    number: np.ndarray
    """int16, of the session in the calendar."""
    log_return: np.ndarray
    first: np.ndarray
    """True at a symbol's first bar."""
    long_wick: np.ndarray

    @classmethod
    def of(cls, n: Neighbours, longest_wick: float = np.inf) -> "_Sessions":
        return cls(n.session.astype("int16"), n.log_return, n.first, wicks(n) > longest_wick)

    @classmethod
    def together(cls, parts: Iterable["_Sessions"]) -> "_Sessions":
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class _Symbols:
    """The rows of some symbols on their way through the checks.

    From check to check it keeps the reasons alone, and makes the bars anew: they would fill the memory.
    """

    def __init__(self, raw: pd.DataFrame, params: CleanParams, unsealed: Collection[pd.Timestamp]):
        self.raw, self.params = raw, params
        self.reason = reasons(raw).to_numpy(object, copy=True)
        self.passed = self.reason == ""
        self.sealed = ~raw["date"].isin(list(unsealed)).to_numpy()

    def refuse_stale(self) -> None:
        at = np.flatnonzero(self.passed & self.sealed)
        bars = self.raw.iloc[at]
        stale = stale_by_then(bars, Neighbours(bars).first, self.params.glitches.stale_bars)
        self.reason[at[stale]] = "stale"

    def refuse_without_the_market(self) -> _Sessions:
        at, bars = self._to_judge()
        n = Neighbours(bars)
        for name, refuses in WITHOUT_THE_MARKET.items():
            refused = refuses(n, self.params.glitches)
            if refused.any():
                self.reason[at[refused]] = name
                at, bars = at[~refused], bars[~refused]
                n = Neighbours(bars)
        return _Sessions.of(n, self.params.glitches.min_move)

    def refuse_bad_prints(self, market: np.ndarray, panic: np.ndarray) -> None:
        at, bars = self._to_judge()
        refused = bad_print(Neighbours(bars, market), self.params.glitches, panic)
        self.reason[at[refused]] = "bad_print"

    def _to_judge(self) -> tuple[np.ndarray, pd.DataFrame]:
        """The rows of complete sessions that no check has refused yet, and their bars, adjusted."""
        at = np.flatnonzero(self.passed & self.sealed)
        bars = adjusted(self.raw.iloc[at], self.params.split_step, hindsight=True)
        left = self.reason[at] == ""
        return (at, bars) if left.all() else (at[left], bars[left])

    def refuse_short_histories(self, earlier: Mapping[str, int]) -> None:
        at = np.flatnonzero(self.reason == "")
        symbol = self.raw["symbol"].iloc[at]
        history = symbol.groupby(symbol, observed=True).transform("size")
        if earlier:
            history += symbol.astype(object).map(earlier).fillna(0).astype(int)
        self.reason[at[(history < self.params.min_history).to_numpy()]] = TOO_LITTLE_HISTORY

    def on_last_basis(self) -> _Sessions:
        bars, sealed = self._kept()
        steps, _ = vendor_steps(bars, self.params.split_step, hindsight=True)
        return _Sessions.of(Neighbours(_basis(bars, steps, sealed)))

    def _kept(self) -> tuple[pd.DataFrame, np.ndarray]:
        """The bars that passed all checks; and (n,) bool, which are of complete sessions."""
        kept = self.reason == ""
        bars = self.raw[kept].reset_index(drop=True)
        return bars.astype({"date": "datetime64[us]"}), self.sealed[kept]

    def cleaned(self, market: np.ndarray | None = None) -> Cleaned:
        kept, sealed = self._kept()
        refused = self.reason != ""
        quarantine = self.raw[refused].assign(reason=self.reason[refused]).astype({"symbol": "string"})
        assert len(kept) + len(quarantine) == len(self.raw)
        bars, events = _with_actions(kept, sealed, self.params, market)
        judged = self.passed & self.sealed
        before = self.raw[judged]
        glitches = np.where(np.isin(self.reason[judged], GLITCHES), self.reason[judged], "")
        events = pd.concat([events, _named(glitch_events(before, glitches), before)], ignore_index=True)
        return Cleaned(
            CLEAN_SCHEMA.validate(bars[list(CLEAN_SCHEMA.columns)].astype({"symbol": "string"})),
            quarantine,
            events.sort_values(EVENT_ORDER, ignore_index=True),
        )

    def came(self) -> pd.DataFrame:
        """One row of each session of which any came, even one that was set aside."""
        raw = self.raw
        came = raw[self.sealed & raw["symbol"].notna().to_numpy() & is_session(raw["date"])]
        came = came.drop_duplicates(BAR_KEY, ignore_index=True)
        came[PRICES] = came[PRICES].where((came[PRICES] > 0) & (came[PRICES] < np.inf))
        return came

    def missing_sessions(self, market: np.ndarray, lost: np.ndarray) -> pd.DataFrame:
        """The events of sessions for which no row came at all."""
        came = self.came()
        away = absences(Neighbours(came, market), self.params.actions, lost)
        return _named(away, came).assign(date=session_date(away["first"].to_numpy()))


def _parts(raw: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows by symbol and date, about `GROUP` at a time; the index is the row in `raw`."""
    symbol = raw["symbol"].astype("category")
    symbol = symbol.cat.reorder_categories(symbol.cat.categories.sort_values())
    raw = raw.reset_index(drop=True)
    raw["symbol"] = symbol.array
    codes, dates = raw["symbol"].cat.codes.to_numpy(), raw["date"].to_numpy()
    ahead = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (dates[1:] >= dates[:-1]))
    if not ahead.all() or (codes < 0).any():
        raw = in_order(raw)
        codes = raw["symbol"].cat.codes.to_numpy()
    begins = np.append(0, np.flatnonzero(codes[1:] != codes[:-1]) + 1)
    begins = begins[np.unique(begins // GROUP, return_index=True)[1]]
    for start, end in zip(begins, np.append(begins[1:], len(raw)), strict=True):
        yield raw.iloc[start:end]


def _basis(bars: pd.DataFrame, steps: Steps, sealed: np.ndarray) -> pd.DataFrame:
    """The bars of complete sessions, adjusted."""
    bars = with_factors(bars, steps, Neighbours(bars).run)
    return on_last_basis(bars if sealed.all() else bars[sealed])


def _with_actions(
    bars: pd.DataFrame, sealed: np.ndarray, params: CleanParams, market: np.ndarray | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars with their factors and segments; and the events.

    Args:
        bars: as traded, sorted, free of glitches.
        sealed: (n,) bool, of complete sessions: the others have no part in inference.
        market: of verdicts that see the whole file, see `market_moves`.
    """
    n = Neighbours(bars)
    steps, vendor = vendor_steps(bars, params.split_step, hindsight=params.verdicts == "all")
    breaks = np.zeros(len(bars), bool)
    found = vendor.iloc[:0]
    if params.verdicts != "off":
        breaks = new_companies(n, params.actions) & sealed
    if params.verdicts == "all":
        judged = np.flatnonzero(sealed)
        basis = Neighbours(_basis(bars, steps, sealed), market)
        found = moves(basis, params.actions, adjusted=ADJUSTED_CLOSE in bars)
        found["row"] = judged[found["row"].to_numpy(int)]
        splits = found[found["kind"] == "split"]
        at = splits["row"].to_numpy(int)
        steps.price[at] /= splits["price_ratio"]
        steps.shares[at] /= splits["price_ratio"]
        breaks[found.loc[found["kind"] == "spin_off", "row"].to_numpy(int)] = True
    bars = with_factors(bars, steps, n.run).assign(segment=segments(breaks, n.first))
    return bars, pd.concat([_named(vendor, bars), _named(found, bars)], ignore_index=True)


def _named(found: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
    """Events with the symbol and date of their row."""
    at = found["row"].to_numpy(int)
    return pd.DataFrame(
        {
            "symbol": bars["symbol"].iloc[at].astype("string").array,
            "date": bars["date"].array[at],
            "kind": found["kind"].astype("string").array,
            "price_ratio": found["price_ratio"].to_numpy("float64"),
            "sessions": found["sessions"].to_numpy("int64") if "sessions" in found else 1,
            "evidence": found["evidence"].astype("string").array,
        },
        columns=EVENT_COLUMNS,
    )
