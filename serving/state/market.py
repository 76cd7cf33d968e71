"""What the readers know: the market at one instant, its model, and how the service's parts do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SymbolForecast:
    """One symbol's newest forecast, as the writer has computed it from the online store."""

    symbol: str
    as_of: str
    """Close of the last session seen, ISO 8601 in UTC with Z."""
    for_session: str
    """ISO 8601 date of the session forecast, the `horizon`-th after `as_of`'s."""
    horizon: int
    session: int
    """Number of `as_of`'s session in the exchange's calendar."""
    missing: int
    """Sessions that its window leaves out."""
    last_close: float
    """US dollars, as `price`."""
    score: float
    """What ranks the symbols of a session, in the model's own unit."""
    log_return: float
    price: float
    p_up: float
    scale: float | None
    """Of the logistic distribution of the log return; None where the model has none."""
    window_hash: str
    provisional: bool
    """Whether the last session is not sealed yet."""
    unusual: bool | None
    """Whether the last session's bar is flagged; None where it is not known."""
    suspect: str | None
    """Kind of a provisional verdict on one of the symbol's newest bars."""


@dataclass(frozen=True, slots=True)
class SymbolFeatures:
    """One symbol's newest bar and indicators in the online store."""

    symbol: str
    as_of: str
    """Close of their session, ISO 8601 in UTC with Z."""
    session: int
    """Its number in the exchange's calendar."""
    provisional: bool
    values: dict[str, float | None]


@dataclass(frozen=True)
class ModelInfo:
    """The champion that all forecasts of a state are of."""

    version: str
    identity: str
    """SHA-256 of its ONNX file: a version's number may be used again by a registry made anew."""
    kind: str
    features: list[str]
    window: int
    """Sessions."""
    since: str
    """When it became the champion of this service, ISO 8601 in UTC."""
    swaps: int
    """Changes of the champion since the start."""
    refused: dict[str, str]
    """Version to why it was refused."""
    metadata: dict[str, Any]


@dataclass(frozen=True)
class MarketState:
    """One consistent instant of the market. It never changes; a change makes another one."""

    number: int
    """Rises with every change, over restarts too."""
    model: ModelInfo
    newest: int
    """Number of the market's newest session in the exchange's calendar."""
    newest_close: str
    """Its close, ISO 8601 in UTC with Z."""
    forecasts: Mapping[str, SymbolForecast]
    features: Mapping[str, SymbolFeatures]
    changed: Mapping[str, int]
    """Symbol to the number of the state that last changed its forecast."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Symbol to why it has a window but no forecast, such as a value that is not finite."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """How a part of the service does: store, champion, live_bars, log, ..."""

    ok: bool
    detail: str
    """What is wrong, or "" where nothing is."""
    failures: int
    """Since the start of its process."""
    at: float
    """`time.time()` of the last look."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Its numbers by name, such as how many wait; for metrics."""
