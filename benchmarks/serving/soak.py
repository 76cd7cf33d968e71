"""Mixed load on `pitwise serve`, every answer checked against the batch path.

`python -m benchmarks.serving.soak runs/csv --minutes 30` cuts the last sessions off a copy of a finished
run and posts them live: in pieces, repeated, corrected, late, broken. Meanwhile it reads, moves the
champion and kills the service (`--redis`: and the store in turn). Afterwards the bars of every state
there was are cleaned and computed anew as one batch. An answer must be that of a state between the last
bars acknowledged before it was asked for and the last bars sent before it came.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pandas as pd
from sqlalchemy import create_engine, text

from benchmarks.serving.service import Process, copied_run, pitwise_serve
from feature_repo.artifacts import RAW_BARS, read_parquet, write_parquet
from feature_repo.clean import CleanParams, clean
from feature_repo.features import daily_features
from feature_repo.indicators import NAMES
from feature_repo.model import RegistryParams, load_registered, run_onnx
from feature_repo.stage import load_params, run_stage
from feature_repo.windows import gather, window_ends

TOLERANCE = 1e-5
"""Of log_return and p_up: another batch size adds the same numbers in another order."""
FOLLOWS_SECONDS = 10
"""How long a service may take to follow the champion."""
PUBLISH = """
from feature_repo import clean, features, publish
clean.main(); features.main(); publish.main()
"""
BAR = ["symbol", "date", "open", "high", "low", "close", "volume"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A forecast that was given; equal ones are checked once."""

    oldest: int
    """The state of the bars acknowledged when it was asked for."""
    newest: int
    """The state of the bars sent when it came."""
    symbol: str
    version: str
    as_of: str
    last_close: float
    log_return: float
    p_up: float


@dataclass
class Post:
    """Bars sent together, and the outcomes that each may have."""

    bars: pd.DataFrame
    may_be: list[set[str]]
    applied: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass
class Seen:
    """What the readers, the writer and the trouble-maker have met with so far."""

    answers: set[Answer] = field(default_factory=set)
    features: set[tuple[int, int, str, str, tuple]] = field(default_factory=set)
    posts: list[Post] = field(default_factory=list)
    acknowledged: int = 0
    offices: list[tuple[float, str]] = field(default_factory=list)
    """When each version was put into office; the first at the start."""
    away: int = 0
    """Counts up when a server goes down and when it is back: odd while it is away."""
    wrong: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    def versions(self, since: float) -> set[str]:
        """Those in office at some time since then, and those a service may not have left yet."""
        before = [version for at, version in self.offices if at <= since - FOLLOWS_SECONDS]
        return {*before[-1:], *(v for at, v in self.offices if at > since - FOLLOWS_SECONDS)}


def cut(folder: Path, sessions: int) -> pd.DataFrame:
    """Take the last sessions off a workspace's bars and publish the rest; the bars taken off."""
    raw = read_parquet(folder / RAW_BARS)
    days = np.sort(raw["date"].unique())[-sessions:]
    live = raw[raw["date"].isin(days)]
    write_parquet(raw[~raw["date"].isin(days)], folder / RAW_BARS)
    for part in ("clean", "features", "feast"):
        for path in (folder / "data" / part).iterdir():
            path.unlink()
    environment = os.environ | {"PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-c", PUBLISH], cwd=folder, env=environment, check=True)
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


