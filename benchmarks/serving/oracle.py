"""Which answers the batch path explains: the oracle of the soak.

The bars of every state there was are cleaned and computed anew as one batch.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sqlalchemy import create_engine, text

from pitwise.bars.landing import Landing
from pitwise.bars.versions import bar_versions
from pitwise.cleaning.as_of import clean_versions
from pitwise.cleaning.clean import CleanParams
from pitwise.features.daily import daily_features
from pitwise.features.indicators import NAMES
from pitwise.features.windows import last_windows
from pitwise.registry.contract import run_onnx
from pitwise.registry.model import RegisteredModel

TOLERANCE = 1e-5
"""Of log_return and p_up: another batch size adds the same numbers in another order."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A forecast that was answered; equal ones are checked once."""

    oldest: int
    """The state of the bars acknowledged before the request: how many posts."""
    newest: int
    """The state of the bars sent before the answer."""
    symbol: str
    version: str
    as_of: str
    last_close: float
    log_return: float
    p_up: float


class Features(NamedTuple):
    """Features that were read."""

    oldest: int
    newest: int
    symbol: str
    as_of: str
    values: tuple[float | None, ...]
    """In the order of NAMES."""


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
        landings: what was delivered before the first post.
        coverage: of a sealed session, see `pitwise.bars.versions.bar_versions`.
        models: by version.
    """

    def __init__(
        self,
        landings: Sequence[Landing],
        coverage: float,
        params: CleanParams,
        models: dict[str, RegisteredModel],
    ):
        self.landings, self.coverage = list(landings), coverage
        self.params, self.models = params, models
        self.now = max(landing.received_at for landing in landings)
        self._marks: dict[str, int] = {}
        self._state = State({}, {version: {} for version in models})

    def take(self, bars: pd.DataFrame) -> None:
        """One post: all its rows of a symbol and session are one statement."""
        self.now += pd.Timedelta(seconds=1)
        self.landings.append(Landing(bars.reset_index(drop=True), "live", self.now))

    def state(self) -> State:
        versions = bar_versions(self.landings, self.coverage)
        bars = clean_versions(versions, self.params)[0].bars
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
        last = daily.drop_duplicates("symbol", keep="last")
        rows = zip(last["event_timestamp"], last[NAMES].to_numpy("float64"), strict=True)
        forecasts = {version: _forecasts(model, daily) for version, model in self.models.items()}
        return State(dict(zip(last["symbol"], rows, strict=True)), forecasts)


def _forecasts(model: RegisteredModel, daily: pd.DataFrame) -> dict[str, Any]:
    """By symbol, what the model makes of its last window, as `State` has it."""
    windows = last_windows(daily, NAMES, model.window)
    if not windows:
        return {}
    values = np.stack([window.values for window in windows.values()])
    columns = [NAMES.index(name) for name in model.features]
    outputs = run_onnx(model.session, np.ascontiguousarray(values[:, :, columns]))
    closes = values[:, -1, NAMES.index("close")]
    instants = [window.as_of for window in windows.values()]
    answers = zip(instants, closes, outputs["log_return"], outputs["p_up"], strict=True)
    return dict(zip(windows, answers, strict=True))


def _gap(answer: Answer, forecasts: dict[str, dict[str, Any]]) -> float:
    """How far its log_return or p_up is off; infinite where it is of another session or close."""
    if answer.symbol not in forecasts[answer.version]:
        return np.inf
    as_of, close, log_return, p_up = forecasts[answer.version][answer.symbol]
    if pd.Timestamp(answer.as_of) != as_of or answer.last_close != float(f"{close:.7g}"):
        return np.inf
    return float(max(abs(answer.log_return - log_return), abs(answer.p_up - p_up)))


def unexplained(
    answers: Collection[Answer],
    features: Collection[Features],
    posted: Sequence[pd.DataFrame],
    oracle: Oracle,
) -> tuple[dict[Answer, float], list[Features]]:
    """The forecasts that no state explains, each with its gap to the nearest one, and such features.

    Args:
        posted: the bars of each post that were not refused.
    """
    gaps = dict.fromkeys(answers, np.inf)
    left = set(features)
    for number in range(len(posted) + 1):
        if number:
            oracle.take(posted[number - 1])
        open_answers = [
            a for a, gap in gaps.items() if gap > TOLERANCE and a.oldest <= number <= a.newest
        ]
        open_features = [f for f in left if f.oldest <= number <= f.newest]
        if open_answers or open_features:
            state = oracle.state()
            gaps |= {a: min(gaps[a], _gap(a, state.forecasts)) for a in open_answers}
            left -= {f for f in open_features if _same(f, state.features)}
    return {a: gap for a, gap in gaps.items() if gap > TOLERANCE}, list(left)


def _same(read: Features, features: dict[str, tuple[pd.Timestamp, np.ndarray]]) -> bool:
    if read.symbol not in features:
        return False
    as_of, wanted = features[read.symbol]
    values = np.array([np.nan if v is None else v for v in read.values], float)
    same = np.isclose(values, wanted, rtol=1e-9, atol=1e-12, equal_nan=True).all()
    return bool(same and pd.Timestamp(read.as_of) == as_of)


def unlogged(answers: Collection[Answer], url: str) -> list[Answer]:
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

    return [answer for answer in answers if not has(answer)]
