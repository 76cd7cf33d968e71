"""From one forecast to what to do: buy, sell or nothing, how sure, and where to get out.

Plain numbers in, plain numbers out, and no library: the stage and the service ask the same function.
A forecast is a logistic distribution of the log return over the horizon: quantile q is
log_return + scale * ln(q / (1 - q)). A model that gives no scale has that of a logistic distribution
with the symbol's own volatility.
"""

from dataclasses import dataclass
from math import exp, expm1, isfinite, log, pi, sqrt
from typing import Literal, TypeGuard

Action = Literal["BUY", "HOLD", "SELL"]
BASIS_POINT = 1e-4
SESSIONS_A_YEAR = 252
LOGISTIC = sqrt(3) / pi
"""Scale of a logistic distribution over its standard deviation."""


@dataclass(frozen=True)
class Rules:
    """What turns forecasts into signals; as `metrics/signals.json` has it under `rules`."""

    horizon: int
    """Sessions that the forecasts look ahead."""
    interval: float
    """Probability between the two ends of the price interval."""
    stop_atr: float
    """Average true ranges that a stop-loss is away, at least."""
    take_profit_atr: float
    dollars: float
    """Of one position: its own trades move the price."""
    commission_bp: float
    half_spread_bp: float
    impact: float
    borrow_bp: float
    """These four as `decisions.backtest.Costs` has them."""
    intercept: float | None = None
    slope: float | None = None
    """Of the calibration, see `calibrated`; None where there was nothing to fit them on."""


@dataclass(frozen=True, slots=True)
class Signal:
    """What to do with one symbol; prices in US dollars, returns and cost as fractions.

    None where a figure is not known, or, for stop_loss and take_profit, where nothing is to be done.
    """

    signal: Action
    reason: str
    """Why nothing is to be done; "" for BUY and SELL."""
    confidence: float | None
    """Calibrated probability of the direction that log_return says; for HOLD it may be below 0.5."""
    calibrated_p_up: float | None
    target: float
    target_low: float | None
    target_high: float | None
    stop_loss: float | None
    take_profit: float | None
    expected_return: float
    """exp(log_return) - 1."""
    expected_cost: float | None
    """Of a round trip of one position, see `round_trip`."""
    expected_net: float | None
    """What the position earns in the forecast's direction, cost out."""


def signal(
    log_return: float,
    p_up: float,
    scale: float | None,
    close: float,
    atr: float | None,
    volatility: float | None,
    dollar_volume: float | None,
    suspect: str | None,
    rules: Rules,
) -> Signal:
    """What to do with one symbol.

    A BUY is one whose log_return, p_up and calibrated probability all say up, and whose expected return
    is above its cost; a SELL the same downwards. Its stop-loss and take-profit are at the interval's
    ends, or where that is farther, at `stop_atr` and `take_profit_atr` average true ranges.

    Args:
        log_return, p_up, scale: the forecast's.
        close: last close, US dollars.
        atr: average true range, US dollars.
        volatility: standard deviation of a session's return, a fraction.
        dollar_volume: usual dollars traded in a session.
        suspect: what a newest bar may be; None where nothing is suspected.
    """
    up = log_return > 0
    probability = calibrated(p_up, rules)
    confidence = probability if up or probability is None else 1 - probability
    if scale is None and volatility is not None:
        scale = volatility * sqrt(rules.horizon) * LOGISTIC
    spread = scale * log((1 + rules.interval) / (1 - rules.interval)) if _above_0(scale) else None
    cost = round_trip(volatility, dollar_volume, not up, rules)
    expected = expm1(log_return)
    net = None if cost is None else abs(expected) - cost
    reason = _reason(up, p_up, confidence, suspect, net, spread is not None and _above_0(atr))
    stop = profit = None
    if not reason and spread is not None and atr is not None:
        side = 1 if up else -1
        stop = close * exp(-side * max(rules.stop_atr * atr / close, spread - abs(log_return)))
        profit = close * exp(side * max(rules.take_profit_atr * atr / close, spread + abs(log_return)))
    return Signal(
        signal="HOLD" if reason else "BUY" if up else "SELL",
        reason=reason,
        confidence=confidence,
        calibrated_p_up=probability,
        target=close * exp(log_return),
        target_low=None if spread is None else close * exp(log_return - spread),
        target_high=None if spread is None else close * exp(log_return + spread),
        stop_loss=stop,
        take_profit=profit,
        expected_return=expected,
        expected_cost=cost,
        expected_net=net,
    )


def calibrated(p_up: float, rules: Rules) -> float | None:
    """1 / (1 + exp(-(intercept + slope * logit(p_up)))); None without a calibration."""
    if rules.intercept is None or rules.slope is None:
        return None
    p_up = min(max(p_up, 1e-6), 1 - 1e-6)
    return 1 / (1 + exp(-(rules.intercept + rules.slope * log(p_up / (1 - p_up)))))


def round_trip(
    volatility: float | None, dollar_volume: float | None, short: bool, rules: Rules
) -> float | None:
    """Cost of opening and closing one position, as a fraction of it; a short also borrows.

    2 * (commission + half spread + impact * volatility * sqrt(dollars / dollar volume)); None where
    volatility or volume is not known.
    """
    if volatility is None or not _above_0(dollar_volume):
        return None
    rate = (rules.commission_bp + rules.half_spread_bp) * BASIS_POINT
    rate += rules.impact * volatility * sqrt(rules.dollars / dollar_volume)
    borrowed = rules.borrow_bp * BASIS_POINT * rules.horizon / SESSIONS_A_YEAR if short else 0.0
    return 2 * rate + borrowed


def _reason(
    up: bool,
    p_up: float,
    confidence: float | None,
    suspect: str | None,
    net: float | None,
    has_range: bool,
) -> str:
    """Why nothing is to be done, the first that holds; "" where something is."""
    if suspect:
        return f"a newest bar may be a {suspect.replace('_', ' ')}"
    if net is None or not has_range:
        return "range, volatility or volume is not known"
    if net <= 0:
        return "expected return does not pay its cost"
    if p_up < 0.5 if up else p_up > 0.5:
        return "return and probability disagree"
    if confidence is None:
        return "probability is not calibrated"
    if confidence <= 0.5:
        return "calibrated probability says otherwise"
    return ""


def _above_0(value: float | None) -> TypeGuard[float]:
    return value is not None and isfinite(value) and value > 0
