"""Bring a source's bars, and corporate actions, into a workspace: landings, which no later load changes.

What they are worth is not judged here; stage `clean` does that.
"""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from pitwise.bars.actions import FEED, actions_source
from pitwise.bars.landing import (
    Basis,
    History,
    Landing,
    first_to_last,
    has_bars,
    land,
    newest_close,
    no_bars,
    read_landing,
)
from pitwise.errors import DataError, ParamsError
from pitwise.extras import require
from pitwise.stage import Params, load_params
from pitwise.workspace import Workspace, write_parquet

MADE = ("sample", "synthetic")
"""Sources whose bars are the same whenever they are loaded: they have no newer session."""

Covers = dict[str, tuple[date, date]]


class LoadParams(Params):
    source: Literal["sample", "csv", "yfinance", "synthetic"]
    path: Path
    basis: Basis | None = None
    """Of the prices; None: split_adjusted for yfinance, traded for the others."""
    actions: Path | None = None
    """A feed of corporate actions, brought with each load of bars."""


class Delivery(NamedTuple):
    rows: pd.DataFrame
    covers: Covers
    received_at: pd.Timestamp
    actions: pd.DataFrame | None = None
    """Of sources that deliver them with their bars."""


def load(
    workspace: Workspace,
    source: str | None = None,
    data: str | Path | None = None,
    covers: tuple[date, date] | None = None,
    history: History | None = None,
    now: pd.Timestamp | None = None,
    actions: str | Path | None = None,
) -> Path:
    """Ask a source for its bars and land them, and with them corporate actions: its own and a feed's.

    Args:
        source: None is the one of `params.yaml`'s load.source.
        data: of source csv the file or folder of prices, of yfinance a file of tickers, from the working
            directory; None is what the params say.
        covers: first and last day that the delivery holds whole, for every symbol in it. None: for csv
            each symbol's own first to last day, for yfinance all days that were asked for.
        history: None is `assumed` for a workspace's first landing, `observed` for those after it.
        now: when it is received.
        actions: the feed's file, from the working directory; None is the one of load.actions, if any.

    Returns:
        the file of the bars' landing; the source's newest one where nothing in it has changed.

    Raises:
        ParamsError, DataError, StoreError: as the source says; or the workspace is an older version's.
    """
    workspace.require_landings()
    params = load_params(workspace, "load", LoadParams)
    if source is not None:
        params = LoadParams.model_validate(params.model_dump() | {"source": source})
    if data is not None and params.source not in ("csv", "yfinance"):
        raise ParamsError(
            f"--data: source {params.source} takes none; csv takes prices, yfinance tickers."
        )
    _require_days(covers)
    asked = None if data is None else Path(data).expanduser().absolute()
    now = (now or pd.Timestamp.now("UTC")).as_unit("us")
    if actions is None and params.actions is not None:
        actions = workspace.path(params.actions)
    feed = None if actions is None else _feed(actions)
    delivery = delivered(workspace, params, asked, now)
    adjusted = params.source == "yfinance"
    bars = Landing(
        rows=delivery.rows,
        source=params.source,
        received_at=delivery.received_at,
        basis=params.basis or ("split_adjusted" if adjusted else "traded"),
        history=history or _history(workspace),
        covers=_whole(delivery.covers, covers),
    )
    path = land(workspace, bars)
    if delivery.actions is not None:
        own = replace(
            bars, rows=no_bars(), source=actions_source(params.source), actions=delivery.actions
        )
        land(workspace, own)
    if feed is not None:
        _land_feed(workspace, feed, covers, bars.history, now)
    return path


def load_actions(
    workspace: Workspace,
    feed: str | Path,
    covers: tuple[date, date] | None = None,
    history: History | None = None,
    now: pd.Timestamp | None = None,
) -> Path:
    """Land the corporate actions of a file, and no bars.

    Args:
        feed: the file, from the working directory.
        covers, history, now: as of `load`; covers are the days whose actions it holds whole.

    Returns:
        the landing's file; the newest one of the feed where nothing in it has changed.

    Raises:
        DataError: the file cannot be read, or a row of it cannot be believed.
        ParamsError, StoreError: as of `load`.
    """
    workspace.require_landings()
    _require_days(covers)
    now = (now or pd.Timestamp.now("UTC")).as_unit("us")
    return _land_feed(workspace, _feed(feed), covers, history or _history(workspace), now)


