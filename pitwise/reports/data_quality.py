"""Stage `quality`: a page of what came in, what was set aside and why, and what looks odd.

Nothing is changed here. The flags name bars that no check refuses and that stand out all the same.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.bars.basis import on_last_basis
from pitwise.bars.calendar import is_session, session_number
from pitwise.bars.versions import known_bars, read_versions
from pitwise.quality_flags import FOREST, MEASURES, Forest, fit, save
from pitwise.reports.page import (
    BLUE,
    GREY,
    ORANGE,
    Picture,
    Section,
    Table,
    dates_below,
    drawing,
    figure,
    legend_above,
    one_two_five,
    page,
    picture,
    table,
)
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, replacing, write_json, write_parquet

KINDS = {
    "split": "The share count changed; earlier prices and volumes are put on the new basis.",
    "spin_off": "A part of the company left, and its value with it. No history is joined across.",
    "special_dividend": "A distribution out of the ordinary; it is taken out of the returns.",
    "distribution": "The source takes a part of the price out here, and shares stay as they are.",
    "jump": "A large move that people traded: kept as it is.",
    "bad_print": "A price that nobody traded at, set aside.",
    "scale_error": "Prices off by a power of ten for a while, set aside.",
    "displaced": "A bar with a later session's prices, which nobody can have known then: set aside.",
    "repeated": "A bar with an earlier session's prices, set aside.",
    "stale": "A bar repeated unchanged, set aside.",
    "no_volume": "No share was traded, and the prices are those before: set aside.",
    "absurd_volume": "A share count that no market could have traded, set aside.",
    "bad_close": "The close moves and the source's adjusted close does not: no split is made of it.",
    "bad_adjustment": "The source counts a split that the price does not show; it is left out.",
    "halt": "Sessions without a bar, as when trading is halted.",
    "gap": "Sessions without a bar, as when the source has lost them.",
    "symbol_reused": "The symbol went to another company. No history is joined across.",
}
TOLD_BY = {"prices": "prices", "adjusted_close": "adjusted close", "actions": "announced actions"}
INSTANTS = {
    "first_known": "first known, UTC",
    "confirmed_at": "confirmed, UTC",
    "withdrawn_at": "withdrawn, UTC",
}
EVIDENCE = {
    "move": ("move beyond the market, %", "+.2f"),
    "move_noise": ("move, usual days", "+.1f"),
    "move_peers": ("move, session's spreads", "+.1f"),
    "overnight": ("overnight, % of the move", ".0f"),
    "dollar_volume": ("dollars traded, × usual", ".2f"),
    "range": ("range, × usual", ".2f"),
    "shares": ("shares, × usual", ".2f"),
    "close_before": ("close before, $", ",.2f"),
    "close": ("close, $", ",.2f"),
    "close_after": ("close after, $", ",.2f"),
    "high": ("high, $", ",.2f"),
    "low": ("low, $", ",.2f"),
}
"""What an event was judged by: the column's heading with its unit, and its format."""
UNKNOWN = "unknown"
MINUS = "\u2212"
SHOWN_ROWS = 10
SHOWN = 20
SHOWN_EVENTS = 300
AROUND = 20
"""Sessions on either side of a pictured event."""


class QualityParams(Params):
    event_pictures: int = Field(ge=0)
    adjusted_pictures: int = Field(ge=0)
    contamination: float = Field(gt=0, le=0.5)
    trees: int = Field(ge=1)
    sample: int = Field(ge=2)
    seed: int = Field(ge=0)


def coverage_by_symbol(bars: pd.DataFrame) -> pd.DataFrame:
    """Exchange sessions from each symbol's first to its last bar, and those without one; worst first.

    Returns:
        symbol, first, last, sessions, missing, share (of the sessions that have a bar).
    """
    numbered = bars.assign(number=session_number(bars["date"])).groupby("symbol")
    span = numbered.agg(first=("date", "min"), last=("date", "max"), bars=("date", "size"))
    sessions = numbered["number"].max() - numbered["number"].min() + 1
    span = span.assign(sessions=sessions, missing=sessions - span["bars"], share=span["bars"] / sessions)
    worst = span.drop(columns="bars").reset_index().sort_values(["share", "symbol"], ignore_index=True)
    return worst[["symbol", "first", "last", "sessions", "missing", "share"]]


