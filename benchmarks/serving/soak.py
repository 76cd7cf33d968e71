"""Mixed load on `pitwise serve`, every answer checked against the batch path.

`python -m benchmarks.serving.soak runs/csv --minutes 30 --readers 2` cuts the last sessions off a copy
of a finished run and posts them live: in pieces, repeated, corrected, late, set aside, withdrawn,
broken. Meanwhile it reads in every way there is, moves the champion, and kills each process of the
service, its Redis and its PostgreSQL (`--sqlite`: without these). Afterwards the bars of every state
there was are cleaned and computed anew by the batch path (`benchmarks.serving.oracle`), and each answer
must be that of a state between the last bars acknowledged before its request and the last bars sent
before it came. What was acknowledged must be in the landings, what was answered in the log.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.serving.answers import Features, Forecast, Past, unexplained
from benchmarks.serving.kept import lost_bars, unlogged_forecasts, unlogged_requests
from benchmarks.serving.load import Load, Seen
from benchmarks.serving.memory import growing, sampled, thirds
from benchmarks.serving.oracle import Market, Oracle
from benchmarks.serving.posts import cut, script
from benchmarks.serving.service import PROJECT, copied_run, pitwise_serve
from benchmarks.serving.troubles import of_processes, of_servers
from pitwise.bars.__main__ import BarParams
from pitwise.cleaning.clean import CleanParams
from pitwise.registry.champion import CHAMPION, registry_client
from pitwise.registry.model import RegistryParams, load_registered
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace
from serving.settings import ServeParams

OUTCOMES = ("new", "late", "repeated", "corrected", "quarantined", "withdrawn", "refused")
"""What a bar of a whole soak becomes at least once."""


def soak(
    run: Workspace,
    folder: Path,
    seconds: float,
    sessions: int,
    seed: int = 7,
    readers: int = 2,
    redis: Any = None,
    postgres: Any = None,
    audits: int = 1,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Mixed load on a service of a copy of `run`, made in `folder`.

    Args:
        sessions: how many of the run's last ones come live; the posts are spread over the time.
        redis: a `tests.support.servers.Redis` to keep the windows in, in place of SQLite.
        postgres: a `tests.support.servers.Postgres` for the log, in place of SQLite.
        without: names of troubles that are left out.
        audits: states of which the whole market is computed anew, to hold the oracle against.

    Returns:
        `wrong`: what was not as it must be, in words; and what there was, counted.
    """
    workspace = copied_run(run, folder, workers=readers)
    _use_servers(workspace, redis, postgres)
    live, landings = cut(workspace, sessions)
    registry = load_params(workspace, "registry", RegistryParams)
    client = registry_client(workspace, registry)
    models = {
        str(version.version): load_registered(registry.model, version)
        for version in client.search_model_versions(f"name='{registry.model}'")
    }
    coverage = load_params(workspace, "bars", BarParams).seal_coverage
    clean = load_params(workspace, "clean", CleanParams)
    ttl = load_params(workspace, "serve", ServeParams).ttl_sessions
    market = Oracle(landings, [], coverage, clean, models).market(0)
    symbols = [symbol for symbol, truth in market.truths.items() if truth.window]
    champion = str(client.get_model_version_by_alias(registry.model, CHAMPION).version)
    # The champion last: the first swap is then to another.
    versions = [*(version for version in models if version != champion), champion]

    def move_champion(version: str) -> None:
        client.set_registered_model_alias(registry.model, CHAMPION, version)

    posts = list(script(live, np.random.default_rng(seed)))
    service = pitwise_serve(workspace)
    ready_seconds = service.start()
    try:
        load = Load(service, move_champion, symbols, versions, ttl, seed)
        load.seen.champions.append((-np.inf, champion))
        troubles = [*of_processes(service), *of_servers(redis, postgres)]
        troubles = [trouble for trouble in troubles if trouble.name not in without]
        with sampled(service) as samples:
            asyncio.run(load.run(posts, seconds, troubles))
    finally:
        exit_code = service.stop(signal.SIGTERM)
    seen = load.seen
    oracle = Oracle(landings, [post.rows for post in seen.posts], coverage, clean, models)
    wrong = [
        *wrong_answers(seen, oracle, ttl),
        *unaudited(oracle, len(seen.posts), audits),
        *lost_bars(workspace, seen.posts, oracle.versions(len(seen.posts))),
        *unlogged_forecasts(seen.answers, log_url(workspace)),
        *unlogged_requests(seen.logged, log_url(workspace)),
        *growing(samples),
        *([f"exit code {exit_code}"] * bool(exit_code)),
    ]
    return {
        "wrong": wrong,
        "ready_seconds": round(ready_seconds, 2),
        "posts": seen.acknowledged,
        "answers_checked": len(seen.answers.answers),
        "forecasts_checked": seen.answers.count(Forecast),
        "features_checked": seen.answers.count(Features),
        "past_forecasts_checked": seen.answers.count(Past),
        "requests_logged": len(seen.logged),
        "whole_again_seconds": {name: round(s, 1) for name, s in seen.whole_again.items()},
        "memory_mib": {role: tuple(map(round, of)) for role, of in thirds(samples).items()},
        **dict(sorted(seen.counts.items())),
    }


