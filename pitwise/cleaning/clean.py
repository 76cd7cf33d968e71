"""Raw bars to bars that can be trusted, and the rest to quarantine with a reason.

Nothing is dropped silently: rows in = rows clean + rows quarantined.

What becomes of a symbol's bars is a function of the bars that are known of it and of the cross-section
of each session, which is fixed once the session is complete. So the past at any instant is what this
function makes of the bars known then: no verdict looks further than that.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pydantic import Field

from pitwise.bars.basis import on_first_basis
from pitwise.bars.calendar import is_session, session_close, session_date
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, COLUMNS, PRICES
from pitwise.cleaning.absences import AbsenceParams, absences, new_companies, segments
from pitwise.cleaning.adjustment import steps, with_factors
from pitwise.cleaning.cross_section import CopyParams, CrossSection, cross_section
from pitwise.cleaning.early_closes import OUTSIDE, with_early_closes
from pitwise.cleaning.events import DOLLARS, EVENT_KEY, LIFE, NEVER, events_of
from pitwise.cleaning.groups import by_symbol, first_of_session, those
from pitwise.cleaning.moves import MoveParams, moves
from pitwise.cleaning.neighbours import Neighbours
from pitwise.cleaning.row_checks import JUDGED_AT, KNOWN_AT, reasons
from pitwise.errors import DataError
from pitwise.stage import Params
from pitwise.workspace import Workspace

TOO_LITTLE_HISTORY = "too_little_history"
GLITCHES = ("bad_print", "scale_error")
"""Kinds of moves whose bars are set aside."""
BELIEVED = ("split", "distribution", "spin_off", "symbol_reused")
"""Kinds of a feed's or a vendor's events that explain a move."""
APART = ("spin_off", "symbol_reused")
"""Kinds of events that no history is joined across."""


def _is_named(symbol: pd.Series) -> bool:
    return "" not in symbol.unique()


def _in_order(bars: pd.DataFrame) -> bool:
    """Whether symbols ascend, and the dates of each; so no bar is there twice, which takes no hash."""
    symbol, date = bars["symbol"].to_numpy(object), bars["date"].to_numpy()
    goes_on = symbol[1:] == symbol[:-1]
    begins = np.flatnonzero(~goes_on) + 1
    return bool((symbol[begins] > symbol[begins - 1]).all() and (date[1:] > date[:-1])[goes_on].all())


CLEAN_SCHEMA = pa.DataFrameSchema(
    {
        "symbol": pa.Column("string", pa.Check(_is_named, error="is not empty")),
        "date": pa.Column("datetime64[us]"),
        **{p: pa.Column("float64", pa.Check.gt(0)) for p in PRICES},
        "volume": pa.Column("float64", pa.Check.ge(0)),
        "price_factor": pa.Column("float64", pa.Check.gt(0)),
        "share_factor": pa.Column("float64", pa.Check.gt(0)),
        "segment": pa.Column("int32", pa.Check.ge(0)),
    },
    checks=pa.Check(_in_order, error="sorted by symbol and date, each session of a symbol once"),
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
    """The rows set aside, as they came, with a `reason` and the instant `since` which (UTC)."""
    events: pd.DataFrame
    """What happened to the companies and their bars: see `pitwise.cleaning.events`."""


class CleanParams(Params):
    min_history: int = Field(ge=1)
    split_step: float = Field(gt=1)
    verdicts: Literal["all", "off"]
    """Whether bars are judged by others, beside the row checks and the vendor's adjustment."""
    copies: CopyParams
    moves: MoveParams
    absences: AbsenceParams
    reference: Path | None
    """Another source's bars, see `pitwise.reconcile`; they are no input of any verdict."""


def clean(
    raw: pd.DataFrame,
    params: CleanParams,
    earlier: Mapping[str, int] | None = None,
    unsealed: Collection[pd.Timestamp] = (),
    market: CrossSection | None = None,
    actions: pd.DataFrame | None = None,
) -> Cleaned:
    """Split raw bars into clean ones and quarantined ones, and find what happened to the companies.

    Args:
        raw: bars as they came; `adj_close`, `known_at` and `judged_at` are optional.
        earlier: clean sessions that a symbol had before `raw` begins; none where it is not named.
        unsealed: sessions that are not complete, where there is no `judged_at`: their bars are judged
            by the row checks alone, and have no part in the judgement of others.
        market: each session's cross-section as it was when the session was complete; None: told from
            `raw`.
        actions: announced corporate actions, see `pitwise.bars.actions`.

    Raises:
        DataError: no row is left.
    """
    cleaned = cleaned_or_nothing(raw, params, earlier, unsealed, market, actions)
    if cleaned.bars.empty:
        raise nothing_left(cleaned.quarantine, params)
    CLEAN_SCHEMA.validate(cleaned.bars, inplace=True)  # it changes nothing, and need not copy
    return cleaned