def coverage_by_session(bars: pd.DataFrame) -> pd.DataFrame:
    """Of each session, by date: symbols `listed` (between their first and last bar) and `there`."""
    days = pd.Series(pd.date_range(bars["date"].min(), bars["date"].max()))
    days = pd.DatetimeIndex(days[is_session(days)])
    span = bars.groupby("symbol")["date"].agg(["min", "max"])
    begun = span["min"].value_counts().reindex(days, fill_value=0).cumsum()
    ended = span["max"].value_counts().reindex(days, fill_value=0).cumsum().shift(fill_value=0)
    there = bars["date"].value_counts().reindex(days, fill_value=0)
    return pd.DataFrame({"listed": begun - ended, "there": there})


def ranked(events: pd.DataFrame) -> pd.DataFrame:
    """Events, the longest and then the largest first, with their `rank` within their kind."""
    size = np.log(events["price_ratio"].where(events["price_ratio"] > 0)).abs().fillna(0)
    order = events.assign(size=size).sort_values(
        ["sessions", "size", "symbol", "date"], ascending=[False, False, True, True]
    )
    return order.drop(columns="size").assign(rank=order.groupby("kind").cumcount())


def event_picture(event, bars: pd.DataFrame) -> Picture:
    """Raw closes around an event: the stretch from the bar before to its own is shaded.

    Args:
        event: a row of the events.
        bars: the symbol's raw bars in order of date.
    """
    at = int(bars["date"].searchsorted(event.date))
    near = bars.iloc[max(at - AROUND, 0) : at + AROUND + 1]
    drawn, axis = figure(height=1.5, width=2.6)
    axis.plot(near["date"], near["close"], color=BLUE, marker=".", ms=3, lw=0.9)
    axis.axvspan(bars["date"].iloc[max(at - 1, 0)], event.date, color=ORANGE, alpha=0.25, lw=0)
    own = near[near["date"] == event.date]
    axis.plot(own["date"], own["close"], "o", color=ORANGE, ms=4)
    axis.locator_params(axis="y", nbins=4)
    dates_below(axis, 4)
    title = f"{event.symbol}, {event.date:%Y-%m-%d}: close, US$"
    return picture(title, drawn, in_short(event), size="small")


def in_short(event) -> str:
    """What is told of an event below its picture: the verdict, and the move that it is about."""
    said = [f"{event.status}, first known {_instant(event.first_known)} UTC"]
    said.append(f"confidence {_known(event.confidence, '.0%')}")
    if not pd.isna(event.move):
        move = _known(np.expm1(event.move), "+.1%")
        said.append(f"move {move}, {_known(event.move_noise, '+.1f')} usual days")
    if not pd.isna(event.copy_of):
        said.append(f"as on {event.copy_of:%Y-%m-%d}")
    return "; ".join(said)


def event_table(title: str, events: pd.DataFrame, text: str = "") -> Table:
    """Events with their evidence as columns with units; a column that none of them has is left out.

    Args:
        events: symbol, date, status, first_known, confirmed_at, withdrawn_at, price_ratio, sessions,
            confidence, told_by, the `EVIDENCE` and copy_of.
    """
    shown = events[["symbol", "date", "status"]].copy()
    formats = {"confidence, %": ".0f", "price ratio": ".3f"}
    shown["confidence, %"] = 100 * events["confidence"]
    shown["told by"] = events["told_by"].map(TOLD_BY).fillna(events["told_by"])
    for name, heading in INSTANTS.items():
        if events[name].notna().any():
            shown[heading] = [_instant(instant) for instant in events[name]]
    if events["price_ratio"].notna().any():
        shown["price ratio"] = events["price_ratio"]
    shown["sessions"] = events["sessions"]
    for name, (heading, spec) in EVIDENCE.items():
        values = events[name]
        if values.notna().any():
            if name == "move":
                values = 100 * np.expm1(values)
            elif name == "overnight":
                values = 100 * values
            shown[heading] = values
            formats[heading] = spec
    # Numbers alone are unknown; an instant that has not been is none.
    numbers = shown.select_dtypes("number").columns
    missing = shown[numbers].isna()
    if events["copy_of"].notna().any():
        shown["same prices as on"] = events["copy_of"]
    made = table(title, shown, text, **formats)
    rows = [
        [
            UNKNOWN if name in numbers and missing[name].iloc[i] else cell
            for name, cell in zip(shown, row, strict=True)
        ]
        for i, row in enumerate(made.rows)
    ]
    return replace(made, rows=rows)


