"""The live bars of the soak: in pieces, repeated, late, corrected, broken."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from feature_repo import publish
from pitwise.bars import __main__ as bar_stage
from pitwise.bars.landing import Landing, first_to_last, land, landing_files, landings
from pitwise.bars.schema import COLUMNS
from pitwise.bars.versions import bar_versions, known_bars
from pitwise.cleaning import __main__ as cleaning
from pitwise.features import __main__ as features
from pitwise.stage import load_params
from pitwise.workspace import Workspace


@dataclass
class Post:
    """Bars sent together, and the outcomes that each may have."""

    bars: pd.DataFrame
    may_be: list[set[str]]
    applied: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Those that were not refused."""


def cut(workspace: Workspace, sessions: int) -> tuple[pd.DataFrame, list[Landing]]:
    """Take the last sessions off a workspace's landings and publish the rest.

    Returns:
        the bars taken off, and the landings that are left.
    """
    whole = landings(workspace)
    versions = bar_versions(whole, load_params(workspace, "bars", bar_stage.BarParams).seal_coverage)
    raw = known_bars(versions)
    days = np.sort(raw["date"].dropna().unique())[-sessions:]
    live = raw.loc[raw["date"].isin(days), COLUMNS]
    for path in landing_files(workspace):
        path.unlink()
    left = []
    for landing in whole:
        rows = landing.rows[~(landing.rows["date"] >= days[0])].reset_index(drop=True)
        left.append(replace(landing, rows=rows, covers=first_to_last(rows)))
        land(workspace, left[-1])
    for made in (
        workspace.bar_versions,
        workspace.clean_bars,
        workspace.daily_features,
        workspace.published,
    ):
        if made.parent.exists():
            for path in made.parent.iterdir():
                path.unlink()
    for stage in (bar_stage, cleaning, features, publish):
        stage.main(workspace)
    return live.sort_values(["date", "symbol"], ignore_index=True), left


def script(live: pd.DataFrame, rng: np.random.Generator) -> Iterator[Post]:
    """The posts of the live sessions: most bars come once and in time, and the rest does not.

    Args:
        live: bars sorted by date.
    """
    held_back = live.iloc[:0]
    for _, session in live.groupby("date"):
        session = session.sample(frac=1, random_state=rng)
        late = session.iloc[: 1 + len(session) // 100]
        bars = session.iloc[len(late) :]
        for piece in np.array_split(np.arange(len(bars)), min(3, len(bars))):
            yield _post(bars.iloc[piece], {"new", "late", "quarantined"})
        yield _post(bars.iloc[:3], {"repeated"})
        if len(held_back):
            yield _post(held_back, {"new", "late", "quarantined"})  # by whether its session is sealed
        wrong = bars.iloc[[0]].assign(close=bars["close"].iloc[0] * rng.uniform(0.99, 1.01))
        wrong["high"] = wrong[["high", "close"]].max(axis=1)
        wrong["low"] = wrong[["low", "close"]].min(axis=1)
        yield _post(wrong, {"corrected", "quarantined"})
        broken = bars.iloc[[0]].assign(low=bars["high"].iloc[0] + 1)
        stranger = bars.iloc[[0]].assign(symbol="NOSUCH")
        yield _post(
            pd.concat([broken, stranger, bars.iloc[[-1]]]), {"refused"}, {"refused"}, {"repeated"}
        )
        yield _post(bars.iloc[[0]], {"corrected", "repeated", "quarantined"})
        held_back = late


def _post(bars: pd.DataFrame, *may_be: set[str]) -> Post:
    return Post(bars, list(may_be) if len(may_be) > 1 else list(may_be) * len(bars))
