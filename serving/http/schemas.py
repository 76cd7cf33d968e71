"""Requests and answers of the API, for validation and for its OpenAPI document."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from serving.http.problems import FieldError


def _day(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError as error:
        raise ValueError("there is no such day") from error
    return value


Symbol = Annotated[str, Field(min_length=1, max_length=64, examples=["AAPL"])]
Day = Annotated[
    str,
    # From 1970, where the exchange's calendar starts here, to 2199.
    Field(
        pattern="^(19[7-9]|2[01][0-9])[0-9]-[01][0-9]-[0-3][0-9]$", json_schema_extra={"format": "date"}
    ),
    AfterValidator(_day),
]
Price = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]
Volume = Annotated[float, Field(ge=0, le=1e13, allow_inf_nan=False, strict=True)]


SYMBOLS = TypeAdapter(list[Symbol])


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictRequest(_Request):
    symbols: list[Symbol] = Field(
        description="Each once.",
        examples=[["AAPL", "MSFT"]],
        json_schema_extra={"minItems": 1, "uniqueItems": True},
    )


class Bar(_Request):
    symbol: Symbol
    date: Day = Field(description="The session, ISO 8601.", examples=["2013-03-04"])
    open: Price = Field(description="US dollars, as the prices below.", examples=[427.80])
    high: Price = Field(examples=[428.20])
    low: Price = Field(examples=[419.00])
    close: Price = Field(examples=[420.05])
    volume: Volume = Field(description="Shares.", examples=[20812700])
    adj_close: Price | None = Field(
        None, description="Close adjusted for splits and dividends, where the vendor has it."
    )


BARS = TypeAdapter(list[Bar])


class BarsRequest(_Request):
    bars: list[Bar] = Field(
        description="In any order. Of bars of one symbol and session that differ, none is taken.",
        json_schema_extra={"minItems": 1},
    )


class SymbolError(BaseModel):
    """Why one symbol of a request has no forecast."""

    type: str = Field(examples=["/problems/unknown-symbol"])
    title: str
    detail: str
    symbol: str
    field: str = Field(examples=["symbols[3]"])


_FOR_SESSION = Field(description="The session whose close is forecast.", examples=["2013-11-01"])
_HORIZON = Field(description="Sessions from `as_of` to `for_session`.", examples=[1])
_PRICE = Field(description="Forecast of the close, US dollars.")
_SCORE = Field(
    description="Ranks the symbols of a session, a larger one higher; its unit is the model's own."
)
_LOG_RETURN = Field(description="Forecast of ln(close / last close).", examples=[0.0012])
_P_UP = Field(description="Probability of a higher close.", examples=[0.52])
_SCALE = Field(
    description="Of the logistic distribution of the log return, of which `log_return` is the location: "
    "the quantile q is log_return + scale * ln(q / (1 - q)). Null: the model does not give one.",
    examples=[0.015],
)


class Forecast(BaseModel):
    symbol: str
    as_of: str = Field(
        description="Close of the last session seen, UTC.", examples=["2013-10-31T20:00:00Z"]
    )
    for_session: str = _FOR_SESSION
    horizon: int = _HORIZON
    last_close: float = Field(description="US dollars.")
    price: float = _PRICE
    score: float = _SCORE
    log_return: float = _LOG_RETURN
    p_up: float = _P_UP
    scale: float | None = _SCALE
    feature_age_sessions: int = Field(
        description="Sessions that the window lacks: those since its last one, and those missing in it."
    )
    provisional: bool = Field(
        description="The last session is not sealed yet: the checks of the whole market are to come."
    )
    unusual: bool | None = Field(
        description="The last session's bar stands out by its return, range and volume together, "
        "against the symbol's own history. Null: not known."
    )
    suspect: str | None = Field(
        description="What one of the symbol's newest bars may be (`bad_print`, `split`, ...): later "
        "bars confirm or withdraw it. Null: nothing is suspected.",
        examples=["bad_print"],
    )


class PredictAnswer(BaseModel):
    model_version: str
    forecasts: list[Forecast]
    errors: list[SymbolError]


class ForecastsAnswer(BaseModel):
    model_version: str
    by: str
    forecasts: list[Forecast] = Field(description="The strongest first.")


class Signal(BaseModel):
    """What to do with one symbol; prices in US dollars, returns and costs as fractions."""

    symbol: str
    as_of: str = Field(
        description="Close of the last session seen, UTC.", examples=["2013-10-31T20:00:00Z"]
    )
    for_session: str = _FOR_SESSION
    horizon: int = _HORIZON
    signal: Literal["BUY", "HOLD", "SELL"]
    reason: str = Field(description="Why nothing is to be done; empty for BUY and SELL.")
    confidence: float | None = Field(
        description="Calibrated probability of the direction that the forecast says; for HOLD it may be "
        "below a half. Null: it is not calibrated for the champion."
    )
    p_up: float = _P_UP
    calibrated_p_up: float | None
    score: float = _SCORE
    last_close: float
    target: float = Field(description="Forecast of the close.")
    target_low: float | None = Field(description="The interval's end; null: no range is known.")
    target_high: float | None
    stop_loss: float | None = Field(description="Null for HOLD.")
    take_profit: float | None = Field(description="Null for HOLD.")
    expected_return: float
    expected_cost: float | None = Field(description="Of a round trip of one position.")
    expected_net: float | None = Field(
        description="What a position in the forecast's direction is expected to earn, its cost out."
    )
    feature_age_sessions: int
    provisional: bool
    unusual: bool | None
    suspect: str | None


class SignalsRecord(BaseModel):
    """What signals by the same rules came to on past forecasts; base: all symbols of those sessions."""

    count: int
    sessions: int
    hit_rate: float | None
    ci95: list[float] | None
    base_rate: float | None
    net_bp: float | None = Field(description="Mean return with costs out, basis points.")
    net_ci95: list[float] | None
    base_bp: float | None = Field(description="Before costs.")


class SignalsAnswer(BaseModel):
    model_version: str
    record: dict[str, SignalsRecord] | None = Field(
        description="By BUY and SELL. Null: none was measured."
    )
    signals: list[Signal]
    errors: list[SymbolError]


Amount = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False, strict=True)]


class RiskRequest(_Request):
    """One of `weights` and `holdings`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["weights"]}, {"required": ["holdings"]}]}
    )
    weights: dict[Symbol, Amount] = Field(
        {},
        description="By symbol; below 0 is short; they sum to 1, or to 0 (dollar-neutral).",
        examples=[{"AAPL": 1.0}],
        json_schema_extra={"minProperties": 1},
    )
    holdings: dict[Symbol, Amount] = Field(
        {},
        description="Shares by symbol, worth their last close; below 0 is short.",
        json_schema_extra={"minProperties": 1},
    )
    value: float = Field(
        1.0, gt=0, le=1e15, allow_inf_nan=False, description="Of weights, in US dollars."
    )