def _instant(instant: pd.Timestamp) -> str:
    return "–" if pd.isna(instant) else f"{instant:%Y-%m-%d %H:%M}"


def _known(value: float, spec: str) -> str:
    return UNKNOWN if pd.isna(value) else format(value, spec).replace("-", MINUS)


def _rows(raw_rows: int, clean_rows: int, quarantine: pd.DataFrame) -> Section:
    counts = quarantine["reason"].value_counts()
    balance = pd.DataFrame(
        {"": ["came in", "clean", *counts.index], "rows": [raw_rows, clean_rows, *counts]}
    )
    balance["% of rows in"] = 100 * balance["rows"] / max(raw_rows, 1)
    tables = [table("Rows by what became of them", balance, **{"% of rows in": ".4f"})]
    for reason, count in counts.items():
        first = quarantine[quarantine["reason"] == reason].drop(columns="reason").head(SHOWN_ROWS)
        more = count - len(first)
        tables.append(
            table(
                f"Set aside: {reason}, {count:,} row{'s' if count > 1 else ''}",
                first,
                f"and {more:,} more in {Workspace.quarantine}" if more else "",
            )
        )
    text = "Each row that came in is either clean or set aside, with the first check that refused it."
    if counts.empty:
        text += " No row was set aside."
    return Section("Rows", text, tables)


def _events(events: pd.DataFrame, raw: pd.DataFrame, pictures: int) -> list[Section]:
    if events.empty:
        return [Section("Events", "No split, spin-off, jump, halt, gap or reused symbol was seen.")]
    order = ranked(events)
    pictured = order.sort_values("rank", kind="stable").head(pictures)
    closes = raw[raw["symbol"].isin(pictured["symbol"]) & raw["date"].notna()]
    closes = dict(list(closes.sort_values("date", kind="stable").groupby("symbol")))
    sections = [
        Section(
            "Events",
            f"{len(events):,} events. Provisional: told at its session's close, and not yet confirmed "
            "or withdrawn by the bars after it. A confidence of 90% means: right nine times in ten. At "
            f"most {pictures} are pictured, shared evenly among the kinds, the longest and largest "
            f"first: the closes as they came, {AROUND} sessions on either side; the step is shaded.",
            [
                table(
                    "Events by kind",
                    by_kind(order),
                    "Confidence: the median.",
                    **{"confidence, %": ".0f"},
                )
            ],
        )
    ]
    for kind, text in KINDS.items():
        own = order[order["kind"] == kind]
        if own.empty:
            continue
        name = f"Events: {kind.replace('_', '-')}"
        more = f"and {len(own) - SHOWN_EVENTS:,} more in {Workspace.events}"
        sections.append(
            Section(
                name,
                text,
                [event_table(name, own.head(SHOWN_EVENTS), more if len(own) > SHOWN_EVENTS else "")],
                [
                    event_picture(event, closes[event.symbol])
                    for event in pictured[pictured["kind"] == kind].itertuples()
                ],
            )
        )
    return sections


def by_kind(events: pd.DataFrame) -> pd.DataFrame:
    """Of each kind the events, how many have which status, and the confidence that half of them have.

    Raises:
        ValueError: a kind that the page does not know.
    """
    unknown = set(events["kind"]) - set(KINDS)
    if unknown:
        raise ValueError(f"events of unknown kinds: {sorted(unknown)}")
    counts = pd.crosstab(events["kind"], events["status"])
    counts = counts.reindex(columns=["provisional", "confirmed", "withdrawn"], fill_value=0)
    counts.insert(0, "events", counts.sum(axis=1))
    counts["confidence, %"] = 100 * events.groupby("kind")["confidence"].median()
    counts.columns.name = None
    return counts.reset_index().sort_values(
        ["events", "kind"], ascending=[False, True], ignore_index=True
    )