class Soak:
    """One run of mixed load on a service."""

    def __init__(self, service: Process, symbols: Sequence[str], versions: Sequence[str], seed: int):
        self.service, self.symbols, self.versions = service, symbols, versions
        self.rng = np.random.default_rng(seed)
        self.seen = Seen()

    async def run(self, posts: Iterator[Post], seconds: float, n_posts: int, restarts: Sequence) -> None:
        self.end = time.monotonic() + seconds
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as self.session:
            await asyncio.gather(
                *(self.read() for _ in range(3)),
                self.write(posts, seconds / n_posts),
                self.trouble(seconds, restarts),
            )

    async def ask(self, path: str, body: dict | None = None) -> tuple[int, Any]:
        """Status and document; 0: no answer. That and a 5xx are wrong, unless a server was away."""
        away = self.seen.away
        method = "POST" if body else "GET"
        try:
            async with self.session.request(method, self.service.url + path, json=body) as answer:
                status, document = answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
            status, document = 0, None
        self.seen.counts[f"{method} {path.split('?')[0].rsplit('/', 1)[0]} {status}"] += 1
        calm = away == self.seen.away and away % 2 == 0
        if (status == 0 or status >= 500) and calm:
            self.seen.wrong.append(f"{method} {path}: {status or 'no answer'} {document}")
        return status, document

    async def read(self) -> None:
        while time.monotonic() < self.end:
            await asyncio.sleep(self.rng.exponential(0.05))
            size = int(
                self.rng.choice([1, min(20, len(self.symbols)), len(self.symbols)], p=[0.6, 0.3, 0.1])
            )
            some = self.rng.choice(self.symbols, size, replace=False).tolist()
            oldest, since = self.seen.acknowledged, time.monotonic()
            kind = self.rng.choice(["predict", "forecasts", "features"], p=[0.7, 0.1, 0.2])
            if kind == "predict":
                status, document = await self.ask("/v1/predict", {"symbols": some})
            elif kind == "forecasts":
                status, document = await self.ask("/v1/forecasts?top=10")
            else:
                status, document = await self.ask(f"/v1/features/{some[0]}")
            if status != 200:
                continue
            newest = len(self.seen.posts)
            if kind == "features":
                values = tuple(document["features"][name] for name in NAMES)
                self.seen.features.add((oldest, newest, some[0], document["as_of"], values))
                continue
            version = str(document["model_version"])
            if version not in self.seen.versions(since):
                self.seen.wrong.append(
                    f"version {version} answered, {self.seen.offices[-1]} is in office"
                )
            unknown = [e for e in document.get("errors", []) if "unknown" in e["type"]]
            self.seen.wrong += [f"{e['symbol']}: {e['detail']}" for e in unknown]
            for row in document["forecasts"]:
                numbers = (row["last_close"], row["log_return"], row["p_up"])
                self.seen.answers.add(
                    Answer(oldest, newest, row["symbol"], version, row["as_of"], *numbers)
                )

    async def write(self, posts: Iterator[Post], pause: float) -> None:
        for post in posts:
            if time.monotonic() > self.end:
                return
            self.seen.posts.append(post)
            bars = post.bars.assign(date=post.bars["date"].dt.strftime("%Y-%m-%d")).to_dict("records")
            status, tries = 0, 0
            while status != 200:  # whatever is not acknowledged is sent again
                status, document = await self.ask("/v1/bars", {"bars": bars})
                tries += 1
                if status != 200:
                    if tries > 600:  # three minutes and more
                        raise RuntimeError(f"bars are not taken: {status} {document}")
                    await asyncio.sleep(0.3)
            outcomes = [row["outcome"] for row in document["outcomes"]]
            self.seen.counts.update(f"bars {outcome}" for outcome in outcomes)
            for bar, outcome, may_be in zip(bars, outcomes, post.may_be, strict=True):
                # Sent again after a kill, a bar is repeated that was taken without a word.
                if outcome not in may_be | ({"repeated"} if tries > 1 else set()):
                    self.seen.wrong.append(f"{bar['symbol']} {bar['date']}: {outcome}, not {may_be}")
            post.applied = post.bars[[outcome != "refused" for outcome in outcomes]]
            self.seen.acknowledged = len(self.seen.posts)
            await asyncio.sleep(pause)

    async def trouble(self, seconds: float, restarts: Sequence[Callable[[], object]]) -> None:
        """Move the champion and restart a server in turns, evenly over the time."""
        import mlflow

        registry = load_params("registry", RegistryParams)
        client = mlflow.MlflowClient(registry.tracking_uri)
        turns = 2 * max(len(restarts), int(seconds // 120))
        for turn in range(turns):
            await asyncio.sleep(
                max(self.end - time.monotonic() - seconds * (1 - (turn + 1) / (turns + 1)), 0)
            )
            if turn % 2 == 0:
                version = self.versions[(turn // 2 + 1) % len(self.versions)]
                client.set_registered_model_alias(registry.model, "champion", version)
                self.seen.offices.append((time.monotonic(), version))
                self.seen.counts["swaps"] += 1
            else:
                self.seen.away += 1
                await asyncio.to_thread(restarts[turn // 2 % len(restarts)])
                self.seen.away += 1
                self.seen.counts["restarts"] += 1


@dataclass(frozen=True)
class State:
    """What the batch path makes of the bars there are."""

    features: dict[str, tuple[pd.Timestamp, np.ndarray]]
    """Symbol to the instant and the values of its newest ones, in the order of NAMES."""
    forecasts: dict[str, dict[str, Any]]
    """Version to symbol to as_of, last_close, log_return and p_up."""


class Oracle:
    """The batch path: all bars are cleaned anew, and what comes out differently is computed anew.

    Args:
        models: by version.
    """

    def __init__(self, raw: pd.DataFrame, models: dict[str, Any]):
        self.raw, self.models = raw, models
        self.params = load_params("clean", CleanParams)
        self._marks: dict[str, int] = {}
        self._state = State({}, {version: {} for version in models})

    def take(self, bars: pd.DataFrame) -> None:
        self.raw = pd.concat([self.raw, bars]).drop_duplicates(["symbol", "date"], keep="last")

    def state(self) -> State:
        bars, _, _ = clean(self.raw, self.params)
        marks = pd.util.hash_pandas_object(bars, index=False).groupby(bars["symbol"]).sum().to_dict()
        same = {symbol for symbol, mark in marks.items() if self._marks.get(symbol) == mark}
        fresh = (
            self._computed(bars[~bars["symbol"].isin(same)]) if len(same) < len(marks) else State({}, {})
        )

        def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
            return {symbol: old[symbol] for symbol in same & old.keys()} | new

        self._marks = marks
        self._state = State(
            joined(self._state.features, fresh.features),
            {
                version: joined(self._state.forecasts[version], fresh.forecasts.get(version, {}))
                for version in self.models
            },
        )
        return self._state

    def _computed(self, bars: pd.DataFrame) -> State:
        daily = daily_features(bars)
        instants = daily["event_timestamp"].array
        symbols = daily["symbol"].to_numpy(object)
        is_last = np.append(symbols[1:] != symbols[:-1], True)
        values = daily[NAMES].to_numpy("float64")
        rows = values.astype("float32")
        forecasts = {}
        for version, model in self.models.items():
            ends = window_ends(symbols, rows, model.window)
            ends = ends[np.append(symbols[ends][1:] != symbols[ends][:-1], True)]
            windows = gather(rows, ends, model.window)[:, :, [NAMES.index(f) for f in model.features]]
            answers = run_onnx(model.session, np.ascontiguousarray(windows))
            closes = rows[ends, NAMES.index("close")]
            known = zip(instants[ends], closes, answers["log_return"], answers["p_up"], strict=True)
            forecasts[version] = dict(zip(symbols[ends], known, strict=True))
        last = np.flatnonzero(is_last)
        return State({symbols[i]: (instants[i], values[i]) for i in last}, forecasts)


def _gap(answer: Answer, forecasts: dict[str, dict[str, Any]]) -> float:
    """How far its log_return or p_up is off; infinite where it is of another session or close."""
    if answer.symbol not in forecasts[answer.version]:
        return np.inf
    as_of, close, log_return, p_up = forecasts[answer.version][answer.symbol]
    if pd.Timestamp(answer.as_of) != as_of or answer.last_close != float(f"{close:.7g}"):
        return np.inf
    return float(max(abs(answer.log_return - log_return), abs(answer.p_up - p_up)))


def judged(seen: Seen, oracle: Oracle) -> tuple[dict[Answer, float], list[tuple]]:
    """The forecasts that no state explains, each with its gap to the nearest one, and such features."""
    gaps = dict.fromkeys(seen.answers, np.inf)
    features = set(seen.features)
    for number in range(len(seen.posts) + 1):
        if number:
            oracle.take(seen.posts[number - 1].applied)
        asked = [a for a, gap in gaps.items() if gap > TOLERANCE and a.oldest <= number <= a.newest]
        looked_up = [f for f in features if f[0] <= number <= f[1]]
        if asked or looked_up:
            state = oracle.state()
            gaps |= {a: min(gaps[a], _gap(a, state.forecasts)) for a in asked}
            features -= {f for f in looked_up if _same(f, state.features)}
    return {a: gap for a, gap in gaps.items() if gap > TOLERANCE}, list(features)


def _same(
    told: tuple[int, int, str, str, tuple], features: dict[str, tuple[pd.Timestamp, np.ndarray]]
) -> bool:
    _, _, symbol, as_of, values = told
    if symbol not in features:
        return False
    instant, wanted = features[symbol]
    mine = np.array([np.nan if v is None else v for v in values], float)
    same = np.isclose(mine, wanted, rtol=1e-9, atol=1e-12, equal_nan=True).all()
    return bool(same and pd.Timestamp(as_of) == instant)


def unlogged(seen: Seen, url: str) -> list[Answer]:
    """Forecasts that were answered and are not in the log, where each window's first answer stands."""
    logged = defaultdict(list)
    with create_engine(url).connect() as connection:
        for *key, p_up in connection.execute(
            text("SELECT symbol, as_of, model_version, p_up FROM predictions")
        ):
            logged[key[0], pd.Timestamp(key[1]).tz_localize(None), key[2]].append(p_up)

    def has(answer: Answer) -> bool:
        key = answer.symbol, pd.Timestamp(answer.as_of).tz_localize(None), answer.version
        return any(abs(p_up - answer.p_up) <= TOLERANCE for p_up in logged[key])

    return [answer for answer in seen.answers if not has(answer)]


def soak(
    run: Path, folder: Path, seconds: float, sessions: int, seed: int = 7, redis: Any = None
) -> dict:
    """Mixed load on a service of a copy of `run`, made in `folder`, which becomes the working directory.

    Args:
        sessions: how many of the run's last ones come live; the posts are spread over the time.
        redis: a `tests.servers.Redis` to keep the windows in, in place of SQLite.

    Returns:
        `wrong`: what was not as it must be, in words; and what there was, counted.
    """
    import mlflow

    copied_run(run, folder)
    if redis:
        config = (folder / "feature_repo/feature_store.redis.yaml").read_text()
        config = config.replace("localhost:6379", redis.address)
        (folder / "feature_repo/feature_store.yaml").write_text(config)
    live = cut(folder, sessions)
    os.chdir(folder)
    registry = load_params("registry", RegistryParams)
    mlflow.set_tracking_uri(registry.tracking_uri)
    client = mlflow.MlflowClient()
    models = {
        str(version.version): load_registered(registry.model, version)
        for version in client.search_model_versions(f"name='{registry.model}'")
    }
    oracle = Oracle(read_parquet(RAW_BARS), models)
    champion = str(client.get_model_version_by_alias(registry.model, "champion").version)
    symbols = list(oracle.state().forecasts[champion])
    # The champion last: the first swap is then to another.
    versions = [*(version for version in models if version != champion), champion]
    service = pitwise_serve(folder)

    def kill_service() -> None:
        service.stop(signal.SIGKILL)
        service.start()

    def kill_redis() -> None:
        redis.process.kill()
        redis.process.wait()
        redis.start()

    posts = list(script(live, np.random.default_rng(seed)))
    ready_seconds = service.start()
    at_work = Soak(service, symbols, versions, seed)
    at_work.seen.offices.append((-np.inf, champion))
    restarts = [kill_service, kill_redis] if redis else [kill_service]
    try:
        asyncio.run(at_work.run(iter(posts), seconds, len(posts), restarts))
    finally:
        exit_code = service.stop(signal.SIGTERM)
    seen = at_work.seen
    wrong_forecasts, wrong_features = judged(seen, oracle)
    wrong = [
        *seen.wrong,
        *(f"{told}, off by {gap:.1g}" for told, gap in wrong_forecasts.items()),
        *(f"features {told[:4]}" for told in wrong_features),
    ]
    wrong += [f"not in the log: {told}" for told in unlogged(seen, "sqlite:///data/predictions/log.db")]
    if exit_code:
        wrong.append(f"the service ended with {exit_code}")
    return {
        "wrong": wrong,
        "ready_seconds": ready_seconds,
        "states": seen.acknowledged,
        "posts_left": len(posts) - len(seen.posts),
        "forecasts_checked": len(seen.answers),
        "features_checked": len(seen.features),
        **seen.counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("runs/csv"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--sessions", type=int, default=20, help="how many of the last ones come live")
    parser.add_argument("--redis", action="store_true", help="windows in a redis-server of its own")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = None
        if asked.redis:
            from tests.servers import redis

            server = stack.enter_context(redis())
        figures = soak(
            asked.workspace.resolve(), folder, 60 * asked.minutes, asked.sessions, redis=server
        )
    for name, value in figures.items():
        print(f"{name}: {len(value) if name == 'wrong' else value}")
    print(*figures["wrong"][:20], sep="\n")
    sys.exit(1 if figures["wrong"] else 0)


if __name__ == "__main__":
    run_stage(main)
