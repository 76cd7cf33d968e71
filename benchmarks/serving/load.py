"""What the soak does to a service: reads of every kind, bars, another champion, troubles."""

import asyncio
import json
import math
import time
from bisect import bisect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import pandas as pd

from benchmarks.serving.answers import (
    Answers,
    Forecast,
    Item,
    Past,
    Stale,
    features_of,
    forecast_of,
)
from benchmarks.serving.posts import Post
from benchmarks.serving.service import Process
from benchmarks.serving.troubles import Trouble
from pitwise.bars.calendar import next_session, session_day

FOLLOWS_SECONDS = 10
"""How long a service may take to follow the champion."""
SHOWS_SECONDS = 25
"""How long a service may take to say that it is not ready."""
RECOVERS_SECONDS = 180
"""How long a service may take to work again once the trouble is over."""
STREAM_LAGS_SECONDS = 10.0
"""How far the stream may lie behind."""
STREAM_SETTLES_SECONDS = 2.0
"""How long after the last bars it has all."""
STREAM_SECONDS = 40.0
"""The longest without an event or a heartbeat."""
TIMEOUT = {"bars": 90.0}
"""Seconds by kind of request; others have 10."""
KINDS = {
    "predict one": 0.30,
    "predict some": 0.20,
    "predict all": 0.08,
    "strongest": 0.10,
    "features": 0.14,
    "forecasts again": 0.06,
    "features again": 0.06,
    "history": 0.06,
}
"""How often each kind of read comes."""


class Span(NamedTuple):
    """A trouble from its begin until all of the service worked again."""

    trouble: Trouble
    begin: float
    end: float


class Held(NamedTuple):
    """A document that a client holds with its entity tag."""

    etag: str
    version: str
    items: list[Item]


@dataclass
class Seen:
    """What the readers, the writer and the trouble-maker have met with so far."""

    answers: Answers = field(default_factory=Answers)
    posts: list[Post] = field(default_factory=list)
    acknowledged_at: list[float] = field(default_factory=list)
    """When each post was, by `time.monotonic()`."""
    champions: list[tuple[float, str]] = field(default_factory=list)
    """When each version became champion; the first at the start."""
    troubles: list[Span] = field(default_factory=list)
    whole_again: dict[str, float] = field(default_factory=dict)
    """By trouble the longest that it took from its end until all of the service worked, in seconds."""
    logged: dict[str, int] = field(default_factory=dict)
    """By request id how many forecasts were answered."""
    wrong: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    @property
    def acknowledged(self) -> int:
        """How many posts were."""
        return len(self.acknowledged_at)

    def versions(self, since: float) -> set[str]:
        """The champions at some time since then, and those a service may not have left yet.

        While a trouble lasts, it may stay with the champion that it had.
        """
        until = since - FOLLOWS_SECONDS
        for span in reversed(self.troubles):
            if span.end + FOLLOWS_SECONDS > until:
                until = min(until, span.begin - FOLLOWS_SECONDS)
        before = [version for at, version in self.champions if at <= until]
        return {*before[-1:], *(version for at, version in self.champions if at > until)}

    def excused(self, kind: str, failure: str, since: float) -> bool:
        """Whether a request that began at an instant and has just failed may have."""
        return any(span.trouble.excuse(kind, failure) for span in self.troubles if span.end >= since)


class Answered(NamedTuple):
    """What came back for a request."""

    status: int
    """0: no answer."""
    document: Any
    headers: Any
    request_id: str
    oldest: int
    """Posts acknowledged before it was sent."""
    since: float