def cleaned_or_nothing(
    raw: pd.DataFrame,
    params: CleanParams,
    earlier: Mapping[str, int] | None = None,
    unsealed: Collection[pd.Timestamp] = (),
    market: CrossSection | None = None,
    actions: pd.DataFrame | None = None,
) -> Cleaned:
    """As `clean`, but it is no error if no row is left, and the schema is not checked: a session of live
    bars would wait for that."""
    if JUDGED_AT not in raw:
        raw = raw.assign(**{JUDGED_AT: _judged_at(raw, unsealed)})
    if market is None and params.verdicts == "all":
        market = cross_section(raw)
    parts = zip(*cleaned_by_group(raw, params, market, earlier, actions), strict=True)
    bars, quarantine, events = (pd.concat(tables) for tables in parts)
    return Cleaned(
        bars.reset_index(drop=True),
        quarantine.sort_index().reset_index(drop=True),
        events.reset_index(drop=True),
    )


def _judged_at(raw: pd.DataFrame, unsealed: Collection[pd.Timestamp]) -> pd.Series:
    """When each bar is judged if its session is complete as soon as the bar is known."""
    at = raw[KNOWN_AT] if KNOWN_AT in raw else session_close(raw["date"])
    return at.mask(raw["date"].isin(list(unsealed)))


def nothing_left(quarantine: pd.DataFrame, params: CleanParams) -> DataError:
    counts = ", ".join(f"{n:,} {r}" for r, n in quarantine["reason"].value_counts().items())
    return DataError(
        f"{Workspace.bar_versions}: no row is left after cleaning ({counts}). A symbol needs "
        f"{params.min_history} clean sessions (clean.min_history)."
    )


def cleaned_by_group(
    raw: pd.DataFrame,
    params: CleanParams,
    market: CrossSection | None,
    earlier: Mapping[str, int] | None = None,
    actions: pd.DataFrame | None = None,
) -> Iterator[Cleaned]:
    """As `clean`, some symbols after others, for millions of bars: at least once, by symbol.

    The index of the quarantine is the row in `raw`, and the schema is not checked.
    """
    for rows in by_symbol(raw):
        symbols = _Symbols(rows, params, _of(actions, rows))
        if market is not None:
            symbols.refuse_copies(market)
            symbols.judge_moves(market)
        symbols.refuse_short_histories(earlier or {})
        yield symbols.cleaned(market)


def _of(actions: pd.DataFrame | None, rows: pd.DataFrame) -> pd.DataFrame | None:
    if actions is None or actions.empty:
        return None
    actions = actions[actions["symbol"].isin(rows["symbol"].unique())]
    return actions if len(actions) else None


