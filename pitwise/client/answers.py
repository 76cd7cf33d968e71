"""What the service answers, as typed values. Instants are aware and in UTC, prices are US dollars."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Self

from pitwise.client.errors import AnswerError

if TYPE_CHECKING:
    import pandas as pd


class Answer:
    """A part of an answer. What a newer service says besides is left out."""

    __slots__ = ()

    @classmethod
    def read(cls, document: Mapping[str, Any], **given: Any) -> Self:
        """The value that a JSON object is.

        Args:
            given: fields that are not the object's own, or are read already.

        Raises:
            AnswerError: a field is missing or is something else.
        """
        try:
            values = {
                field.name: READERS.get(field.type, _as_it_is)(document[field.name])
                for field in fields(cls)  # type: ignore[arg-type]  # each subclass is a dataclass
                if field.name not in given
            }
        except (KeyError, TypeError, ValueError) as error:
            raise AnswerError(
                f"the service's answer is no {cls.__name__} as this client knows it ({error!r}). Bring "
                "the older of the two up to the version of the other."
            ) from error
        return cls(**values, **given)

    @classmethod
    def read_all(cls, documents: Iterable[Mapping[str, Any]]) -> list[Self]:
        """The values that a JSON array of objects is; raises as `read`."""
        return [cls.read(document) for document in documents]


def _as_it_is(value: Any) -> Any:
    return value


READERS: dict[Any, Any] = {datetime: datetime.fromisoformat, date: date.fromisoformat}
"""Of a field's type, where JSON does not have it; lists of answers come below."""


@dataclass(frozen=True, slots=True)
class Forecast(Answer):
    """The forecast of one symbol."""

    symbol: str
    as_of: datetime
    """Close of the last session seen."""
    for_session: date
    """The session forecast."""
    horizon: int
    """Sessions from the last one seen to that one."""
    last_close: float
    price: float
    """Forecast of the close of `for_session`."""
    score: float
    """Ranks the symbols of a session, a larger one higher; its unit is the model's own."""
    log_return: float
    """ln(price / last_close)."""
    p_up: float
    """Probability of a higher close, 0 to 1."""
    scale: float | None
    """Of the logistic distribution of the log return, of which `log_return` is the location: its
    quantile q is log_return + scale * ln(q / (1 - q)). None: the model does not give one."""
    feature_age_sessions: int
    """Sessions of the exchange since the last one seen, and those missing among the ones seen."""
    provisional: bool
    """The last session is not sealed: the checks of the whole market are to come."""
    unusual: bool | None
    """The last session's bar stands out by its return, range and volume together; None: not known."""
    suspect: str | None
    """What one of the newest bars may be (`bad_print`, `split`, ...), until later bars settle it."""


@dataclass(frozen=True, slots=True)
class SymbolProblem(Answer):
    """Why one symbol of a request has no forecast."""

    type: str
    """Such as `/problems/unknown-symbol`."""
    title: str
    detail: str
    symbol: str
    field: str
    """Its place in the request, such as `symbols[3]`."""


@dataclass(frozen=True, slots=True)
class Forecasts(Answer):
    """Forecasts of one version of the model."""

    model_version: str
    forecasts: list[Forecast]
    errors: list[SymbolProblem]
    """The symbols without one."""
    request_id: str
    """Under which the service's log has this answer."""

    def frame(self) -> "pd.DataFrame":
        """A row a forecast, in their order; the columns are the fields of `Forecast`."""
        return _frame(Forecast, self.forecasts)


@dataclass(frozen=True, slots=True)
class Update(Answer):
    """One event of a stream: the forecasts that have changed."""

    id: int
    """Of the market's state. A stream that was left goes on after it with `last_event_id`."""
    model_version: str
    forecasts: list[Forecast]
    errors: list[SymbolProblem]
    """Those of the changed symbols that have no forecast now."""

    def frame(self) -> "pd.DataFrame":
        """A row a forecast; the columns are the fields of `Forecast`."""
        return _frame(Forecast, self.forecasts)


@dataclass(frozen=True, slots=True)
class Signal(Answer):
    """What to do with one symbol. Returns and costs are fractions; None is what is not known."""

    symbol: str
    as_of: datetime
    """Close of the last session seen."""
    for_session: date
    horizon: int
    signal: str
    """BUY, HOLD or SELL."""
    reason: str
    """Why nothing is to be done; "" for BUY and SELL."""
    confidence: float | None
    """Calibrated probability of the direction that the forecast says."""
    p_up: float
    calibrated_p_up: float | None
    score: float
    last_close: float
    target: float
    """Forecast of the close of `for_session`, and below the ends of its interval."""
    target_low: float | None
    target_high: float | None
    stop_loss: float | None
    """None for HOLD, as is the next."""
    take_profit: float | None
    expected_return: float
    expected_cost: float | None
    """Of a round trip of one position."""
    expected_net: float | None
    """What a position in the forecast's direction is expected to earn, its cost out."""
    feature_age_sessions: int
    provisional: bool
    unusual: bool | None
    suspect: str | None


@dataclass(frozen=True, slots=True)
class SignalsRecord(Answer):
    """What signals by the same rules came to before; `base` is of all symbols in those sessions."""

    count: int
    sessions: int
    hit_rate: float | None
    ci95: list[float] | None
    """Of `hit_rate`."""
    base_rate: float | None
    net_bp: float | None
    """Mean return of a position, costs out, in basis points."""
    net_ci95: list[float] | None
    base_bp: float | None
    """Before costs."""