def _coverage(by_symbol: pd.DataFrame, by_session: pd.DataFrame) -> Section:
    there, axis = figure()
    axis.plot(by_session.index, by_session["there"], color=BLUE)
    axis.set(ylabel="symbols", ylim=(0, None))
    axis.locator_params(axis="y", integer=True)
    dates_below(axis)
    pictures = [picture("Symbols with a clean bar, each session", there)]
    text = "Exchange sessions between a symbol's first and last clean bar. "
    gaps = by_symbol[by_symbol["missing"] > 0]
    if gaps.empty:
        return Section("Coverage", text + "Every symbol has a bar at each of them.", [], pictures)

    missing, below = figure()
    below.vlines(by_session.index, 0, by_session["listed"] - by_session["there"], color=ORANGE, lw=1.2)
    below.set(ylabel="symbols", ylim=(0, None), xlim=axis.get_xlim())
    below.locator_params(axis="y", integer=True)
    dates_below(below)
    pictures.append(picture("Symbols listed and without a clean bar, each session", missing))
    text += f"{len(gaps):,} of {len(by_symbol):,} symbols lack some: no row came, or it was set aside."
    worst = gaps.head(SHOWN).assign(share=100 * gaps["share"]).rename(columns={"share": "% there"})
    title = f"Symbols with the most sessions missing ({len(worst):,} of {len(gaps):,} with any)"
    return Section("Coverage", text, [table(title, worst, **{"% there": ".2f"})], pictures)


def _adjusted(bars: pd.DataFrame, pictures: int) -> Section:
    size = np.log(bars["price_factor"]).abs().groupby(bars["symbol"]).max()
    changed = size[size > 0].sort_values(ascending=False, kind="stable")
    shown = changed.index[:pictures]
    drawn = []
    for symbol in shown:
        own = bars[bars["symbol"] == symbol]
        prices, axis = figure(height=2.4, width=4)
        axis.plot(
            own["date"], own["close"] / own["price_factor"], color=GREY, lw=0.9, label="as it came"
        )
        axis.plot(own["date"], own["close"], color=BLUE, label="adjusted")
        axis.set(yscale="log", ylabel="US$ (log scale)")
        one_two_five(axis.yaxis)
        legend_above(axis)
        dates_below(axis)
        drawn.append(picture(f"{symbol}: close before and after adjusting, US$", prices, size="third"))
    text = "No price was adjusted."
    if len(changed):
        text = (
            f"Symbols with prices put on the basis of their last bar: {len(changed):,} of "
            f"{len(size):,}. Shown: {len(shown)}, the largest factors first."
        )
    return Section("Adjusted prices", text, pictures=drawn)


def _flags(
    found: pd.DataFrame, bars: pd.DataFrame, every: pd.DataFrame, params: QualityParams
) -> Section:
    clouds, axis = figure()
    axis.hexbin(
        every["log_return"], every["log_volume"], gridsize=50, bins="log", cmap="Greys", mincnt=1, lw=0.1
    )
    axis.plot(found["log_return"], found["log_volume"], ".", color=ORANGE, ms=3, label="flagged")
    floor = min([*found["log_volume"], every["log_volume"].quantile(0.0005)]) - 0.5
    below_floor = int((every["log_volume"] < floor).sum())
    axis.set(
        xlabel="return, the symbol's own deviations", ylabel="volume, own deviations", ylim=(floor, None)
    )
    legend_above(axis)
    months, below = figure()
    span = pd.period_range(bars["date"].min(), bars["date"].max(), freq="M")
    count = found["date"].dt.to_period("M").value_counts().reindex(span, fill_value=0)
    below.bar(span.to_timestamp(), count, width=25, color=ORANGE)
    below.set(ylabel="flagged bars")
    below.locator_params(axis="y", integer=True)
    dates_below(below)
    shown = found.head(SHOWN).rename(columns=MEASURES)
    tables = [
        table(
            f"Highest scores ({len(shown):,} of {len(found):,}; all in {Workspace.flags})",
            shown,
            "Return, range and volume in the symbol's own robust deviations from its median.",
            score=".3f",
            **dict.fromkeys(MEASURES.values(), "+.1f"),
        )
    ]
    return Section(
        "Flags",
        f"What an isolation forest of {params.trees} trees sets apart by return, high-low range and "
        f"volume together: {params.contamination:.2%} of the bars, by setting. Most of it is news that "
        "people traded on. It is flagged and not removed.",
        tables if len(found) else [],
        [
            picture(
                "All bars (grey) and the flagged ones by return and volume",
                clouds,
                f"In the symbol's own robust deviations. Below the picture: {below_floor:,}.",
            ),
            picture("Flagged bars by month", months),
        ],
    )


