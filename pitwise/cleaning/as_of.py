"""The past as it stood: which symbols' pasts have changed, when, and what they were before.

A symbol's past changes where a bar of it comes late, is corrected or withdrawn, where an action becomes
known after its day, and where a verdict on an older bar stands. Between two such instants bars are only
added.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.schema import BAR_KEY, came_late
from pitwise.bars.versions import KNOWN, BarVersions, known_actions, known_bars
from pitwise.cleaning.adjustment import steps
from pitwise.cleaning.clean import Cleaned, CleanParams, clean, cleaned_or_nothing
from pitwise.cleaning.cross_section import CrossSection, cross_section, tape
from pitwise.cleaning.events import EVENT_KEY, lives
from pitwise.cleaning.row_checks import JUDGED_AT, reasons

EVER = pd.Timestamp(0, tz="UTC")
FOREVER = pd.Timestamp("2262-01-01", tz="UTC")
MARK = "\x00"
"""Parts a symbol's name from the number of a span in the names of its pasts."""


class Pasts(NamedTuple):
    """Symbols as they stood at the ends of spans, each a symbol of its own."""

    spans: pd.DataFrame
    """`symbol`, `since`, `until` (UTC), and `name`: that of the symbol in what was cleaned."""
    raw: pd.DataFrame
    cleaned: Cleaned


def judged_bars(
    versions: BarVersions, at: pd.Timestamp | None = None, symbols: set[str] | None = None
) -> pd.DataFrame:
    """The bars known at an instant, see `known_bars`, and when each is judged (`judged_at`)."""
    bars = known_bars(versions, at, symbols)
    return bars.assign(**{JUDGED_AT: judged_at(bars, versions.seals, at)})


def judged_at(bars: pd.DataFrame, seals: pd.DataFrame, at: pd.Timestamp | None = None) -> pd.Series:
    """From when each bar is judged: it is known, and its session complete; NaT where that is not yet."""
    sealed = seals.set_index("date")["sealed_at"].reindex(bars["date"])
    judged = sealed.where(~(sealed.array < bars[KNOWN].array), bars[KNOWN].array).set_axis(bars.index)
    return judged if at is None else judged.where(judged <= at)


def _perhaps_revised(versions: BarVersions) -> list[str]:
    """The symbols that may have a revision, found quickly in millions of bars: all others have none."""
    bars = versions.bars
    symbol, date = pd.factorize(bars["symbol"])[0], bars["date"].to_numpy()
    known = bars[KNOWN].dt.tz_convert(None).to_numpy()
    goes_on = (symbol[1:] == symbol[:-1]) & (symbol[1:] >= 0)
    in_order = (date[1:] > date[:-1]) & (known[1:] >= known[:-1])
    again = bars["symbol"].iloc[np.flatnonzero(goes_on & ~in_order)]
    told = (again, versions.factors["symbol"], versions.actions["symbol"])
    return sorted({symbol for names in told for symbol in names.dropna().unique()})


def _of_symbols(versions: BarVersions, symbols: list[str]) -> BarVersions:
    """The versions of some symbols, named by strings."""

    def of(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["symbol"].isin(symbols)].astype({"symbol": "string", "source": "string"})

    return BarVersions(of(versions.bars), of(versions.factors), versions.seals, of(versions.actions))


def revised_spans(versions: BarVersions) -> pd.DataFrame:
    """The spans of time between two revisions of the bars of a symbol that has any.

    Returns:
        `symbol`, `since` and `until`: the first begins at `EVER`, the last ends at `FOREVER`.
    """
    keyed = versions.bars.dropna(subset=BAR_KEY).drop_duplicates([*BAR_KEY, KNOWN])
    again = keyed.duplicated(BAR_KEY).to_numpy()
    first = keyed[~again]
    late = first[came_late(first, KNOWN)]
    told = [keyed[again], late]
    for table in (versions.factors, versions.actions):
        told.append(table[~(table[KNOWN].to_numpy() <= _first_known_since(first, table))])
    return spans_between(
        pd.concat([part[["symbol", KNOWN]] for part in told]).rename(columns={KNOWN: "at"})
    )