class _Symbols:
    """The rows of some symbols on their way through the checks."""

    def __init__(self, raw: pd.DataFrame, params: CleanParams, actions: pd.DataFrame | None):
        self.raw, self.params, self.actions = raw, params, actions
        self.reason = reasons(raw).to_numpy(object, copy=True)
        self.known = _instants(raw[KNOWN_AT] if KNOWN_AT in raw else session_close(raw["date"]))
        self.judged = _instants(raw[JUDGED_AT])
        self.since = self.known.copy()
        self.told: list[pd.DataFrame] = []
        """Events of rows of `raw`: `row`, `kind`, the instants of `LIFE`, and what else is known."""

    def _to_judge(self) -> np.ndarray:
        """True where the session is complete and no check has refused the row yet; (n,) bool."""
        return (self.reason == "") & ~np.isnat(self.judged)

    def _tell(
        self,
        events: pd.DataFrame,
        first: np.ndarray,
        confirmed: np.ndarray | np.datetime64 = NEVER,
        withdrawn: np.ndarray | np.datetime64 = NEVER,
    ) -> None:
        life = dict(zip(LIFE, (first, confirmed, withdrawn), strict=True))
        self.told.append(events.assign(**life))

    def refuse_copies(self, market: CrossSection) -> None:
        to_judge = self._to_judge()
        at = np.flatnonzero(to_judge)
        refused = market.refused(those(self.raw[COLUMNS], to_judge), self.params.copies)
        rows = at[refused["row"].to_numpy(int)]
        self.reason[rows] = refused["reason"].to_numpy(object)
        # What carries a later session's prices was not known at its own close: it never was there.
        self.since[rows] = np.where(refused["later"], self.known[rows], self.judged[rows])
        refused = refused.rename(columns={"reason": "kind"}).assign(
            row=rows, told_by="prices", price_ratio=np.nan
        )
        self._tell(refused.drop(columns="later"), self.since[rows], self.since[rows])

    def judge_moves(self, market: CrossSection) -> None:
        to_judge = self._to_judge()
        at, bars = np.flatnonzero(to_judge), those(self.raw, to_judge)
        taken, known = steps(bars, self.params.split_step, self.actions)
        comparable = with_factors(bars, taken, Neighbours(bars).run)
        n = Neighbours(on_first_basis(comparable))
        # Of a vendor who has shown any step of this symbol by then, who hardly misses the next.
        adjusted = (
            (bars[ADJUSTED_CLOSE] != bars["close"]).to_numpy() if ADJUSTED_CLOSE in bars else False
        )
        found = moves(n, market.market, self.params.moves, adjusted)
        refused = np.flatnonzero((self.reason == OUTSIDE) & ~np.isnat(self.judged))
        outside = self.raw.iloc[refused].assign(row=np.searchsorted(at, refused))
        found = with_early_closes(
            found, n, comparable, outside, market.market, self.params.moves, adjusted
        )
        own = comparable["price_factor"].to_numpy()[found["row"]]
        found[DOLLARS] = found[DOLLARS].div(own, axis=0)
        told, stands = _settled(found, self.judged[at])
        for i in np.flatnonzero(found["kind"].isin(GLITCHES) & (found["settled"] >= 0)):
            rows = at[found["row"].iat[i] : found["row"].iat[i] + found["sessions"].iat[i]]
            self.reason[rows], self.since[rows] = found["kind"].iat[i], stands[i]
        # What was announced, or the vendor counts, is believed first.
        believed = known.loc[known["kind"].isin(BELIEVED), "row"]
        news = ~(found["row"].isin(believed) & ~found["kind"].isin(GLITCHES)).to_numpy()
        found = found.assign(row=at[found["row"].to_numpy(int)], told_by="prices")
        same = (found["kind"] == found["suspected"]).to_numpy()
        self._tell(found[same & news], told[same & news], stands[same & news])
        other = found[~same & news]
        told, stands = told[~same & news], stands[~same & news]
        ratio = other["close"] / other["close_before"]
        # What was not odd at its own close was not told of there.
        odd = (other["suspected"] != "").to_numpy()
        guess = other.assign(kind=other["suspected"], price_ratio=ratio, confidence=np.nan, sessions=1)
        self._tell(guess[odd], told[odd], withdrawn=stands[odd])
        self._tell(other, stands, stands)

    def refuse_short_histories(self, earlier: Mapping[str, int]) -> None:
        at = np.flatnonzero(self.reason == "")
        symbol = self.raw["symbol"].iloc[at]
        history = symbol.groupby(symbol, observed=True).transform("size")
        if earlier:
            history += symbol.astype(object).map(earlier).fillna(0).astype(int)
        self.reason[at[(history < self.params.min_history).to_numpy()]] = TOO_LITTLE_HISTORY

    def cleaned(self, market: CrossSection | None) -> Cleaned:
        refused = self.reason != ""
        # What happened to a company is told before it has the history that a window needs.
        young = self.reason == TOO_LITTLE_HISTORY
        kept = np.flatnonzero(~refused | young)
        bars = those(self._with_actions(kept, market), ~young[kept])
        quarantine = self.raw[refused].assign(
            reason=self.reason[refused], since=_utc(self.since[refused])
        )
        assert len(bars) + len(quarantine) == len(self.raw)
        if market is not None:
            self._miss_sessions(market)
        bars = bars[list(CLEAN_SCHEMA.columns)].astype({"symbol": "string"})
        return Cleaned(
            bars,
            quarantine.drop(columns=JUDGED_AT).astype({"symbol": "string"}),
            self._events().sort_values(EVENT_KEY, kind="stable", ignore_index=True),
        )

    def _with_actions(self, kept: np.ndarray, market: CrossSection | None) -> pd.DataFrame:
        """The bars that passed all checks, with their factors and segments."""
        bars = self.raw.iloc[kept].reset_index(drop=True).astype({"date": "datetime64[us]"})
        n = Neighbours(bars)
        taken, known = steps(bars, self.params.split_step, self.actions)
        breaks = np.zeros(len(bars), bool)
        if market is not None:
            breaks = new_companies(n, self.params.absences)
        for events in self.told:
            stand = events[~np.isnat(events["confirmed_at"].to_numpy())]
            split = stand[stand["kind"] == "split"]
            at, inside = _first_kept(split["row"].to_numpy(int), kept, n.first)
            np.divide.at(taken.price, at, split["price_ratio"].to_numpy()[inside])
            np.divide.at(taken.shares, at, split["price_ratio"].to_numpy()[inside])
            apart = stand.loc[stand["kind"].isin(APART), "row"].to_numpy(int)
            breaks[_first_kept(apart, kept, n.first)[0]] = True
        breaks[known.loc[known["kind"].isin(APART), "row"].to_numpy(int)] = True
        rows = kept[known["row"].to_numpy(int)]
        withdrawn = np.full(len(known), NEVER)
        back = known["takes_back"].to_numpy(int)
        for row, undone in zip(rows[back >= 0], back[back >= 0], strict=True):
            withdrawn[(known["row"] == undone).to_numpy()] = self.known[row]
        known = known.drop(columns="takes_back").assign(row=rows)
        self._tell(known, self.known[rows], self.known[rows], withdrawn)
        return with_factors(bars, taken, n.run).assign(segment=segments(breaks, n.first))

    def _miss_sessions(self, market: CrossSection) -> None:
        """Tell of sessions for which no row came at all, not even one that was set aside."""
        raw = self.raw
        there = ~np.isnat(self.judged) & raw["symbol"].notna().to_numpy() & is_session(raw["date"])
        came = those(raw.assign(row=np.arange(len(raw))), there)
        came = those(came, first_of_session(came))
        came = came.assign(**came[PRICES].where((came[PRICES] > 0) & (came[PRICES] < np.inf)))
        away = absences(Neighbours(came), self.params.absences, market.lost(self.params.absences))
        rows = came["row"].to_numpy()[away["row"].to_numpy(int)]
        day = session_date(away["first"].to_numpy())
        away = away.assign(row=rows, date=day, told_by="prices")
        self._tell(away, self.judged[rows], self.judged[rows])

    def _events(self) -> pd.DataFrame:
        """All that was told."""
        keys = {name: self.raw[name].to_numpy() for name in BAR_KEY}
        parts = []
        for told in self.told:
            rows = told["row"].to_numpy(int)
            own = {name: values[rows] for name, values in keys.items()}
            parts.append(own | {name: told[name].to_numpy() for name in told})
        return events_of(parts)


