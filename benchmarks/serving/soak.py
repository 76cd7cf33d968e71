"""Mixed load on `pitwise serve`, every answer checked against the batch path.

`python -m benchmarks.serving.soak runs/csv --minutes 30` cuts the last sessions off a copy of a finished
run and posts them live: in pieces, repeated, corrected, late, broken. Meanwhile it reads, moves the
champion and kills the service (`--redis`: and the store in turn). Afterwards the bars of every state
there was are cleaned and computed anew as one batch. An answer must be that of a state between the last
bars acknowledged before its request and the last bars sent before it came.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks.serving.oracle import Answer, Features, Oracle, unexplained, unlogged
from benchmarks.serving.posts import Post, cut, script
from benchmarks.serving.service import PROJECT, Process, copied_run, pitwise_serve
from pitwise.bars.__main__ import BarParams
from pitwise.cleaning.clean import CleanParams
from pitwise.features.indicators import NAMES
from pitwise.registry.champion import CHAMPION, registry_client
from pitwise.registry.model import RegistryParams, load_registered
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace

FOLLOWS_SECONDS = 10
"""How long a service may take to follow the champion."""
FIELDS = ("last_close", "log_return", "p_up")


@dataclass
class Seen:
    """What the readers, the writer and the trouble-maker have met with so far."""

    answers: set[Answer] = field(default_factory=set)
    features: set[Features] = field(default_factory=set)
    posts: list[Post] = field(default_factory=list)
    acknowledged: int = 0
    champions: list[tuple[float, str]] = field(default_factory=list)
    """When each version became champion; the first at the start."""
    away: int = 0
    """Counts up when a server goes down and when it is back: odd while it is away."""
    wrong: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    def versions(self, since: float) -> set[str]:
        """The champions at some time since then, and those a service may not have left yet."""
        before = [version for at, version in self.champions if at <= since - FOLLOWS_SECONDS]
        return {*before[-1:], *(v for at, v in self.champions if at > since - FOLLOWS_SECONDS)}


class Soak:
    """One run of mixed load on a service."""

    def __init__(
        self,
        service: Process,
        move_champion: Callable[[str], object],
        symbols: Sequence[str],
        versions: Sequence[str],
        seed: int,
    ):
        self.service, self.move_champion = service, move_champion
        self.symbols, self.versions = symbols, versions
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

    async def request(self, path: str, body: dict | None = None) -> tuple[int, Any]:
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
            n = len(self.symbols)
            size = int(self.rng.choice([1, min(20, n), n], p=[0.6, 0.3, 0.1]))
            some = self.rng.choice(self.symbols, size, replace=False).tolist()
            oldest, since = self.seen.acknowledged, time.monotonic()
            kind = self.rng.choice(["predict", "forecasts", "features"], p=[0.7, 0.1, 0.2])
            if kind == "predict":
                status, document = await self.request("/v1/predict", {"symbols": some})
            elif kind == "forecasts":
                status, document = await self.request("/v1/forecasts?top=10")
            else:
                status, document = await self.request(f"/v1/features/{some[0]}")
            if status != 200:
                continue
            if kind == "features":
                values = tuple(document["features"][name] for name in NAMES)
                newest = len(self.seen.posts)
                self.seen.features.add(Features(oldest, newest, some[0], document["as_of"], values))
            else:
                self._keep_forecasts(document, oldest, since)

    def _keep_forecasts(self, document: dict, oldest: int, since: float) -> None:
        version = str(document["model_version"])
        if version not in self.seen.versions(since):
            _, current = self.seen.champions[-1]
            self.seen.wrong.append(f"version {version} answered, version {current} is champion")
        unknown = [e for e in document.get("errors", []) if "unknown" in e["type"]]
        self.seen.wrong += [f"{e['symbol']}: {e['detail']}" for e in unknown]
        newest = len(self.seen.posts)
        for row in document["forecasts"]:
            numbers = (row[name] for name in FIELDS)
            self.seen.answers.add(Answer(oldest, newest, row["symbol"], version, row["as_of"], *numbers))

    async def write(self, posts: Iterator[Post], pause: float) -> None:
        for post in posts:
            if time.monotonic() > self.end:
                return
            self.seen.posts.append(post)
            bars = post.bars.assign(date=post.bars["date"].dt.strftime("%Y-%m-%d")).to_dict("records")
            status, tries = 0, 0
            while status != 200:  # whatever is not acknowledged is sent again
                status, document = await self.request("/v1/bars", {"bars": bars})
                tries += 1
                if status != 200:
                    if tries > 600:  # three minutes and more
                        raise RuntimeError(f"bars are not taken: {status} {document}")
                    await asyncio.sleep(0.3)
            outcomes = [row["outcome"] for row in document["outcomes"]]
            self.seen.counts.update(f"bars {outcome}" for outcome in outcomes)
            for bar, outcome, may_be in zip(bars, outcomes, post.may_be, strict=True):
                # Sent again after a kill, a bar is repeated that was taken without an answer.
                if outcome not in may_be | ({"repeated"} if tries > 1 else set()):
                    self.seen.wrong.append(f"{bar['symbol']} {bar['date']}: {outcome}, not {may_be}")
            post.applied = post.bars[[outcome != "refused" for outcome in outcomes]]
            self.seen.acknowledged = len(self.seen.posts)
            await asyncio.sleep(pause)

    async def trouble(self, seconds: float, restarts: Sequence[Callable[[], object]]) -> None:
        """Move the champion and restart a server in turns, evenly over the time."""
        turns = 2 * max(len(restarts), int(seconds // 120))
        for turn in range(turns):
            await asyncio.sleep(
                max(self.end - time.monotonic() - seconds * (1 - (turn + 1) / (turns + 1)), 0)
            )
            if turn % 2 == 0:
                version = self.versions[(turn // 2 + 1) % len(self.versions)]
                self.move_champion(version)
                self.seen.champions.append((time.monotonic(), version))
                self.seen.counts["swaps"] += 1
            else:
                self.seen.away += 1
                await asyncio.to_thread(restarts[turn // 2 % len(restarts)])
                self.seen.away += 1
                self.seen.counts["restarts"] += 1


def soak(
    run: Workspace, folder: Path, seconds: float, sessions: int, seed: int = 7, redis: Any = None
) -> dict[str, Any]:
    """Mixed load on a service of a copy of `run`, made in `folder`.

    Args:
        sessions: how many of the run's last ones come live; the posts are spread over the time.
        redis: a `tests.support.servers.Redis` to keep the windows in, in place of SQLite.

    Returns:
        `wrong`: what was not as it must be, in words; and what there was, counted.
    """
    workspace = copied_run(run, folder)
    if redis:
        config = (PROJECT.feast_repo / "feature_store.redis.yaml").read_text()
        config = config.replace("localhost:6379", redis.address)
        (workspace.feast_repo / "feature_store.yaml").write_text(config)
    live, landings = cut(workspace, sessions)
    registry = load_params(workspace, "registry", RegistryParams)
    client = registry_client(workspace, registry)
    models = {
        str(version.version): load_registered(registry.model, version)
        for version in client.search_model_versions(f"name='{registry.model}'")
    }
    params = load_params(workspace, "clean", CleanParams)
    coverage = load_params(workspace, "bars", BarParams).seal_coverage
    oracle = Oracle(landings, coverage, params, models)
    champion = str(client.get_model_version_by_alias(registry.model, CHAMPION).version)
    symbols = list(oracle.state().forecasts[champion])
    # The champion last: the first swap is then to another.
    versions = [*(version for version in models if version != champion), champion]
    service = pitwise_serve(workspace)

    def move_champion(version: str) -> None:
        client.set_registered_model_alias(registry.model, CHAMPION, version)

    def kill_service() -> None:
        service.stop(signal.SIGKILL)
        service.start()

    def kill_redis() -> None:
        redis.process.kill()
        redis.process.wait()
        redis.start()

    posts = list(script(live, np.random.default_rng(seed)))
    ready_seconds = service.start()
    load = Soak(service, move_champion, symbols, versions, seed)
    load.seen.champions.append((-np.inf, champion))
    restarts = [kill_service, kill_redis] if redis else [kill_service]
    try:
        asyncio.run(load.run(iter(posts), seconds, len(posts), restarts))
    finally:
        exit_code = service.stop(signal.SIGTERM)
    log = workspace.database_url("sqlite:///data/predictions/log.db")
    return {
        "wrong": [
            *wrong_answers(load.seen, oracle, log),
            *([f"exit code {exit_code}"] * bool(exit_code)),
        ],
        "ready_seconds": ready_seconds,
        "states": load.seen.acknowledged,
        "posts_left": len(posts) - len(load.seen.posts),
        "forecasts_checked": len(load.seen.answers),
        "features_checked": len(load.seen.features),
        **load.seen.counts,
    }


def wrong_answers(seen: Seen, oracle: Oracle, log: str) -> list[str]:
    """What went wrong in words: while it ran, against the oracle, and in the prediction log."""
    posted = [post.applied for post in seen.posts]
    forecasts, features = unexplained(seen.answers, seen.features, posted, oracle)
    return [
        *seen.wrong,
        *(f"{answer}, off by {gap:.1g}" for answer, gap in forecasts.items()),
        *(f"features {read[:4]}" for read in features),
        *(f"not in the log: {answer}" for answer in unlogged(seen.answers, log)),
    ]


def main(project: Workspace) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("runs/csv"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--sessions", type=int, default=20, help="how many of the last ones come live")
    parser.add_argument("--redis", action="store_true", help="windows in a redis-server of its own")
    options = parser.parse_args()
    run = Workspace(project.path(options.workspace))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        server = None
        if options.redis:
            from tests.support.servers import redis

            server = stack.enter_context(redis())
        figures = soak(run, folder, 60 * options.minutes, options.sessions, redis=server)
    for name, value in figures.items():
        print(f"{name}: {len(value) if name == 'wrong' else value}")
    print(*figures["wrong"][:20], sep="\n")
    sys.exit(1 if figures["wrong"] else 0)


if __name__ == "__main__":
    run_stage(main)