class Load:
    """One run of mixed load on a service.

    Args:
        versions: of the model, in the order in which they become champion.
        ttl: `serve.ttl_sessions`.
    """

    def __init__(
        self,
        service: Process,
        move_champion: Callable[[str], object],
        symbols: Sequence[str],
        versions: Sequence[str],
        ttl: int,
        seed: int,
    ):
        self.service, self.move_champion = service, move_champion
        self.symbols, self.versions, self.ttl = symbols, versions, ttl
        self.rng = np.random.default_rng(seed)
        self.seen = Seen()
        self._held: dict[str, Held] = {}
        self._sent = 0
        self._streamed_last: dict[str, Item] = {}

    async def run(self, posts: Sequence[Post], seconds: float, troubles: Sequence[Trouble]) -> None:
        """Load for so many seconds; longer, where the posts or the troubles take it."""
        self.start = time.monotonic()
        self.is_over = False
        self._roles = self.service.roles().keys()
        async with aiohttp.ClientSession(read_bufsize=2**22) as self.session:
            others = [asyncio.create_task(task) for task in (self.follow(), self.progress())]
            reads = [asyncio.create_task(self.read()) for _ in range(3)]
            await asyncio.gather(
                self.write(posts, seconds / len(posts)), self.trouble(seconds, troubles)
            )
            self.is_over = True
            await asyncio.gather(*reads)
            await self.settle()
            for task in others:
                task.cancel()

    async def ask(
        self, method: str, path: str, kind: str, body: Any = None, headers: dict | None = None
    ) -> Answered:
        """Send a request. No answer and a 5xx are wrong, unless a trouble excuses them."""
        self._sent += 1
        request_id = f"soak-{self._sent:08d}"
        headers = {"X-Request-ID": request_id} | (headers or {})
        oldest, since = self.seen.acknowledged, time.monotonic()
        timeout = aiohttp.ClientTimeout(TIMEOUT.get(kind, 10.0))
        status, document, got, why = 0, None, {}, ""
        try:
            async with self.session.request(
                method, self.service.url + path, json=body, headers=headers, timeout=timeout
            ) as answer:
                raw = await answer.read()
                document = json.loads(raw) if raw else None
                status, got = answer.status, answer.headers
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
            why = repr(error)
        self.seen.counts[f"{method} {kind} {status}"] += 1
        if status == 0 or status >= 500:
            failure = "5xx" if status else "no answer"
            if not self.seen.excused(kind, failure, since):
                at = since - self.start
                self.seen.wrong.append(f"{at:.0f} s: {method} {path}: {status} {document} {why}")
        elif got.get("X-Request-ID") != request_id:
            self.seen.wrong.append(f"{method} {path}: request id {got.get('X-Request-ID')}")
        return Answered(status, document, got, request_id, oldest, since)

    async def read(self) -> None:
        kinds, shares = list(KINDS), list(KINDS.values())
        while not self.is_over:
            await asyncio.sleep(self.rng.exponential(0.05))
            symbol = str(self.rng.choice(self.symbols))
            match self.rng.choice(kinds, p=shares):
                case "predict one":
                    await self.predict([symbol])
                case "predict some":
                    n = min(20, len(self.symbols))
                    await self.predict(self.rng.choice(self.symbols, n, replace=False).tolist())
                case "predict all":
                    await self.predict(list(self.symbols))
                case "strongest":
                    await self.strongest(str(self.rng.choice(["p_up", "log_return"])))
                case "features":
                    await self.features(symbol, again=False)
                case "forecasts again":
                    await self.strongest("p_up", again=True)
                case "features again":
                    await self.features(str(self.symbols[0]), again=True)
                case "history":
                    await self.history(symbol)

    async def predict(self, symbols: list[str]) -> list[Item]:
        answered = await self.ask("POST", "/v1/predict", "predict", {"symbols": symbols})
        document = answered.document
        if answered.status == 409 and len(symbols) == 1 and "stale" in document["type"]:
            self._keep(answered, "predict", [Stale(symbols[0], self.ttl)])
        if answered.status != 200:
            if answered.status not in (0, 409) and answered.status < 500:
                self.seen.wrong.append(f"predict {symbols[:3]}: {answered.status} {document}")
            return []
        items = self._forecasts(answered)
        for error in document["errors"]:
            if "stale" in error["type"]:
                items.append(Stale(error["symbol"], self.ttl))
            else:
                self.seen.wrong.append(f"{error['symbol']}: {error['detail']}")
        if [item.symbol for item in items] != symbols and {i.symbol for i in items} != set(symbols):
            self.seen.wrong.append(f"{len(symbols)} asked, {len(items)} answered")
        self._keep(answered, "predict", items)
        return items

    async def strongest(self, by: str, again: bool = False) -> None:
        path = f"/v1/forecasts?top=10&by={by}"
        answered, held = await self._ask_again(path, "forecasts", again)
        if answered.status == 304:
            assert held
            self._check_version(held.version, answered.since)
            self._keep(answered, "forecasts, not modified", held.items, by)
        elif answered.status == 200:
            items = self._forecasts(answered)
            self._keep(answered, "forecasts", items, by)
            self._hold(path, answered, answered.document["model_version"], items)

    async def features(self, symbol: str, again: bool) -> None:
        path = f"/v1/features/{symbol}"
        answered, held = await self._ask_again(path, "features", again)
        if answered.status == 304:
            assert held
            self._keep(answered, "features, not modified", held.items)
        elif answered.status == 200:
            items = [features_of(answered.document)]
            self._keep(answered, "features", items)
            self._hold(path, answered, "", items)

    async def history(self, symbol: str) -> None:
        answered = await self.ask("GET", f"/v1/forecasts/{symbol}/history", "history")
        if answered.status != 200:
            return
        for row in answered.document["forecasts"]:
            past = Past(symbol, row["model_version"], row["as_of"], row["log_return"], row["p_up"])
            self.seen.answers.add("history", 0, len(self.seen.posts), [past])

    async def follow(self) -> None:
        """Follow the stream of forecasts, and go on from the last event where it breaks off."""
        last = ""
        while True:
            since = time.monotonic()
            headers = {"Last-Event-ID": last} if last else {}
            timeout = aiohttp.ClientTimeout(None, sock_read=STREAM_SECONDS)
            why = "it ended"
            try:
                async with self.session.get(
                    f"{self.service.url}/v1/forecasts/stream", headers=headers, timeout=timeout
                ) as answer:
                    why = f"status {answer.status}"
                    if answer.status == 200:
                        async for event in _events(answer.content):
                            since = time.monotonic()
                            last = self._streamed(event, last, since)
            except (aiohttp.ClientError, TimeoutError) as error:
                why = repr(error)
            self.seen.counts["streams broken off"] += 1
            if not self.seen.excused("stream", "no answer", since):
                self.seen.wrong.append(f"{since - self.start:.0f} s: the stream broke off: {why}")
            await asyncio.sleep(0.5)

    def _streamed(self, event: dict[str, str], last: str, now: float) -> str:
        """Keep an event of the stream; the id of the last one so far."""
        self.seen.counts[f"streamed {event['event']}"] += 1
        document = json.loads(event["data"])
        if event["event"] != "forecasts" or (last and int(event["id"]) <= int(last)):
            self.seen.wrong.append(f"{now - self.start:.0f} s: streamed after {last}: {event}")
            return last
        version = str(document["model_version"])
        self._check_version(version, now - STREAM_LAGS_SECONDS)
        items: list[Item] = [forecast_of(row, version) for row in document["forecasts"]]
        for error in document["errors"]:
            if "stale" in error["type"]:
                items.append(Stale(error["symbol"], self.ttl))
            else:
                self.seen.wrong.append(f"streamed {error['symbol']}: {error['detail']}")
        self._streamed_last |= {item.symbol: item for item in items}
        oldest = bisect(self.seen.acknowledged_at, now - STREAM_LAGS_SECONDS)
        self.seen.answers.add("stream", oldest, len(self.seen.posts), items)
        return event["id"]

    async def settle(self) -> None:
        """What it has come to: the whole market once more, and all that was streamed says the same."""
        await asyncio.sleep(STREAM_SETTLES_SECONDS)
        for item in await self.predict(list(self.symbols)):
            streamed = self._streamed_last.get(item.symbol)
            # A session more makes all symbols older; only those are streamed whose forecast it changes.
            if isinstance(item, Forecast) and isinstance(streamed, Forecast):
                streamed = streamed._replace(age=item.age)
            if item != streamed:
                self.seen.wrong.append(f"in the end the stream has {streamed}, and /v1/predict {item}")

    async def _ask_again(self, path: str, kind: str, again: bool) -> tuple[Answered, Held | None]:
        """Ask for a document, where it is held already and `again` only if it has changed."""
        held = self._held.get(path) if again else None
        headers = {"If-None-Match": held.etag} if held else None
        return await self.ask("GET", path, kind, headers=headers), held

    def _hold(self, path: str, answered: Answered, version: str, items: list[Item]) -> None:
        if etag := answered.headers.get("ETag"):
            self._held[path] = Held(etag, version, items)

    def _forecasts(self, answered: Answered) -> list[Item]:
        """The forecasts of an answer; what each says by itself is checked at once."""
        version = str(answered.document["model_version"])
        self._check_version(version, answered.since)
        rows = answered.document["forecasts"]
        self.seen.logged[answered.request_id] = len(rows)
        for row in rows:
            price = row["last_close"] * math.exp(row["log_return"])
            ahead = _session_after(row["as_of"], row["horizon"])
            if abs(price / row["price"] - 1) > 1e-6 or row["for_session"] != ahead:
                self.seen.wrong.append(f"a forecast that contradicts itself: {row}")
        return [forecast_of(row, version) for row in rows]

    def _check_version(self, version: str, since: float) -> None:
        if version not in self.seen.versions(since):
            _, current = self.seen.champions[-1]
            self.seen.wrong.append(
                f"{since - self.start:.0f} s: version {version} answered, version {current} is champion"
            )

    def _keep(self, answered: Answered, what: str, items: Sequence[Item], top_by: str = "") -> None:
        self.seen.answers.add(what, answered.oldest, len(self.seen.posts), items, top_by)

    async def write(self, posts: Sequence[Post], pause: float) -> None:
        for number, post in enumerate(posts):
            # On schedule: what a trouble has held up is caught up with.
            await asyncio.sleep(max(self.start + number * pause - time.monotonic(), 0))
            self.seen.posts.append(post)
            bars = post.bars.assign(date=post.bars["date"].dt.strftime("%Y-%m-%d")).to_dict("records")
            status, tries = 0, 0
            while status != 200:  # whatever is not acknowledged is sent again
                answered = await self._post(bars, post.withdrawn)
                status, tries = answered.status, tries + 1
                if status != 200:
                    if tries > 600:  # three minutes and more
                        raise RuntimeError(f"bars are not taken: {status} {answered.document}")
                    await asyncio.sleep(0.3)
            outcomes = [row["outcome"] for row in answered.document["outcomes"]]
            self.seen.counts.update(f"bars {outcome}" for outcome in outcomes)
            for bar, row, may_be in zip(bars, answered.document["outcomes"], post.may_be, strict=True):
                # Sent again after a kill, a bar is repeated that was taken without an answer.
                again = {"repeated", "refused"} if post.withdrawn else {"repeated"}
                if row["outcome"] not in may_be | (again if tries > 1 else set()):
                    said = f"{row['outcome']} {row['reason']}"
                    self.seen.wrong.append(f"{bar['symbol']} {bar['date']}: {said}, not {may_be}")
                self.seen.counts["bars provisional"] += row["provisional"]
            if post.withdrawn and outcomes == ["refused"] and tries > 1:
                outcomes = ["withdrawn"]
            post.outcomes = outcomes
            self.seen.acknowledged_at.append(time.monotonic())

    async def _post(self, bars: list[dict], withdrawn: bool) -> Answered:
        if withdrawn:
            (bar,) = bars
            return await self.ask("DELETE", f"/v1/bars/{bar['symbol']}/{bar['date']}", "bars")
        return await self.ask("POST", "/v1/bars", "bars", {"bars": bars})

    async def trouble(self, seconds: float, troubles: Sequence[Trouble]) -> None:
        """Move the champion and have a trouble in turns, evenly over the time."""
        turns = 2 * max(len(troubles), int(seconds // 90))
        for turn in range(turns):
            await asyncio.sleep(
                max(self.start + seconds * (turn + 1) / (turns + 1) - time.monotonic(), 0)
            )
            if turn % 2 == 0:
                version = self.versions[(turn // 2) % len(self.versions)]
                await asyncio.to_thread(self.move_champion, version)
                self.seen.champions.append((time.monotonic(), version))
                self.seen.counts["swaps"] += 1
            elif troubles:
                await self._befall(troubles[turn // 2 % len(troubles)])

    async def _befall(self, trouble: Trouble) -> None:
        place = len(self.seen.troubles)
        self.seen.troubles.append(Span(trouble, time.monotonic(), np.inf))
        self.seen.counts[trouble.name] += 1
        await self._do(trouble.name, trouble.begin)
        if trouble.shows and not await self._within(SHOWS_SECONDS, self._says_unready):
            self.seen.wrong.append(f"{trouble.name}: ready all the same after {SHOWS_SECONDS} s")
        await self._do(trouble.name, trouble.end)
        over = time.monotonic()
        if not await self._within(RECOVERS_SECONDS, self._is_whole):
            self.seen.wrong.append(f"{trouble.name}: not whole again after {RECOVERS_SECONDS} s")
        now = time.monotonic()
        self.seen.troubles[place] = self.seen.troubles[place]._replace(end=now)
        longest = self.seen.whole_again.get(trouble.name, 0.0)
        self.seen.whole_again[trouble.name] = max(longest, now - over)

    async def _do(self, name: str, step: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(step)
        except Exception as error:  # the load goes on, and what comes of it is seen
            self.seen.wrong.append(f"{name}: {error}")

    async def _within(self, seconds: float, holds: Callable[[], Awaitable[bool]]) -> bool:
        """Whether something holds within some seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if await holds():
                return True
            await asyncio.sleep(0.2)
        return False

    async def _says_unready(self) -> bool:
        return await self._status("GET", "/readyz") == 503

    async def _is_whole(self) -> bool:
        """Whether all processes are there, the service is ready, takes bars, and its log answers.

        `/readyz` alone is not asked: a writer that is being started again is no fault of 15 seconds.
        """
        if self.service.roles().keys() != self._roles:
            return False
        probes = [("GET", "/readyz"), ("DELETE", "/v1/bars/NOSUCH/2014-01-02")]
        probes += [("GET", f"/v1/forecasts/{self.symbols[0]}/history")]
        return all([await self._status(*probe) == 200 for probe in probes])

    async def _status(self, method: str, path: str) -> int:
        try:
            async with self.session.request(method, self.service.url + path) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def progress(self) -> None:
        told = 0
        while True:
            await asyncio.sleep(60)
            minutes = (time.monotonic() - self.start) / 60
            print(
                f"{minutes:.1f} min: {len(self.seen.answers.answers)} answers, {self.seen.acknowledged} "
                f"posts, {len(self.seen.troubles)} troubles, {len(self.seen.wrong)} wrong so far",
                *self.seen.wrong[told : told + 10],
                sep="\n  ",
                flush=True,
            )
            told = len(self.seen.wrong)


@lru_cache(maxsize=1024)
def _session_after(as_of: str, horizon: int) -> str:
    """The date of the session so many after one, by its close."""
    return f"{next_session(session_day(pd.Timestamp(as_of)), horizon):%Y-%m-%d}"


async def _events(lines: aiohttp.StreamReader) -> AsyncIterator[dict[str, str]]:
    """Server-sent events; comments are left out."""
    event: dict[str, str] = {}
    async for raw in lines:
        line = raw.decode().rstrip("\r\n")
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(":")
            event[name] = value.removeprefix(" ")
        elif event:
            yield event
            event = {}