def wrong_answers(seen: Seen, oracle: Oracle, ttl: int, progress: bool = True) -> list[str]:
    """What went wrong while it ran, and the answers that no state explains; in words."""
    return [*seen.wrong, *unexplained(seen.answers, oracle, len(seen.posts), ttl, progress)]


def unaudited(oracle: Oracle, n_posts: int, audits: int) -> list[str]:
    """The states in which the whole batch path says something else than the oracle, in words."""
    wrong = []
    for number in np.linspace(n_posts, 0, audits, endpoint=False).round().astype(int).tolist():
        if not same_market(oracle.market(number), oracle.whole(number)):
            wrong.append(f"the oracle of state {number} is not the batch path's market")
    return wrong


def same_market(ours: Market, whole: Market) -> bool:
    """Whether two markets say the same."""
    if ours.truths.keys() != whole.truths.keys() or ours.suspects != whole.suspects:
        return False
    pairs = ((truth, whole.truths[symbol]) for symbol, truth in ours.truths.items())
    return (ours.newest, ours.sealed) == (whole.newest, whole.sealed) and all(
        one.as_of == other.as_of
        and np.array_equal(one.features, other.features, equal_nan=True)
        and _same_window(one.window, other.window)
        for one, other in pairs
    )


def _same_window(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    same = (one.as_of, one.missing, one.close) == (other.as_of, other.missing, other.close)
    return same and all(
        np.allclose(numbers, other.forecasts[version], atol=1e-6)
        for version, numbers in one.forecasts.items()
    )


def log_url(workspace: Workspace) -> str:
    """SQLAlchemy's address of the prediction log of a workspace."""
    return workspace.database_url(yaml.safe_load(workspace.params.read_text())["predict"]["log_url"])


def _use_servers(workspace: Workspace, redis: Any, postgres: Any) -> None:
    if redis:
        config = (PROJECT.feast_repo / "feature_store.redis.yaml").read_text()
        config = config.replace("localhost:6379", redis.address)
        (workspace.feast_repo / "feature_store.yaml").write_text(config)
    if postgres:
        params = yaml.safe_load(workspace.params.read_text())
        params["predict"]["log_url"] = f"{postgres.new_database()}?connect_timeout=5"
        workspace.params.write_text(yaml.safe_dump(params))


def never_came(figures: dict[str, Any]) -> Sequence[str]:
    """What a whole soak should have met with and has not, in words."""
    missing = [outcome for outcome in OUTCOMES if not figures.get(f"bars {outcome}")]
    wrong = [f"no bar was {outcome}" for outcome in missing]
    if not figures.get("swaps"):
        wrong.append("the champion never changed")
    return wrong


def main(project: Workspace) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("runs/csv"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--sessions", type=int, default=20, help="how many of the last ones come live")
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--sqlite", action="store_true", help="windows and log in SQLite, no servers")
    parser.add_argument("--folder", type=Path, help="a new one, to keep what the service leaves")
    options = parser.parse_args()
    run = Workspace(project.path(options.workspace))
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        servers = {}
        if not options.sqlite:
            from tests.support.servers import postgres, redis

            servers = {
                "redis": stack.enter_context(redis()),
                "postgres": stack.enter_context(postgres()),
            }
        began = time.monotonic()
        figures = soak(
            run,
            folder,
            60 * options.minutes,
            options.sessions,
            options.seed,
            options.readers,
            audits=3,
            **servers,
        )
        figures["wrong"] += never_came(figures)
        figures["minutes in all"] = round((time.monotonic() - began) / 60, 1)
    for name, value in figures.items():
        print(f"{name}: {len(value) if name == 'wrong' else value}")
    for said, times in Counter(figures["wrong"]).most_common(60):
        print(f"{times} x {said}")
    sys.exit(1 if figures["wrong"] else 0)


if __name__ == "__main__":
    run_stage(main)
