"""History played through the live path, as if its bars were just coming in.

It happens in a scratch workspace, so that nothing of it gets into the store, the registry or the log.
The pipeline's stages run there on the bars before the first session, then each session's bars go through
`LiveBars`, and the champion forecasts from the online store. In the end the windows are compared with
what the pipeline makes of all the bars at once.
"""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from feature_repo import publish
from feature_repo.publish import UNIVERSE_FOLDER
from feature_repo.store import SQLITE, open_store
from pitwise.bars import __main__ as bar_stage
from pitwise.bars.calendar import session_close
from pitwise.bars.landing import Landing, land
from pitwise.bars.schema import COLUMNS
from pitwise.bars.versions import bar_versions, known_bars, read_versions
from pitwise.cleaning import __main__ as cleaning
from pitwise.cleaning.as_of import clean_versions
from pitwise.cleaning.clean import CleanParams
from pitwise.errors import DataError
from pitwise.features import __main__ as features
from pitwise.features.daily import daily_features
from pitwise.features.indicators import NAMES
from pitwise.features.windows import PACKED, last_windows
from pitwise.registry.model import RegisteredModel, RegistryParams
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.inference.predictor import Predictor, load_champion
from serving.live.live_bars import LiveBars


def replay(
    workspace: Workspace,
    first: str | None,
    last: str | None,
    correction_sessions: int,
    console: Console,
) -> dict[str, Any]:
    """Play the sessions from `first` to `last`; by default the last five.

    Returns:
        first, last, sessions, outcomes by kind, forecasts, milliseconds of a session's bars (median and
        largest), windows compared with the pipeline's, window values that differ and by how much at most
        (relative).

    Raises:
        DataError: no such sessions in the bars, or none before them.
    """
    raw = known_bars(read_versions(workspace)).drop(columns="known_at")
    sessions = _sessions(workspace.bar_versions, raw, first, last)
    champion = load_champion(workspace, load_params(workspace, "registry", RegistryParams))
    console.print(f"the pipeline on the bars before {sessions[0]:%Y-%m-%d} ...")
    before = Landing(
        raw[raw["date"] < sessions[0]].reset_index(drop=True),
        "replay",
        session_close(pd.Series([sessions[0]])).iloc[0] - pd.Timedelta(hours=12),
        history="assumed",
    )
    with TemporaryDirectory() as folder, _settings_of_the_workspace():
        scratch = Workspace(folder)
        _run_pipeline(workspace, scratch, before)
        # A feed has no adjusted close: what is known of it goes on from the last bar.
        feed = raw[COLUMNS]
        played = _play(scratch, feed, sessions, champion, correction_sessions, console)
    feed = feed[feed["date"].between(sessions[0], sessions[-1])]
    after = Landing(feed, "live", pd.Timestamp.now("UTC"))
    coverage = load_params(workspace, "bars", bar_stage.BarParams).seal_coverage
    versions = bar_versions([before, after], coverage)
    bars = clean_versions(versions, load_params(workspace, "clean", CleanParams))[0].bars
    windows = last_windows(daily_features(bars), NAMES, champion.window)
    expected = {symbol: window.values for symbol, window in windows.items()}
    return played | _compared(played.pop("windows"), expected, champion.window)


def _sessions(path: Path, raw: pd.DataFrame, first: str | None, last: str | None) -> list[pd.Timestamp]:
    days = pd.Series(sorted(raw["date"].dropna().unique()))
    try:
        begin = pd.Timestamp(first) if first else days.iloc[-5:].iloc[0]
        end = pd.Timestamp(last) if last else days.iloc[-1]
    except ValueError as error:
        raise DataError(f"--from and --to are dates such as 2013-02-25: {error}") from error
    chosen = days[(days >= begin) & (days <= end)]
    if chosen.empty or not (days < begin).any():
        raise DataError(
            f"{path}: no session from {begin:%Y-%m-%d} to {end:%Y-%m-%d} with others before it; its "
            f"bars are of {days.iloc[0]:%Y-%m-%d} to {days.iloc[-1]:%Y-%m-%d}."
        )
    return chosen.tolist()


@contextmanager
def _settings_of_the_workspace() -> Iterator[None]:
    """No store but the scratch one, whatever settings the person's environment names for Feast."""
    elsewhere = os.environ.pop("FEAST_FS_YAML_FILE_PATH", None)
    try:
        yield
    finally:
        if elsewhere:
            os.environ["FEAST_FS_YAML_FILE_PATH"] = elsewhere


def _run_pipeline(workspace: Workspace, scratch: Workspace, delivered: Landing) -> None:
    """Make a scratch workspace of a delivery up to stage `publish`, with a store of its own."""
    settings = yaml.safe_load((workspace.feast_repo / "feature_store.yaml").read_text())
    settings["registry"] = "../data/feast/registry.db"
    settings["online_store"] = {"type": SQLITE[1], "path": "../data/feast/online.db"}
    scratch.feast_repo.mkdir(parents=True)
    (scratch.feast_repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(workspace.params, scratch.params)
    if (workspace.root / UNIVERSE_FOLDER).is_dir():  # the calendar, where there is one
        shutil.copytree(workspace.root / UNIVERSE_FOLDER, scratch.root / UNIVERSE_FOLDER)
    land(scratch, delivered)
    with redirect_stdout(io.StringIO()):
        for stage in (bar_stage, cleaning, features, publish):
            stage.main(scratch)


def _play(
    scratch: Workspace,
    raw: pd.DataFrame,
    sessions: list[pd.Timestamp],
    champion: RegisteredModel,
    correction_sessions: int,
    console: Console,
) -> dict[str, Any]:
    live = LiveBars(scratch, open_store(scratch), correction_sessions)
    predictor = Predictor(champion, open_store(scratch))
    outcomes: dict[str, int] = {}
    seconds, forecasts = [], 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("sessions", total=len(sessions))
        for session in sessions:
            started = perf_counter()
            for outcome in live.take(raw[raw["date"] == session]):
                kind = outcome.outcome + (f": {outcome.reason}" if outcome.reason else "")
                outcomes[kind] = outcomes.get(kind, 0) + 1
            seconds.append(perf_counter() - started)
            forecasts += len(predictor.forecast(live.symbols).symbols)
            progress.update(task, advance=1, description=f"{session:%Y-%m-%d}")
    windows = predictor.windows(live.symbols)
    live.close()
    return {
        "first": f"{sessions[0]:%Y-%m-%d}",
        "last": f"{sessions[-1]:%Y-%m-%d}",
        "sessions": len(sessions),
        "outcomes": outcomes,
        "forecasts": forecasts,
        "median_ms": round(1000 * float(np.median(seconds)), 1),
        "largest_ms": round(1000 * max(seconds), 1),
        "windows": dict(zip(windows.symbols, windows.values, strict=True)),
    }


def _compared(
    live: dict[str, np.ndarray], expected: dict[str, np.ndarray], window: int
) -> dict[str, Any]:
    common = sorted(live.keys() & expected.keys())
    shape = (0, window, len(NAMES))
    ours, theirs = (
        np.stack([side[symbol] for symbol in common]) if common else np.empty(shape, PACKED)
        for side in (live, expected)
    )
    differs = ours != theirs
    gap = np.abs(ours - theirs)[differs] / np.maximum(np.abs(theirs[differs]), 1e-6)
    return {
        "windows_compared": len(common),
        "windows_only_on_one_side": sorted(live.keys() ^ expected.keys()),
        "values_compared": int(differs.size),
        "values_that_differ": int(differs.sum()),
        "largest_relative_difference": float(gap.max(initial=0.0)),
    }
