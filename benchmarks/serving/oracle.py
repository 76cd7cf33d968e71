"""What the batch path makes of the bars known after each post of the soak: its oracle.

From the definition: what becomes of a symbol's bars is a function of the bars known of it and of the
cross-section of each sealed session (`pitwise.cleaning.clean`). So of a state only those symbols are
cleaned and computed anew whose bars or seals are others than before, each from all its bars, by the
functions of the pipeline. `Oracle.whole` does it for the whole market from the deliveries alone, and
shows that the short cut is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_close, session_days, session_number
from pitwise.bars.landing import Landing
from pitwise.bars.versions import KNOWN, BarVersions, bar_versions, known_actions
from pitwise.cleaning.as_of import clean_versions, judged_bars
from pitwise.cleaning.clean import Cleaned, CleanParams, cleaned_or_nothing
from pitwise.cleaning.cross_section import CrossSection, cross_section, tape
from pitwise.features.daily import daily_features
from pitwise.features.indicators import NAMES
from pitwise.features.windows import last_windows
from pitwise.registry.contract import run_onnx
from pitwise.registry.model import RegisteredModel
from serving.inference.marks import suspects_of

SECOND = pd.Timedelta(seconds=1)


@dataclass(frozen=True)
class Window:
    """A symbol's newest whole window, and what each version of the model makes of it."""

    as_of: str
    """Close of its last session, ISO 8601 in UTC with Z."""
    session: int
    """Its number in the exchange's calendar."""
    missing: int
    """Sessions of the exchange that it leaves out."""
    close: float
    """As float32."""
    forecasts: Mapping[str, tuple[float, float]]
    """Version to log_return and p_up."""


@dataclass(frozen=True)
class Truth:
    """What the batch path makes of the bars of a symbol."""

    as_of: str
    """Close of the newest clean bar, ISO 8601 in UTC with Z."""
    session: int
    features: np.ndarray
    """Of that session, in the order of NAMES."""
    window: Window | None


@dataclass(frozen=True)
class Market:
    """What the batch path makes of all bars known."""

    truths: Mapping[str, Truth]
    newest: int
    """Number of the newest session with a clean bar."""
    sealed: str
    """Close of the newest sealed session, ISO 8601 in UTC with Z."""
    suspects: Mapping[str, str]
    """Symbol to the kind of a provisional verdict on one of its newest bars."""

    def age(self, symbol: str) -> int:
        """Sessions that the symbol's window does not have: since its last one, or missing in it."""
        window = self.truths[symbol].window
        assert window
        return self.newest - window.session + window.missing


