"""What happened to the companies and to their bars, and from when it was known.

An event is a statement with a life: told at one instant, confirmed or withdrawn at a later one. Asked at
an instant, the events are those told by then, see `known_events`.
"""

import numpy as np
import pandas as pd

EVIDENCE = [
    "move",
    "move_noise",
    "move_peers",
    "overnight",
    "dollar_volume",
    "range",
    "shares",
    "close_before",
    "close",
    "close_after",
    "high",
    "low",
]
"""Columns of float64, NaN where it is not known: log return of the close beyond the market's; the same
in standard deviations of the stock's ordinary day, and of the session's cross-section; the part of it
that came overnight; the day's dollar volume, range and shares over their usual; and prices."""
DOLLARS = ["close_before", "close", "close_after", "high", "low"]
"""Of these the prices, for a share of the event's session."""
LIFE = ["first_known", "confirmed_at", "withdrawn_at"]
"""Instants (UTC): told, confirmed, withdrawn; NaT where that has not been."""
EVENT_KEY = ["symbol", "date", "kind"]
EVENT_COLUMNS = [
    *EVENT_KEY,
    "status",
    *LIFE,
    "price_ratio",
    "sessions",
    "confidence",
    "told_by",
    *EVIDENCE,
    "copy_of",
]
INSTANT = "datetime64[us, UTC]"
DTYPES = {
    **dict.fromkeys(["symbol", "kind", "status", "told_by"], "string"),
    **dict.fromkeys(["date", "copy_of"], "datetime64[us]"),
    **dict.fromkeys(LIFE, INSTANT),
    **dict.fromkeys(["price_ratio", "confidence", *EVIDENCE], "float64"),
    "sessions": "int64",
}
NEVER = np.datetime64("NaT", "us")
UNKNOWN = {
    **dict.fromkeys(["date", "copy_of", *LIFE], NEVER),
    **dict.fromkeys(["price_ratio", "confidence", *EVIDENCE], np.nan),
    "sessions": 1,
}
"""What stands for a column that is not given; of the others None."""


def events_of(parts: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Events out of columns.

    Args:
        parts: each of `EVENT_COLUMNS` in (n,) arrays of one length, `symbol`, `date` and `kind` at
            least; instants as datetime64[us] in UTC. What is not given is not known, `sessions` is 1,
            and the status follows from the life.
    """
    columns = {}
    for name in EVENT_COLUMNS:
        if name != "status":
            given = (part.get(name, np.full(len(part["kind"]), UNKNOWN.get(name))) for part in parts)
            columns[name] = np.concatenate([np.empty(0, np.asarray(UNKNOWN.get(name)).dtype), *given])
    table = pd.DataFrame(columns)
    for name in LIFE:
        table[name] = table[name].dt.tz_localize("UTC")
    return with_status(table)


def event_table(**columns) -> pd.DataFrame:
    """Events out of columns of any kind, see `events_of`; instants with or without a time zone."""
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    for name in set(LIFE) & set(columns):
        instants = pd.to_datetime(pd.Series(columns[name]), utc=True)
        arrays[name] = instants.dt.tz_localize(None).to_numpy("datetime64[us]")
    return events_of([arrays])


def with_status(events: pd.DataFrame) -> pd.DataFrame:
    """The events with the `status` that their life gives them, in the columns of the table."""
    known = np.select(
        [events["withdrawn_at"].notna(), events["confirmed_at"].notna()],
        ["withdrawn", "confirmed"],
        "provisional",
    )
    return events.assign(status=known)[EVENT_COLUMNS].astype(DTYPES)


def known_events(events: pd.DataFrame, at: pd.Timestamp) -> pd.DataFrame:
    """The events as they were told by an instant (UTC). Evidence is what is known of it now."""
    then = events[events["first_known"] <= at].copy()
    for name in LIFE[1:]:
        then[name] = then[name].where(then[name] <= at)
    return with_status(then).reset_index(drop=True)


def standing(events: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The confirmed events of a kind that have not been withdrawn."""
    return events[(events["kind"] == kind) & (events["status"] == "confirmed")]


def lives(spans: list[tuple[pd.Timestamp, pd.DataFrame]]) -> pd.DataFrame:
    """The events of one symbol whose bars were revised.

    Args:
        spans: (begin, the events as they are told from the bars known before the end), in order of
            time; the bars of a span are not revised within it.

    Returns:
        the events of all of them: told in the first span that has it, withdrawn where one ends that the
        next does not have.
    """
    done: list[dict] = []
    open_: dict[tuple, dict] = {}
    for begin, events in spans:
        here: dict[tuple, dict] = {}
        for event in events.to_dict("records"):
            key = tuple(event[name] for name in EVENT_KEY)
            for name in LIFE:
                if not pd.isna(event[name]):
                    event[name] = max(event[name], begin)
            before = open_.get(key)
            if before is not None and not _over(before):
                # Who told it first stays, though it may be known by another one since.
                event["first_known"], event["told_by"] = before["first_known"], before["told_by"]
                if not pd.isna(before["confirmed_at"]):
                    event["confirmed_at"] = before["confirmed_at"]
            if not (pd.isna(event["withdrawn_at"]) or event["withdrawn_at"] > event["first_known"]):
                continue  # told and withdrawn before this span began
            here[key] = event
        for key, event in open_.items():
            if _over(event):
                done.append(event)
            elif key not in here:
                done.append(event | {"withdrawn_at": begin})
        open_ = here
    table = pd.DataFrame([*done, *open_.values()], columns=EVENT_COLUMNS)
    return with_status(table.assign(**{name: pd.to_datetime(table[name], utc=True) for name in LIFE}))


def _over(event: dict) -> bool:
    return not pd.isna(event["withdrawn_at"])
