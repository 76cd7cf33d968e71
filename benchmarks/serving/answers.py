"""What a service under load has answered, and whether the oracle's market explains it.

An answer is right if one state of the market explains all of it: a state between the last post that was
acknowledged before its request and the last one that was sent before it came.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from benchmarks.serving.oracle import Market, Oracle
from pitwise.features.indicators import NAMES

TOLERANCE = 1e-5
"""Of log_return and p_up: another batch size adds the same numbers in another order."""


class Forecast(NamedTuple):
    """A symbol's forecast as it was answered."""

    symbol: str
    version: str
    as_of: str
    last_close: float
    log_return: float
    p_up: float
    age: int
    provisional: bool
    suspect: str | None

    def gap(self, market: Market) -> float:
        """How far log_return or p_up is off; infinite where it is of another session, close or age."""
        truth = market.truths.get(self.symbol)
        window = truth.window if truth else None
        if window is None or self.version not in window.forecasts:
            return np.inf
        same = (
            self.as_of == window.as_of
            and self.last_close == float(f"{window.close:.7g}")
            and self.age == market.age(self.symbol)
            and self.provisional == (window.as_of > market.sealed)
            and self.suspect == market.suspects.get(self.symbol)
        )
        return _off(self, window.forecasts[self.version]) if same else np.inf


class Stale(NamedTuple):
    """A symbol without a forecast, because its features are too old."""

    symbol: str
    ttl: int

    def gap(self, market: Market) -> float:
        return 0.0 if market.age(self.symbol) > self.ttl else np.inf


class Features(NamedTuple):
    """A symbol's features as they were answered."""

    symbol: str
    as_of: str
    age: int
    provisional: bool
    values: tuple[float | None, ...]
    """In the order of NAMES."""

    def gap(self, market: Market) -> float:
        """0, or infinite."""
        truth = market.truths.get(self.symbol)
        if truth is None:
            return np.inf
        values = np.array([np.nan if v is None else v for v in self.values], float)
        close = np.isclose(values, truth.features, rtol=1e-9, atol=1e-12, equal_nan=True)
        same = (
            self.as_of == truth.as_of
            and self.age == market.newest - truth.session
            and self.provisional == (truth.as_of > market.sealed)
        )
        return 0.0 if same and close.all() else np.inf


class Past(NamedTuple):
    """A forecast of a symbol's history: right if it was right at any time before."""

    symbol: str
    version: str
    as_of: str
    log_return: float
    p_up: float

    def gap(self, market: Market) -> float:
        truth = market.truths.get(self.symbol)
        window = truth.window if truth else None
        if window is None or self.as_of != window.as_of or self.version not in window.forecasts:
            return np.inf
        return _off(self, window.forecasts[self.version])


def _off(forecast: Forecast | Past, wanted: tuple[float, float]) -> float:
    """How far log_return or p_up is from what it should be; infinite for what is no number."""
    log_return, p_up = wanted
    off = max(abs(forecast.log_return - log_return), abs(forecast.p_up - p_up))
    return off if np.isfinite([forecast.log_return, forecast.p_up]).all() else np.inf


Item = Forecast | Stale | Features | Past


@dataclass(slots=True)
class Answer:
    """What one answer said."""

    what: str
    oldest: int
    """How many posts were acknowledged before the request."""
    newest: int
    """How many were sent before the answer came."""
    items: np.ndarray
    """(n,) numbers of its items in `Answers.items`."""
    top_by: str = ""
    """`p_up` or `log_return`, where the items are the strongest of the market by it, in order."""
    gap: float = np.inf
    """To the nearest state so far."""
    worst: int = -1
    """The item that was furthest off in that state."""