def _feed(path: str | Path) -> pd.DataFrame:
    from pitwise.bars.sources.action_files import csv_actions

    return csv_actions(Path(path).expanduser().absolute())


def _land_feed(
    workspace: Workspace,
    actions: pd.DataFrame,
    covers: tuple[date, date] | None,
    history: History,
    now: pd.Timestamp,
) -> Path:
    whole = _whole(first_to_last(actions), covers)
    landing = Landing(no_bars(), FEED, now, history=history, covers=whole, actions=actions)
    return land(workspace, landing)


def _history(workspace: Workspace) -> History:
    """What is taken for true of a workspace's first bars, and of what comes with or before them."""
    return "observed" if has_bars(workspace) else "assumed"


def _whole(own: Covers, covers: tuple[date, date] | None) -> Covers:
    return own if covers is None else dict.fromkeys(own, covers)


def _require_days(covers: tuple[date, date] | None) -> None:
    if covers is not None and covers[1] < covers[0]:
        raise ParamsError(f"--covers: {covers[1]} is before {covers[0]}.")


def delivered(
    workspace: Workspace, params: LoadParams, data: Path | None, now: pd.Timestamp
) -> Delivery:
    """The bars of a source in the schema of `pitwise.bars.schema`, and what they hold whole.

    A packed or made market is taken for received at the close of its newest session, so that it lands
    everywhere as the same file.
    """
    if params.source in ("sample", "yfinance"):
        require("sources", f"source {params.source}")
    if params.source == "sample":
        from pitwise.bars.sources.sample import sample_bars

        bars = sample_bars()
        return Delivery(bars, first_to_last(bars), newest_close(bars))
    if params.source == "csv":
        from pitwise.bars.sources.csv_files import csv_bars

        bars = csv_bars(data or workspace.path(params.path))
        return Delivery(bars, first_to_last(bars), now)
    if params.source == "yfinance":
        from pitwise.bars.sources.yahoo import YahooParams, asked_days, yahoo_market

        yahoo = load_params(workspace, "yfinance", YahooParams)
        if data is not None:
            yahoo = YahooParams.model_validate(yahoo.model_dump() | {"tickers": str(data)})
        bars, actions = yahoo_market(yahoo, workspace.yahoo_cache, now=now)
        days = asked_days(yahoo, now)
        return Delivery(bars, dict.fromkeys(map(str, bars["symbol"].unique()), days), now, actions)
    from pitwise.simulation.market import SyntheticParams, synthetic_market

    market = synthetic_market(load_params(workspace, "synthetic", SyntheticParams))
    write_parquet(market.truth, workspace.planted_truth)
    return Delivery(market.bars, first_to_last(market.bars), newest_close(market.bars))


def load_where_nothing_landed(workspace: Workspace) -> None:
    """Load the source of the params into a workspace without a landing.

    Raises:
        DataError: DVC tracks landings that are not here.
    """
    if has_bars(workspace):
        return
    workspace.require_landings()
    params = load_params(workspace, "load", LoadParams)
    tracked = workspace.landing.with_suffix(".dvc")
    if tracked.exists() and params.source in ("csv", "yfinance"):
        raise DataError(
            f"{tracked}: names deliveries that are not here. `dvc pull data/landing` brings them; for a "
            "new history, delete the file."
        )
    print(described(load(workspace)), flush=True)


def described(path: Path) -> str:
    """A landing in one line."""
    landing = read_landing(path)
    rows, what = landing.rows, "rows"
    if landing.actions is not None:
        rows, what = landing.actions, "corporate actions"
    return (
        f"{len(rows):,} {what} of {rows['symbol'].nunique():,} symbols from {landing.source}, received "
        f"{landing.received_at:%Y-%m-%d %H:%M:%S} UTC: {path}"
    )


def days_of(text: str) -> tuple[date, date]:
    """The first and last day in `2020-01-02:2020-12-31`; ParamsError if there are none."""
    try:
        first, last = (date.fromisoformat(day) for day in text.split(":"))
    except ValueError as error:
        raise ParamsError(
            f"--covers: '{text}' is not two days such as 2020-01-02:2020-12-31."
        ) from error
    return first, last
