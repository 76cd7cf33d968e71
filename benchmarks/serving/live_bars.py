"""How long live bars take: a whole session's in one post, and one bar in each.

`python -m benchmarks.serving.live_bars runs/csv` takes the bars of a workspace whose pipeline has run.
In a scratch workspace the pipeline runs on those before the last sessions; these then come live, into
Feast with a SQLite online store on this disk. A session is sealed with its own bars, and after it the
next post waits until the journal has been moved into a landing, as it is long before the next evening.
The last session comes bar by bar.

Printed are medians, of the clock and of this process's processor time: the second also holds where
others use the machine. The posts of the first session are not counted, which finds nothing in the
caches."""

import argparse
import gc
import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, sleep

import numpy as np
import pandas as pd

from feature_repo import publish
from feature_repo.store import open_store
from pitwise.bars import __main__ as bar_stage
from pitwise.bars.calendar import session_close
from pitwise.bars.landing import Landing, land
from pitwise.bars.schema import COLUMNS
from pitwise.bars.versions import known_bars, read_versions
from pitwise.cleaning import __main__ as cleaning
from pitwise.errors import DataError, shown_as_message
from pitwise.features import __main__ as features
from pitwise.init import new_workspace
from pitwise.reports import data_quality
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.live.live_bars import LiveBars
from serving.settings import ServeParams


def main(workspace: Workspace, sessions: int, bars: int) -> None:
    raw = known_bars(read_versions(workspace))[COLUMNS]
    days = np.sort(raw["date"].dropna().unique())
    if len(days) < sessions + 3:
        raise DataError(f"{workspace.bar_versions}: has {len(days)} sessions. Take fewer of them live.")
    live_days = days[-sessions - 2 :]
    with TemporaryDirectory() as folder:
        scratch = published(workspace, Path(folder) / "scratch", raw[raw["date"] < live_days[0]])
        correction_sessions = load_params(scratch, "serve", ServeParams).correction_sessions
        live = LiveBars(scratch, open_store(scratch), correction_sessions)
        # As the service does: fewer copies, and collections leave out what was imported.
        pd.options.mode.copy_on_write = True
        gc.collect()
        gc.freeze()
        whole = [timed(live, raw[raw["date"] == day], pause=0.3) for day in live_days[:-1]][1:]
        last = raw[raw["date"] == live_days[-1]].iloc[:bars]
        single = [timed(live, last.iloc[[i]]) for i in range(len(last))]
        figures = live.figures
        live.close()
    size = int((raw["date"] == live_days[-2]).sum())
    for title, times in ((f"a session of {size} bars", whole), ("one bar", single)):
        wall, processor = 1000 * np.median(times, axis=0)
        print(f"{title}: {wall:.0f} ms, {processor:.0f} ms of a processor (median of {len(times)})")
    print(
        f"in all {figures['recompute_seconds']:.1f} s of computing and {figures['push_seconds']:.1f} s "
        f"of writing to the store; {figures['failures']:.0f} failures"
    )


def published(workspace: Workspace, folder: Path, raw: pd.DataFrame) -> Workspace:
    """A new workspace with the params of another, up to what stages `publish` and `quality` leave of
    these bars."""
    scratch = new_workspace(folder)
    shutil.copy(workspace.params, scratch.params)
    known_at = session_close(raw["date"]).max()
    land(scratch, Landing(raw.reset_index(drop=True), "benchmark", known_at, history="assumed"))
    with redirect_stdout(io.StringIO()):
        for stage in (bar_stage, cleaning, features, publish, data_quality):
            stage.main(scratch)
    return scratch


def timed(live: LiveBars, bars: pd.DataFrame, pause: float = 0.0) -> tuple[float, float]:
    """Seconds of the clock and of this process's processors until the bars are acknowledged; it returns
    `pause` seconds later."""
    began, used = perf_counter(), process_time()
    outcomes = live.take(bars)
    seconds = perf_counter() - began, process_time() - used
    sleep(pause)
    lost = [o for o in outcomes if o.outcome in ("refused", "failed")]
    if lost:
        raise DataError(f"{len(lost)} bars were not taken, the first one {lost[0]}.")
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--sessions", type=int, default=9, help="that come whole, in one post each")
    parser.add_argument("--bars", type=int, default=40, help="that come one by one, after them")
    given = parser.parse_args()
    with shown_as_message():
        main(Workspace(given.workspace), given.sessions, given.bars)
