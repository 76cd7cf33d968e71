"""The live bars of the soak: in pieces, repeated, late, corrected, broken."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from feature_repo import publish
from pitwise.cleaning import __main__ as cleaning
from pitwise.features import __main__ as features
from pitwise.workspace import Workspace, read_parquet, write_parquet


@dataclass
class Post:
    """Bars sent together, and the outcomes that each may have."""

    bars: pd.DataFrame
    may_be: list[set[str]]
    applied: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Those that were not refused."""


def cut(workspace: Workspace, sessions: int) -> pd.DataFrame:
    """Take the last sessions off a workspace's bars and publish the rest; the bars taken off."""
    raw = read_parquet(workspace.raw_bars)
    days = np.sort(raw["date"].unique())[-sessions:]
    live = raw[raw["date"].isin(days)]
    write_parquet(raw[~raw["date"].isin(days)], workspace.raw_bars)
    for made in (workspace.clean_bars, workspace.daily_features, workspace.published):
        for path in made.parent.iterdir():
            path.unlink()
    for stage in (cleaning, features, publish):
        stage.main(workspace)
    return live.sort_values(["date", "symbol"], ignore_index=True)


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
            yield _post(bars.iloc[piece], {"new", "quarantined"})
        yield _post(bars.iloc[:3], {"repeated"})
        if len(held_back):
            passed = held_back["symbol"].isin(bars["symbol"])
            yield _post(held_back, *({"late" if p else "new", "quarantined"} for p in passed))
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