def _first_known_since(bars: pd.DataFrame, told: pd.DataFrame) -> np.ndarray:
    """When the first bar was known that a factor or an action moves; (n,), NaT where none was.

    Args:
        bars: the first version of each, by symbol and date.
        told: `symbol` and `date`: it moves the bars from that date on.
    """
    since = bars.assign(**{KNOWN: bars[KNOWN][::-1].groupby(bars["symbol"][::-1]).cummin()})
    told = told[BAR_KEY].reset_index(drop=True).reset_index().sort_values("date")
    moved = pd.merge_asof(
        told.astype({"date": since["date"].dtype}),
        since[[*BAR_KEY, KNOWN]].sort_values("date"),
        on="date",
        by="symbol",
        direction="forward",
    )
    return moved.set_index("index")[KNOWN].sort_index().to_numpy()


def spans_between(changes: pd.DataFrame) -> pd.DataFrame:
    """The spans between changes; `changes`: `symbol` and `at`. Returns as `revised_spans`."""
    instants = changes.drop_duplicates().sort_values(["symbol", "at"], ignore_index=True)
    begin = instants[["symbol"]].drop_duplicates().assign(at=EVER)
    begin["at"] = begin["at"].astype(instants["at"].dtype)
    spans = pd.concat([begin, instants]).sort_values(["symbol", "at"], ignore_index=True)
    spans = spans.rename(columns={"at": "since"})
    until = spans.groupby("symbol")["since"].shift(-1)
    return spans.assign(until=until.fillna(FOREVER).astype(instants["at"].dtype))


def pasts(
    versions: BarVersions, spans: pd.DataFrame, market: CrossSection | None, params: CleanParams
) -> Pasts:
    """Some symbols' bars as they were known just before the ends of spans, cleaned.

    Args:
        spans: `symbol`, `since`, `until`.
    """
    spans = spans.assign(name=spans["symbol"] + MARK + spans.groupby("symbol").cumcount().astype(str))
    raw = known_bars(
        BarVersions(_then(versions.bars, spans), _then(versions.factors, spans), versions.seals)
    )
    until = raw["symbol"].map(spans.set_index("name")["until"])
    judged = judged_at(raw, versions.seals)
    raw = raw.assign(**{JUDGED_AT: judged.where(judged < until)})
    actions = known_actions(versions._replace(actions=_then(versions.actions, spans)))
    if market is not None:
        market = market._replace(absent=_named(market.absent, spans))
    return Pasts(spans, raw, cleaned_or_nothing(raw, params, market=market, actions=actions))


def _named(rows: pd.DataFrame, spans: pd.DataFrame) -> pd.DataFrame:
    """Each symbol's rows under the name of each of its spans, with the span's `until`."""
    return (
        rows.merge(spans[["symbol", "until", "name"]], on="symbol")
        .drop(columns="symbol")
        .rename(columns={"name": "symbol"})
    )


def _then(rows: pd.DataFrame, spans: pd.DataFrame) -> pd.DataFrame:
    named = _named(rows, spans)
    named = named[named[KNOWN] < named["until"]].astype({"symbol": "string"})
    order = ["symbol", *(c for c in ("date", "kind", KNOWN) if c in named)]
    return named.sort_values(order, kind="stable", ignore_index=True)[rows.columns]


def changes_of(cleaned: Cleaned) -> pd.DataFrame:
    """The instants (`symbol`, `at`) at which verdicts have changed what was known of older bars."""
    aside, events = cleaned.quarantine, cleaned.events
    aside = aside[aside["since"] > aside[KNOWN]]
    parted = events["kind"].isin(["split", "spin_off"]) & (events["told_by"] == "prices")
    told = [
        aside[["symbol", "since"]],
        events.loc[parted, ["symbol", "confirmed_at"]].dropna(),
    ]
    return pd.concat([part.set_axis(["symbol", "at"], axis=1) for part in told]).drop_duplicates()


class History(NamedTuple):
    """What became of all bars, and when it became known."""

    cleaned: Cleaned
    """As it is now; its events are all that were ever told."""
    changes: pd.DataFrame
    """`symbol` and `at` (UTC): the instants at which a symbol's past changed."""
    market: CrossSection | None


def clean_versions(versions: BarVersions, params: CleanParams) -> tuple[Cleaned, CrossSection | None]:
    """The bars known now, cleaned; and the cross-section of each session.

    Raises:
        DataError: no row is left.
    """
    market = cross_section(tape(versions)) if params.verdicts == "all" else None
    raw = judged_bars(versions)
    return clean(raw, params, market=market, actions=known_actions(versions)), market


