"""The live bars of the soak: in pieces, repeated, late, corrected, set aside, withdrawn, broken."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from feature_repo import publish
from pitwise.bars import __main__ as bar_stage
from pitwise.bars.landing import Landing, first_to_last, land, landing_files, landings
from pitwise.bars.schema import COLUMNS, NUMBERS, PRICES
from pitwise.bars.versions import bar_versions, known_bars
from pitwise.cleaning import __main__ as cleaning
from pitwise.features import __main__ as features
from pitwise.stage import load_params
from pitwise.workspace import Workspace

TAKEN = {"new", "late", "quarantined"}
CORRECTED = {"corrected", "quarantined"}


@dataclass
class Post:
    """Bars sent together, and the outcomes that each may have."""

    bars: pd.DataFrame
    may_be: list[set[str]]
    withdrawn: bool = False
    """Whether the bar, it is one alone, is to be withdrawn."""
    outcomes: list[str] = field(default_factory=list)
    """What became of each, once the post is acknowledged."""

    @property
    def rows(self) -> pd.DataFrame:
        """What the service was told and has not refused, as of `Landing.rows`."""
        kept = [outcome != "refused" for outcome in self.outcomes]
        rows = self.bars[kept].assign(withdrawn=self.withdrawn)
        if self.withdrawn:
            rows[NUMBERS] = np.nan
        return rows

    @property
    def is_news(self) -> list[bool]:
        """Of each of `rows`, whether it was not held before."""
        return [outcome != "repeated" for outcome in self.outcomes if outcome != "refused"]


def cut(workspace: Workspace, sessions: int) -> tuple[pd.DataFrame, list[Landing]]:
    """Take the last sessions off a workspace's landings and publish the rest.

    Returns:
        the bars taken off, of symbols that have others, and the landings that are left. A service takes
        no bars of a symbol that the pipeline has never seen.
    """
    whole = landings(workspace)
    versions = bar_versions(whole, load_params(workspace, "bars", bar_stage.BarParams).seal_coverage)
    raw = known_bars(versions)
    days = np.sort(raw["date"].dropna().unique())[-sessions:]
    is_known = raw["symbol"].isin(raw.loc[raw["date"] < days[0], "symbol"])
    live = raw.loc[raw["date"].isin(days) & is_known, COLUMNS]
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
    held_back, scaled = live.iloc[:0], live.iloc[:0]
    for _, session in live.groupby("date"):
        session = session.sample(frac=1, random_state=rng)
        late = session.iloc[: 1 + len(session) // 100]
        bars = session.iloc[len(late) :]
        some = [bars.iloc[[i % len(bars)]] for i in range(4)]
        for piece in np.array_split(np.arange(len(bars)), min(3, len(bars))):
            yield _post(bars.iloc[piece], TAKEN)
        yield _post(bars.iloc[:3], {"repeated"})
        if len(held_back):
            yield _post(held_back, TAKEN)  # by whether its session is sealed
        wrong = some[0].assign(close=some[0]["close"].iloc[0] * rng.uniform(0.99, 1.01))
        wrong["high"] = wrong[["high", "close"]].max(axis=1)
        wrong["low"] = wrong[["low", "close"]].min(axis=1)
        yield _post(wrong, CORRECTED)
        broken = some[0].assign(low=some[0]["high"].iloc[0] + 1)
        stranger = some[0].assign(symbol="NOSUCH")
        yield _post(
            pd.concat([broken, stranger, bars.iloc[[-1]]]), {"refused"}, {"refused"}, {"repeated"}
        )
        yield _post(some[0], CORRECTED | {"repeated"})
        yield _post(some[1].assign(volume=0.0), CORRECTED)  # nobody traded it: set aside
        yield Post(some[2], [{"withdrawn"}], withdrawn=True)
        yield _post(some[1], CORRECTED)
        yield _post(some[2], TAKEN)
        if len(scaled):
            yield _post(scaled, CORRECTED)  # what was ten times as high, put right
        scaled = some[3]
        yield _post(scaled.assign(**{name: 10 * scaled[name] for name in PRICES}), CORRECTED)
        held_back = late


def _post(bars: pd.DataFrame, *may_be: set[str]) -> Post:
    return Post(bars, list(may_be) if len(may_be) > 1 else list(may_be) * len(bars))