class RiskAnswer(BaseModel):
    """The page "Risk" of the documentation has each key."""

    as_of: str
    first_session: str
    sessions: int
    value: float
    holdings: int
    window: int
    var: list[dict[str, Any]]
    drawdown: dict[str, Any]
    volatility: dict[str, Any]
    beta: float
    diversification_ratio: float | None
    correlation: dict[str, Any]
    contributions: list[dict[str, Any]]
    stress: dict[str, Any]
    notes: list[str]


class PastForecast(BaseModel):
    """A forecast as it was served."""

    symbol: str
    as_of: str = Field(
        description="Close of the last session seen, UTC.", examples=["2013-10-31T20:00:00Z"]
    )
    for_session: str = _FOR_SESSION
    horizon: int = _HORIZON
    model_version: str
    window_hash: str = Field(description="Of the model's input.")
    price: float = _PRICE
    score: float = _SCORE
    log_return: float = _LOG_RETURN
    p_up: float = _P_UP
    scale: float | None = _SCALE
    served_at: str = Field(description="When it was first sent, UTC.")
    matured: bool = Field(description="The outcome of the session is known.")
    realised: float | None = Field(
        description="ln(close / last close) as it came to be, on prices adjusted for splits and "
        "dividends. Null until it has matured."
    )


class HistoryAnswer(BaseModel):
    symbol: str
    forecasts: list[PastForecast] = Field(description="By session, the oldest first.")
    more: bool = Field(description="There are later ones: ask again from the last `for_session` on.")


class PastForecastsAnswer(BaseModel):
    day: str = Field(description="The day asked for: forecasts made at the last close up to its end.")
    by: str
    forecasts: list[PastForecast] = Field(description="The strongest first.")


class FeaturesAnswer(BaseModel):
    symbol: str
    as_of: str = Field(description="Close of the session, UTC.")
    feature_age_sessions: int | None = Field(
        description="Sessions since the last one seen. Null with `as_of`."
    )
    provisional: bool
    features: dict[str, float | None]


class BarOutcome(BaseModel):
    symbol: str
    date: str
    outcome: str = Field(
        description="`new`, `late` (its session is sealed), `corrected`, `withdrawn`: taken. "
        "`repeated`: held. `quarantined`: kept aside, it failed a check of the market's. "
        "`refused`: not taken. `failed`: kept aside, no features could be made of it; bars after it are "
        "not held up."
    )
    reason: str = Field(description="Of the last three.")
    provisional: bool = Field(description="Taken, of a session that is not sealed yet.")


class BarsAnswer(BaseModel):
    outcomes: list[BarOutcome] = Field(description="In the order of the bars.")
    counts: dict[str, int]


class ModelAnswer(BaseModel):
    version: str
    kind: str
    features: list[str]
    window: int = Field(description="Sessions.")
    since: str = Field(description="When it became this service's champion, UTC.")
    swaps: int = Field(description="Changes since the service started.")
    refused: dict[str, str] = Field(description="Version to why its self-check failed.")
    metadata: dict[str, Any] = Field(description="What the registry has about it.")


class Health(BaseModel):
    status: str
    degraded: list[FieldError] | None = Field(
        None, description="Parts that do not do well, and that answers do not need."
    )