@dataclass(frozen=True, slots=True)
class Signals(Answer):
    """Signals by one version of the model."""

    model_version: str
    record: dict[str, SignalsRecord] | None
    """By BUY and SELL; None: none was measured."""
    signals: list[Signal]
    errors: list[SymbolProblem]
    """The symbols without a forecast."""
    request_id: str

    def frame(self) -> "pd.DataFrame":
        """A row a signal, in their order; the columns are the fields of `Signal`."""
        return _frame(Signal, self.signals)


@dataclass(frozen=True, slots=True)
class ValueAtRisk(Answer):
    """What is lost beyond in one session, or ten, of 20 (level 0.95) or of 100 (0.99).

    Losses are above 0: fractions of the value, and in US dollars where the name says `value`.
    """

    method: str
    """historical | normal | cornish_fisher | filtered"""
    level: float
    horizon: int
    """Sessions: 1 or 10."""
    by: str
    """estimate | scaling | simulation"""
    var: float
    es: float
    """Expected shortfall: the mean loss beyond `var`."""
    var_value: float
    es_value: float
    fallback: str | None
    """What stood in for a method that does not hold here."""
    backtest: dict[str, Any] | None
    """What came of the same method's figures before: exceptions, tests, traffic_light."""
    untested: str | None
    """Why there is no back-test."""


@dataclass(frozen=True, slots=True)
class Risk(Answer):
    """What a portfolio can lose; the page "Risk" of the documentation has the keys of its parts."""

    as_of: date
    """The last session of the history that it is told from."""
    first_session: date
    sessions: int
    value: float
    holdings: int
    window: int
    """Sessions behind a value at risk."""
    var: list[ValueAtRisk]
    drawdown: dict[str, Any]
    volatility: dict[str, Any]
    beta: float
    diversification_ratio: float | None
    correlation: dict[str, Any]
    contributions: list[dict[str, Any]]
    """By holding, what adds most first."""
    stress: dict[str, Any]
    notes: list[str]

    def frame(self) -> "pd.DataFrame":
        """A row a value at risk; the columns are the fields of `ValueAtRisk`."""
        return _frame(ValueAtRisk, self.var)


@dataclass(frozen=True, slots=True)
class PastForecast(Answer):
    """A forecast as it was served, and what came of it."""

    symbol: str
    as_of: datetime
    for_session: date
    horizon: int
    model_version: str
    window_hash: str
    """Of the model's input."""
    price: float
    score: float
    log_return: float
    p_up: float
    scale: float | None
    served_at: datetime
    """When it was first sent."""
    matured: bool
    """The outcome is known."""
    realised: float | None
    """ln(close of for_session / close of as_of) on adjusted prices; None until it has matured."""


@dataclass(frozen=True, slots=True)
class PastForecasts(Answer):
    """Forecasts as they were served."""

    forecasts: list[PastForecast]

    def frame(self) -> "pd.DataFrame":
        """A row a forecast, in their order; the columns are the fields of `PastForecast`."""
        return _frame(PastForecast, self.forecasts)


@dataclass(frozen=True, slots=True)
class HistoryPage(Answer):
    """One answer of a symbol's history."""

    forecasts: list[PastForecast]
    more: bool
    """There are later ones."""


@dataclass(frozen=True, slots=True)
class Features(Answer):
    """The bar and the indicators of one symbol's newest session, or the newest known at a day."""

    symbol: str
    as_of: datetime
    """Close of the session."""
    feature_age_sessions: int | None
    """Sessions of the exchange since; None where an earlier day was asked for."""
    provisional: bool
    features: dict[str, float | None]
    """By name, each in its own unit; None where it is not defined."""


@dataclass(frozen=True, slots=True)
class BarOutcome(Answer):
    """What became of one bar that was sent."""

    symbol: str
    date: date
    """The session."""
    outcome: str
    """new | late | corrected | withdrawn: taken; repeated: held already; quarantined | failed: kept
    aside; refused: not kept."""
    reason: str
    """Why it was not taken; "" otherwise."""
    provisional: bool
    """Taken, of a session that is not sealed."""


@dataclass(frozen=True, slots=True)
class BarsTaken(Answer):
    """What became of bars that were sent."""

    outcomes: list[BarOutcome]
    """In the order of the bars."""
    counts: dict[str, int]
    """Of each outcome."""

    def frame(self) -> "pd.DataFrame":
        """A row a bar, in their order; the columns are the fields of `BarOutcome`."""
        return _frame(BarOutcome, self.outcomes)


@dataclass(frozen=True, slots=True)
class Model(Answer):
    """The version of the model that answers: the champion."""

    version: str
    kind: str
    features: list[str]
    """Of a window's columns."""
    window: int
    """Sessions in a window."""
    since: datetime
    """When it became this service's champion."""
    swaps: int
    """Changes of the champion since the service started."""
    refused: dict[str, str]
    """Versions that failed their self-check, to why."""
    metadata: dict[str, Any]
    """What the registry has about it."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can answer."""

    is_ready: bool
    failing: dict[str, str]
    """The parts that do not do well, to why."""


def _records(documents: Mapping[str, Any] | None) -> dict[str, SignalsRecord] | None:
    if documents is None:
        return None
    return {name: SignalsRecord.read(document) for name, document in documents.items()}


READERS |= {
    list[Forecast]: Forecast.read_all,
    list[SymbolProblem]: SymbolProblem.read_all,
    list[PastForecast]: PastForecast.read_all,
    list[BarOutcome]: BarOutcome.read_all,
    list[Signal]: Signal.read_all,
    list[ValueAtRisk]: ValueAtRisk.read_all,
    dict[str, SignalsRecord] | None: _records,
}


def _frame(kind: type[Answer], rows: list[Any]) -> "pd.DataFrame":
    import pandas as pd

    columns = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return pd.DataFrame([asdict(row) for row in rows], columns=columns)
