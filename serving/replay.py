"""History played through the live path, as if its bars were just coming in.

It happens in a scratch workspace, so that nothing of it gets into the store, the registry or the log.
The pipeline's stages run there on the bars before the first session, then each session's bars go through
`LiveBars`, and the champion forecasts from the online store. In the end the windows are compared with
what the pipeline makes of all the bars at once.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import feature_repo
from feature_repo.artifacts import FEAST_REPO, RAW_BARS, read_parquet, write_parquet
from feature_repo.clean import CleanParams, clean
from feature_repo.errors import DataError, StoreError
from feature_repo.features import daily_features
from feature_repo.indicators import NAMES
from feature_repo.model import RegistryParams
from feature_repo.revisions import KEYS
from feature_repo.stage import PARAMS_PATH, load_params
from feature_repo.windows import PACKED, gather, window_ends
from serving.live import LiveBars
from serving.predictor import Predictor, load_champion, open_store


def replay(
    first: str | None, last: str | None, correction_sessions: int, console: Console
) -> dict[str, Any]:
    """Play the sessions from `first` to `last`; by default the last five.

    Returns:
        first, last, sessions, outcomes by kind, forecasts, milliseconds of a session's bars (median and
        largest), windows compared with the pipeline's, window values that differ and by how much at most
        (relative).

    Raises:
        DataError: no such sessions in the bars, or none before them.
    """
    raw = read_parquet(RAW_BARS)
    sessions = _sessions(raw, first, last)
    registry = load_params("registry", RegistryParams)
    params = load_params("clean", CleanParams)
    champion = load_champion(registry.tracking_uri, registry.model)
    console.print(f"the pipeline on the bars before {sessions[0]:%Y-%m-%d} ...")
    with TemporaryDirectory() as folder, _settings_of_the_folder():
        _make_workspace(Path(folder), raw[raw["date"] < sessions[0]])
        with chdir(folder):
            played = _play(raw, sessions, champion, correction_sessions, console)
    bars, _, _ = clean(raw[raw["date"] <= sessions[-1]], params)
    windows = last_windows(daily_features(bars), champion.window)
    expected = {symbol: window for symbol, (_, window) in windows.items()}
    return played | _compared(played.pop("windows"), expected, champion.window)


def _sessions(raw: pd.DataFrame, first: str | None, last: str | None) -> list[pd.Timestamp]:
    days = pd.Series(sorted(raw["date"].dropna().unique()))
    try:
        begin = pd.Timestamp(first) if first else days.iloc[-5:].iloc[0]
        end = pd.Timestamp(last) if last else days.iloc[-1]
    except ValueError as error:
        raise DataError(f"--from and --to are dates such as 2013-02-25: {error}") from error
    chosen = days[(days >= begin) & (days <= end)]
    if chosen.empty or not (days < begin).any():
        raise DataError(
            f"{RAW_BARS}: no session from {begin:%Y-%m-%d} to {end:%Y-%m-%d} with others before it; its "
            f"bars are of {days.iloc[0]:%Y-%m-%d} to {days.iloc[-1]:%Y-%m-%d}."
        )
    return chosen.tolist()


@contextmanager
def _settings_of_the_folder() -> Iterator[None]:
    """No store but the scratch one, wherever the user's environment says that Feast's settings are."""
    elsewhere = os.environ.pop("FEAST_FS_YAML_FILE_PATH", None)
    try:
        yield
    finally:
        if elsewhere:
            os.environ["FEAST_FS_YAML_FILE_PATH"] = elsewhere


def _make_workspace(folder: Path, raw: pd.DataFrame) -> None:
    """A workspace up to stage `publish`, with an online store of its own."""
    shutil.copytree(Path(feature_repo.__file__).parent, folder / FEAST_REPO)
    shutil.copy(PARAMS_PATH, folder / PARAMS_PATH)
    settings = folder / FEAST_REPO / "feature_store.yaml"
    own = yaml.safe_load(settings.read_text())
    own["online_store"] = {"type": "sqlite", "path": "../data/feast/online.db"}
    settings.write_text(yaml.safe_dump(own))
    write_parquet(raw, folder / RAW_BARS)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    for stage in ("clean", "features", "publish"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", f"feature_repo.{stage}"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise StoreError(f"stage {stage} failed in the replay: {done.stderr.strip()}")


def _play(
    raw: pd.DataFrame,
    sessions: list[pd.Timestamp],
    champion: Any,
    correction_sessions: int,
    console: Console,
) -> dict[str, Any]:
    live = LiveBars(open_store(FEAST_REPO.resolve()), correction_sessions)
    predictor = Predictor(champion, open_store(FEAST_REPO.resolve()))
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


def last_windows(daily: pd.DataFrame, window: int) -> dict[str, tuple[pd.Timestamp, np.ndarray]]:
    """Each symbol's last window in a table of daily features, and the instant it ends at."""
    rows = daily[NAMES].to_numpy("float32")
    ends = window_ends(daily["symbol"].to_numpy(object), rows, window)
    last = daily[KEYS].iloc[ends].drop_duplicates("symbol", keep="last")
    windows = gather(rows, last.index.to_numpy(), window)
    pairs = zip(last["event_timestamp"], windows, strict=True)
    return dict(zip(last["symbol"], pairs, strict=True))


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