@dataclass
class Answers:
    """All answers; what many of them say is kept once."""

    items: list[Item] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    _numbers: dict[Item, int] = field(default_factory=dict)

    def add(
        self, what: str, oldest: int, newest: int, items: Sequence[Item], top_by: str = ""
    ) -> Answer:
        """Keep an answer that one state has to explain."""
        numbers = []
        for item in items:
            number = self._numbers.setdefault(item, len(self.items))
            if number == len(self.items):
                self.items.append(item)
            numbers.append(number)
        answer = Answer(what, oldest, newest, np.array(numbers, "int32"), top_by)
        self.answers.append(answer)
        return answer

    def count(self, kind: type) -> int:
        """How many different items of a kind there are."""
        return sum(isinstance(item, kind) for item in self.items)


def unexplained(
    answers: Answers, oracle: Oracle, n_posts: int, ttl: int, progress: bool = False
) -> Iterator[str]:
    """The answers that no state explains, in words.

    Args:
        ttl: sessions that a window may lack to be among the market's strongest forecasts.
    """
    waiting = sorted(answers.answers, key=lambda answer: answer.oldest)
    begun = 0
    active: list[Answer] = []
    for number in range(n_posts + 1):
        while begun < len(waiting) and waiting[begun].oldest <= number:
            active.append(waiting[begun])
            begun += 1
        if active:
            _compare(active, answers.items, oracle.market(number), ttl)
        left = [answer for answer in active if answer.gap > TOLERANCE]
        yield from (_in_words(answer, answers.items) for answer in left if answer.newest <= number)
        active = [answer for answer in left if answer.newest > number]
        if progress and number % 20 == 0:
            print(f"compared with {number} of {n_posts} states", flush=True)
    yield from (_in_words(a, answers.items) for a in active)


def _compare(active: Sequence[Answer], items: Sequence[Item], market: Market, ttl: int) -> None:
    """Take the gap of each answer to a state where it is nearer than to those before."""
    asked = np.unique(np.concatenate([answer.items for answer in active]))
    gaps = np.zeros(len(items))
    gaps[asked] = [items[number].gap(market) for number in asked]
    for answer in active:
        if not len(answer.items):
            answer.gap = 0.0
            continue
        of = gaps[answer.items]
        gap = float(of.max())
        if answer.top_by:
            top = [items[i] for i in answer.items]
            gap = gap if _are_the_top(top, answer.top_by, market, ttl) else np.inf
        if gap <= answer.gap:
            answer.gap, answer.worst = gap, int(answer.items[of.argmax()])


def _are_the_top(top: Sequence[Item], by: str, market: Market, ttl: int) -> bool:
    """Whether forecasts are in order, and no fresh symbol that is left out has a stronger one."""
    values = [getattr(item, by) for item in top]
    version, place = top[0].version, ("log_return", "p_up").index(by)  # type: ignore[union-attr]
    named = {item.symbol for item in top}
    others = (
        truth.window.forecasts[version][place]
        for symbol, truth in market.truths.items()
        if truth.window and symbol not in named and market.age(symbol) <= ttl
    )
    in_order = all(a >= b - TOLERANCE for a, b in pairwise(values))
    return in_order and max(others, default=-np.inf) <= values[-1] + TOLERANCE


def _in_words(answer: Answer, items: Sequence[Item]) -> str:
    worst = items[answer.worst] if answer.worst >= 0 else "nothing of it"
    if isinstance(worst, Features):
        worst = worst[:4]
    return (
        f"{answer.what} of {len(answer.items)} in states {answer.oldest} to {answer.newest}: {worst}, "
        f"off by {answer.gap:.1g}"
    )


def features_of(document: dict) -> Features:
    """The answer of `/v1/features/{symbol}`."""
    return Features(
        document["symbol"],
        document["as_of"],
        document["feature_age_sessions"],
        document["provisional"],
        tuple(document["features"][name] for name in NAMES),
    )


def forecast_of(row: dict, version: str) -> Forecast:
    """A forecast of an answer."""
    return Forecast(
        row["symbol"],
        version,
        row["as_of"],
        row["last_close"],
        row["log_return"],
        row["p_up"],
        row["feature_age_sessions"],
        row["provisional"],
        row["suspect"],
    )