def flagged_bars(
    clean: pd.DataFrame, params: QualityParams
) -> tuple[Forest, pd.DataFrame, pd.DataFrame]:
    """A forest fitted on clean bars as traded, all of them with their measures, and the flagged ones.

    The flagged have symbol, date, `score` in (0.5, 1] and the measures, the highest score first: at most
    the share `contamination` of the bars, rounded up.
    """
    forest, scored = fit(clean, params.contamination, params.trees, params.sample, params.seed)
    found = scored[scored["flagged"]].drop(columns="flagged")
    order = found.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    return forest, scored, order


@drawing()
def quality(
    raw: pd.DataFrame,
    clean: pd.DataFrame,
    quarantine: pd.DataFrame,
    events: pd.DataFrame,
    cleaned: dict,
    params: QualityParams,
) -> tuple[str, dict, pd.DataFrame, Forest]:
    """The page, its figures as a document, the flags, and the forest that tells them.

    Args:
        clean: the clean bars as they were traded, with their factors.
        cleaned: the report of stage `clean`.
    """
    bars = on_last_basis(clean)
    by_symbol, by_session = coverage_by_symbol(bars), coverage_by_session(bars)
    forest, measured, found = flagged_bars(clean, params)
    expected, missing = int(by_symbol["sessions"].sum()), int(by_symbol["missing"].sum())
    report = {
        **cleaned,
        "coverage": {
            "sessions_of_symbols": expected,
            "missing": missing,
            "share": 1 - missing / expected,
            "symbols_with_missing": int((by_symbol["missing"] > 0).sum()),
        },
        "symbols_adjusted": int((bars["price_factor"] != 1).groupby(bars["symbol"]).any().sum()),
        "flagged": len(found),
        "symbols_flagged": int(found["symbol"].nunique()),
    }
    facts = [
        ("Rows in", f"{cleaned['rows_in']:,}"),
        ("Clean rows", f"{cleaned['rows_clean']:,}"),
        ("Set aside", f"{cleaned['rows_quarantined']:,}"),
        ("Events", f"{len(events):,}"),
        ("Symbols", f"{cleaned['symbols']:,}"),
        ("Sessions", f"{cleaned['sessions']:,}"),
        ("Sessions with a bar", f"{report['coverage']['share']:.3%}"),
        ("Flagged bars", f"{len(found):,}"),
    ]
    sections = [
        _rows(cleaned["rows_in"], cleaned["rows_clean"], quarantine),
        *_events(events, raw, params.event_pictures),
        _coverage(by_symbol, by_session),
        _adjusted(bars, params.adjusted_pictures),
        _flags(found, bars, measured, params),
    ]
    lead = (
        f"Bars from {cleaned['first_session']} to {cleaned['last_session']}: what came in, what was set "
        "aside and why, what happened to the companies, and what looks odd."
    )
    return page("Data quality", lead, facts, sections), report, found, forest


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "quality", QualityParams)
    document, report, found, forest = quality(
        known_bars(read_versions(workspace)),
        read_parquet(workspace.clean_bars),
        read_parquet(workspace.quarantine),
        read_parquet(workspace.events),
        read_json(workspace.clean_report),
        params,
    )
    write_parquet(found, workspace.flags)
    save(forest, workspace.root / FOREST.path)
    write_json(report, workspace.quality_report)
    with replacing(workspace.quality_page) as temporary:
        temporary.write_text(document)
    print(f"{len(found):,} bars flagged; see {Workspace.quality_page}")


if __name__ == "__main__":
    run_stage(main)