def history(versions: BarVersions, params: CleanParams) -> History:
    """The bars known now, cleaned, and what was told of them over time."""
    cleaned, market = clean_versions(versions, params)
    return with_the_past(cleaned, versions, market, params)


def with_the_past(
    cleaned: Cleaned, versions: BarVersions, market: CrossSection | None, params: CleanParams
) -> History:
    """Adds what was told of symbols whose bars were revised, while the bars were others."""
    ours = changes_of(cleaned)
    revised: list[str] = []
    told, changes = cleaned.events.iloc[:0], ours.iloc[:0]
    if names := _perhaps_revised(versions):
        revised, told, changes = told_over_time(_of_symbols(versions, names), market, params)
    changes = pd.concat([ours[~ours["symbol"].isin(revised)], changes])
    changes = changes.sort_values(["symbol", "at"], ignore_index=True).astype({"symbol": "string"})
    events = _instead(cleaned.events, told, revised)
    stepping = _steps_may_change(versions, changes, revised, params)
    if stepping:
        spans = spans_between(changes[changes["symbol"].isin(stepping)])
        then = pasts(_of_symbols(versions, stepping), spans, market, params)
        events = _instead(events, _lives(then), stepping)
    events = events.sort_values(EVENT_KEY, kind="stable", ignore_index=True)
    return History(cleaned._replace(events=events), changes, market)


def _instead(events: pd.DataFrame, told: pd.DataFrame, symbols: list[str]) -> pd.DataFrame:
    """The events, and of some symbols these in place of theirs."""
    return pd.concat([events[~events["symbol"].isin(symbols)], told])


def _steps_may_change(
    versions: BarVersions, changes: pd.DataFrame, revised: list[str], params: CleanParams
) -> list[str]:
    """The symbols of which actions or the adjusted close tell more before a verdict on a bar stands.

    A bar that is set aside later has a step of its own until then, and none afterwards.

    Args:
        changes: `symbol` and `at`, see `History`.
        revised: those whose bars were; what their steps were is not looked up.
    """
    told = pd.concat([versions.factors["symbol"], versions.actions["symbol"]])
    names = sorted(set(changes["symbol"]) & set(told.dropna()))
    if not names:
        return []
    versions = _of_symbols(versions, names)
    bars = known_bars(versions)
    bars = bars[(reasons(bars) == "").to_numpy()].reset_index(drop=True)
    _, found = steps(bars, params.split_step, known_actions(versions))
    stepping = set(bars["symbol"].iloc[found["row"]])
    return [name for name in names if name in stepping or name in revised]


def told_over_time(
    versions: BarVersions, market: CrossSection | None, params: CleanParams
) -> tuple[list[str], pd.DataFrame, pd.DataFrame]:
    """What was told of the symbols whose bars were revised.

    Args:
        versions: of these symbols, and of some others perhaps.

    Returns:
        these, their events, and all instants (`symbol`, `at`) at which their past changed.
    """
    spans = revised_spans(versions)
    then = pasts(versions, spans, market, params)
    verdicts = changes_of(then.cleaned).rename(columns={"symbol": "name"}).merge(then.spans, on="name")
    inside = (verdicts["at"] > verdicts["since"]) & (verdicts["at"] < verdicts["until"])
    begins = spans.loc[spans["since"] > EVER, ["symbol", "since"]].rename(columns={"since": "at"})
    changes = pd.concat([begins, verdicts.loc[inside, ["symbol", "at"]]])
    return spans["symbol"].unique().tolist(), _lives(then), changes.drop_duplicates()


def _lives(then: Pasts) -> pd.DataFrame:
    """The events of symbols, as they were told span after span."""
    named = then.cleaned.events.merge(
        then.spans, left_on="symbol", right_on="name", suffixes=("_then", "")
    )[[*then.cleaned.events.columns, "name"]]
    by_name = dict(list(named.drop(columns="name").groupby(named["name"], sort=False)))
    none = then.cleaned.events.iloc[:0]
    events = [
        lives([(span.since, by_name.get(span.name, none)) for span in of_symbol.itertuples(index=False)])
        for _, of_symbol in then.spans.groupby("symbol", sort=False)
    ]
    return pd.concat([none, *events], ignore_index=True)