class Oracle:
    """The market after each post; to be asked in the order of the posts.

    Args:
        landings: what was delivered before the first post.
        posts: the rows of each post that count, as of `Landing.rows`.
        coverage: of a sealed session, see `pitwise.bars.versions.bar_versions`.
        models: by version.
    """

    def __init__(
        self,
        landings: Sequence[Landing],
        posts: Sequence[pd.DataFrame],
        coverage: float,
        params: CleanParams,
        models: Mapping[str, RegisteredModel],
    ):
        self._coverage, self._params, self._models = coverage, params, models
        (self._window,) = {model.window for model in models.values()}
        self._start = max(landing.received_at for landing in landings)
        live = (
            Landing(rows.reset_index(drop=True), "live", self._instant(number))
            for number, rows in enumerate(posts, 1)
        )
        self._landings = [*landings, *live]
        self._n_before = len(landings)
        self._versions = bar_versions(self._landings, coverage)
        bars = self._versions.bars
        self._code, names = pd.factorize(bars["symbol"])
        self._names = [str(name) for name in names]
        self._known = bars[KNOWN].dt.tz_convert(None).to_numpy("datetime64[us]")
        self._made_of = np.full((len(names), 2), -1)
        """(symbols, 2): of how many versions, and with how many seals, each truth was made."""
        self._marks: dict[str, int] = {}
        self._truths: dict[str, Truth] = {}
        self._suspects: dict[str, str] = {}
        self._market: CrossSection | None = None
        self._n_seals = -1
        self._state: tuple[int, Market] | None = None

    def market(self, number: int) -> Market:
        """The market after `number` posts."""
        if self._state is None or self._state[0] != number:
            self._state = number, self._market_after(number)
        return self._state[1]

    def whole(self, number: int) -> Market:
        """As `market`, all of it anew from the deliveries so far."""
        versions = bar_versions(self._landings[: self._n_before + number], self._coverage)
        cleaned, _ = clean_versions(versions, self._params)
        return _market(self._made(cleaned.bars), versions, _suspects(cleaned))

    def versions(self, number: int) -> BarVersions:
        """The versions of bars known after `number` posts."""
        bars, factors, seals, actions = self._versions
        at = self._instant(number)
        return BarVersions(
            bars[self._is_known(number)],
            factors[factors[KNOWN] <= at],
            seals[seals["sealed_at"] <= at],
            actions[actions[KNOWN] <= at],
        )

    def _instant(self, number: int) -> pd.Timestamp:
        return self._start + number * SECOND

    def _is_known(self, number: int) -> np.ndarray:
        return self._known <= self._instant(number).tz_convert(None).to_datetime64()

    def _market_after(self, number: int) -> Market:
        versions = self.versions(number)
        n_seals = len(versions.seals)
        if n_seals != self._n_seals:
            self._n_seals = n_seals
            self._market = cross_section(tape(versions)) if self._params.verdicts == "all" else None
        n_versions = np.bincount(self._code[self._is_known(number)], minlength=len(self._names))
        made_of = np.stack([n_versions, np.full(len(self._names), n_seals)], axis=1)
        others = (made_of != self._made_of).any(axis=1)
        self._made_of = made_of
        if others.any():
            self._judge(versions, {self._names[code] for code in np.flatnonzero(others)})
        return _market(self._truths, versions, self._suspects)

    def _judge(self, versions: BarVersions, symbols: set[str]) -> None:
        """Clean all bars of some symbols; compute those whose clean bars are others than before."""

        def of(table: pd.DataFrame) -> pd.DataFrame:
            return table[table["symbol"].isin(symbols)]

        theirs = versions._replace(bars=of(versions.bars), factors=of(versions.factors))
        cleaned = cleaned_or_nothing(
            judged_bars(theirs), self._params, market=self._market, actions=known_actions(versions)
        )
        bars = cleaned.bars
        marks = pd.util.hash_pandas_object(bars, index=False).groupby(bars["symbol"]).sum().to_dict()
        fresh = {symbol for symbol, mark in marks.items() if self._marks.get(symbol) != mark}
        kept = {
            name: truth for name, truth in self._truths.items() if name not in symbols - marks.keys()
        }
        self._truths = kept | self._made(bars[bars["symbol"].isin(fresh)])
        self._marks = {s: mark for s, mark in self._marks.items() if s not in symbols} | marks
        others = {s: kind for s, kind in self._suspects.items() if s not in symbols}
        self._suspects = others | _suspects(cleaned)

    def _made(self, bars: pd.DataFrame) -> dict[str, Truth]:
        """The truth of the symbols of clean bars."""
        if bars.empty:
            return {}
        daily = daily_features(bars)
        windows = last_windows(daily, NAMES, self._window)
        forecasts = {version: _forecasts(model, windows) for version, model in self._models.items()}
        instants = daily["event_timestamp"].dt.tz_convert(None).to_numpy("datetime64[us]")
        numbers = session_number(session_days(daily["event_timestamp"]))
        values = daily[NAMES].to_numpy("float64")
        truths = {}
        for symbol, rows in daily.groupby("symbol", sort=False).indices.items():
            window = None
            if symbol in windows:
                as_of = windows[symbol].as_of.tz_convert(None).to_datetime64()
                (last,) = rows[instants[rows] == as_of]
                missing = numbers[last] - numbers[last - self._window + 1] - (self._window - 1)
                window = Window(
                    _text(as_of),
                    int(numbers[last]),
                    int(missing),
                    float(windows[symbol].values[-1, NAMES.index("close")]),
                    {version: of_version[symbol] for version, of_version in forecasts.items()},
                )
            truths[symbol] = Truth(
                _text(instants[rows[-1]]),
                int(numbers[rows[-1]]),
                values[rows[-1]],
                window,
            )
        return truths


def _market(truths: Mapping[str, Truth], versions: BarVersions, suspects: Mapping[str, str]) -> Market:
    sealed = session_close(pd.Series([versions.seals["date"].max()])).iloc[0]
    newest = max(truth.session for truth in truths.values())
    return Market(dict(truths), newest, _text(sealed.tz_convert(None)), dict(suspects))


def _suspects(cleaned: Cleaned) -> dict[str, str]:
    found = suspects_of(cleaned.events, cleaned.bars)
    return dict(zip(found["symbol"], found["kind"], strict=True))


def _forecasts(model: RegisteredModel, windows: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """By symbol what the model makes of its last window: log_return and p_up."""
    if not windows:
        return {}
    values = np.stack([window.values for window in windows.values()])
    columns = [NAMES.index(name) for name in model.features]
    outputs = run_onnx(model.session, np.ascontiguousarray(values[:, :, columns]))
    pairs = zip(outputs["log_return"].tolist(), outputs["p_up"].tolist(), strict=True)
    return dict(zip(windows, pairs, strict=True))


def _text(instant: Any) -> str:
    """An instant in UTC, without its zone, as the API writes it."""
    return f"{pd.Timestamp(instant).isoformat()}Z"