def _settled(found: pd.DataFrame, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When each move was told, and when its kind stood, NaT where it does not yet.

    Args:
        judged: (n,) the instants at which the bars were judged; all that a verdict needs must be.
    """
    row, settled = found["row"].to_numpy(int), found["settled"].to_numpy(int)
    told = judged[row]
    stands = told.copy()
    for ahead in range(1, settled.max(initial=0) + 1):
        later = np.flatnonzero(settled >= ahead)
        stands[later] = np.maximum(stands[later], judged[row[later] + ahead])
    stands[settled < 0] = NEVER
    return told, stands


def _first_kept(rows: np.ndarray, kept: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first kept bar from each row on, and (m,) bool which of the rows have one.

    Those of a symbol's first kept bar, or of none, are left out.

    Args:
        rows: of the raw bars, ascending.
        kept: the rows of the kept bars.
        first: (n,) bool, kept bars that are their symbol's first.
    """
    at = np.searchsorted(kept, rows)
    inside = at < len(kept)
    inside[inside] = ~first[at[inside]]
    return at[inside], inside


def _instants(column: pd.Series) -> np.ndarray:
    """datetime64[us] in UTC."""
    return column.dt.tz_convert(None).to_numpy("datetime64[us]")


def _utc(instants: np.ndarray) -> pd.arrays.DatetimeArray:
    return pd.Series(instants).dt.tz_localize("UTC").array
