"""What a service has acknowledged or answered, and has not kept."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from sqlalchemy import create_engine, text

from benchmarks.serving.answers import TOLERANCE, Answers, Forecast
from benchmarks.serving.posts import Post
from pitwise.bars.__main__ import BarParams
from pitwise.bars.landing import landings
from pitwise.bars.schema import BAR_KEY, COLUMNS, NUMBERS
from pitwise.bars.versions import BarVersions, bar_versions, known_bars
from pitwise.features.incremental import LIVE
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.live.journal import Journal


def lost_bars(workspace: Workspace, posts: Sequence[Post], wanted: BarVersions) -> list[str]:
    """Bars that were acknowledged and that no landing has, and those that now stand otherwise.

    Args:
        wanted: the versions of bars that the posts come to.
    """
    there = landings(workspace)
    waiting = Journal(workspace.live_bars).waiting()
    there += [waiting] if waiting else []
    live = [landing.rows for landing in there if landing.source == LIVE]
    kept = pd.concat(live, ignore_index=True) if live else pd.DataFrame(columns=COLUMNS)
    held = set(_said(kept))
    lost = [
        f"acknowledged and lost: {statement}"
        for post in posts
        for statement, is_new in zip(_said(post.rows), post.is_news, strict=True)
        if is_new and statement not in held
    ]
    coverage = load_params(workspace, "bars", BarParams).seal_coverage
    now = known_bars(bar_versions(there, coverage))[COLUMNS]
    pairs = known_bars(wanted)[COLUMNS].merge(now, on=BAR_KEY, how="outer", indicator="side")
    differs = (pairs["side"] != "both").to_numpy()
    for name in NUMBERS:
        sent, stands = pairs[f"{name}_x"], pairs[f"{name}_y"]
        differs |= ((sent != stands) & ~(sent.isna() & stands.isna())).to_numpy()
    keys = pairs.loc[differs, BAR_KEY].itertuples(index=False)
    return [*lost, *(f"stands otherwise than it was sent: {key.symbol} {key.date}" for key in keys)]


def _said(rows: pd.DataFrame) -> Iterator[tuple]:
    """What rows of landings say, comparable."""
    withdrawn = rows["withdrawn"] if "withdrawn" in rows else pd.Series(False, rows.index)
    days = pd.to_datetime(rows["date"]).dt.strftime("%Y-%m-%d")
    closes = rows["close"].where(~withdrawn.astype(bool), np.nan)
    for symbol, day, close, volume, gone in zip(
        rows["symbol"], days, closes, rows["volume"], withdrawn, strict=True
    ):
        yield (symbol, day, None, None, True) if gone else (symbol, day, close, volume, False)


def unlogged_forecasts(answers: Answers, url: str) -> list[str]:
    """Forecasts that were answered and are not in the log, where each window's first answer stands."""
    logged = defaultdict(list)
    engine = create_engine(url)
    with engine.connect() as connection:
        for *key, p_up in connection.execute(
            text("SELECT symbol, as_of, model_version, p_up FROM predictions")
        ):
            logged[key[0], _utc(key[1]), key[2]].append(p_up)
    engine.dispose()

    def has(answer: Forecast) -> bool:
        key = answer.symbol, _utc(answer.as_of), answer.version
        return any(abs(p_up - answer.p_up) <= TOLERANCE for p_up in logged[key])

    forecasts = (item for item in answers.items if isinstance(item, Forecast))
    return [f"not in the log: {answer}" for answer in forecasts if not has(answer)]


def unlogged_requests(answered: Mapping[str, int], url: str) -> list[str]:
    """Requests that were answered and are not in the log's audit trail, or with another number.

    Args:
        answered: request id to how many forecasts were answered.
    """
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT request_id, n FROM requests"))
        logged = {row.request_id: row.n for row in rows}
    engine.dispose()
    return [
        f"request {request_id}: {logged.get(request_id, 'nothing')} in the log, {n} forecasts answered"
        for request_id, n in answered.items()
        if logged.get(request_id) != n
    ]


def _utc(instant: object) -> pd.Timestamp:
    """An instant without its zone, as text, or as a database gives it."""
    stamp = pd.Timestamp(instant)  # type: ignore[arg-type]
    return stamp.tz_convert(None) if stamp.tz else stamp
