"""Every forecast that was ever judged: an append-only file that Git tracks, so that luck can be counted.

The best of many tries looks good whatever it is worth; see `luck` for what follows from their number.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import pandas as pd
from filelock import FileLock

from pitwise.evaluation.metrics import mean_and_t
from pitwise.workspace import Workspace, append_lines, read_lines

LEDGER = "ledger/trials.jsonl"
"""In the workspace: one JSON object a trial, oldest first, never changed."""


class Trial(NamedTuple):
    """One recipe, judged on some sessions."""

    at: str
    """ISO instant, UTC."""
    source: str
    """evaluate | walk_forward | search | unseen."""
    kind: str
    recipe: str
    """16 hex digits: the hash of what the forecasts depend on, less the data."""
    first_session: str
    last_session: str
    """Judged on, both included; `YYYY-MM-DD`."""
    n_sessions: int
    rank_ic_mean: float | None
    rank_ic_t: float | None
    sharpe: float | None
    """Of one session, of the long-short decile spread, before costs."""


def trial(source: str, kind: str, recipe: str, sessions: pd.DataFrame, horizon: int) -> Trial:
    """A trial of now.

    Args:
        sessions: what each session says, see `sessions.by_session`; at least one.
    """
    rank_ic, t = mean_and_t(sessions["rank_ic"].to_numpy(), horizon - 1)
    spread = sessions["decile_spread"]
    ratio = spread.mean() / spread.std() if spread.std() > 0 else None
    return Trial(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        source=source,
        kind=kind,
        recipe=recipe,
        first_session=f"{sessions.index.min():%Y-%m-%d}",
        last_session=f"{sessions.index.max():%Y-%m-%d}",
        n_sessions=len(sessions),
        rank_ic_mean=rank_ic,
        rank_ic_t=t,
        sharpe=None if ratio is None else float(ratio),
    )


def record_trials(workspace: Workspace, trials: Sequence[Trial]) -> int:
    """Add the trials that are not there: those of a recipe that was not judged on these sessions yet.

    So a run that is repeated leaves the file as Git has it, whatever the rounding of the machine. The
    trials of an experiment that DVC runs in a copy are added where it comes from.

    Returns:
        how many were added.

    Raises:
        StoreError: a line of the file is no trial.
    """
    path = workspace.origin.root / LEDGER
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = workspace.origin.root / "data/trials.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        seen = {_key(earlier) for earlier in recorded_trials(workspace)}
        new = {_key(one): one for one in trials if _key(one) not in seen}
        if new:
            append_lines([one._asdict() for one in new.values()], path)
    return len(new)


def recorded_trials(workspace: Workspace) -> list[Trial]:
    """The trials, oldest first.

    Raises:
        StoreError: a line of the file is no trial.
    """
    path = workspace.origin.root / LEDGER
    lines = read_lines(path, lambda entry: set(entry) == set(Trial._fields), "trial")
    return [Trial(**line) for line in lines]


def _key(one: Trial) -> tuple[str, str, str]:
    return one.recipe, one.first_session, one.last_session
