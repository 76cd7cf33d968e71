"""Signals as the API shows them: of the market's state now, by the rules that stage `signals` wrote."""

import json
from dataclasses import dataclass, replace
from logging import getLogger
from math import inf
from pathlib import Path
from typing import Any

import orjson

from pitwise.decisions.signals import Rules, signal
from pitwise.workspace import Workspace
from serving.http.problems import Problem
from serving.http.rendered import Rendered, kept_json
from serving.state.market import MarketState, SymbolFeatures

REPORT = "metrics/signals.json"
HINT = "Run `dvc repro signals` or `pitwise signals` in the workspace."
logger = getLogger("pitwise.serving")


@dataclass(frozen=True)
class Report:
    """What is taken from the stage's report."""

    kind: str | None
    """Of the model whose probabilities are calibrated."""
    rules: Rules
    record: bytes
    """`SignalsAnswer.record`, JSON."""


class Signals:
    """The rules, read anew when the stage has written them anew, and the signals by them."""

    def __init__(self, workspace: Workspace | None):
        self._path = workspace.root / REPORT if workspace else None
        self._stamp: tuple[int, int] | None = None
        self._report: Report | None = None
        self._ranked_of: tuple[list[Rendered], Report] | None = None
        self._ranked: list[tuple[Rendered, bytes]] = []

    def report(self) -> Report:
        """The rules now.

        Raises:
            Problem: there are none (409), or they cannot be read (503).
        """
        stamp = _stamp(self._path)
        if stamp is None or self._path is None:
            raise Problem("no-signals", HINT)
        if self._report is None or stamp != self._stamp:
            try:
                document = json.loads(self._path.read_text())
                record = orjson.dumps(document["record"])
                self._report = Report(document["kind"], Rules(**document["rules"]), record)
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.exception("%s cannot be read", self._path)
                raise Problem("unavailable", f"The rules of signals cannot be read. {HINT}") from error
            self._stamp = stamp
        return self._report

    def shown(self, state: MarketState, rows: list[Rendered]) -> list[dict[str, Any]]:
        """`serving.http.schemas.Signal` of each forecast."""
        rules = self._rules(state)
        return [_shown(state, row, rules) for row in rows]

    def of(self, state: MarketState, rows: list[Rendered]) -> list[bytes]:
        """The same as JSON."""
        return [orjson.dumps(document) for document in self.shown(state, rows)]

    def ranked(self, state: MarketState, rows: list[Rendered]) -> list[tuple[Rendered, bytes]]:
        """All forecasts with their signals, BUY and SELL first, then by what the position earns.

        Args:
            rows: of the whole market; the same list is not signalled twice.
        """
        report, before = self.report(), self._ranked_of
        if before is None or before[0] is not rows or before[1] is not report:
            rules = self._rules(state)
            shown = [(row, _shown(state, row, rules)) for row in rows]
            shown.sort(key=_order)
            self._ranked = [(row, kept_json(document)) for row, document in shown]
            self._ranked_of = (rows, report)
        return self._ranked

    def _rules(self, state: MarketState) -> Rules:
        """The rules; without their calibration where it is of another model than the champion now."""
        report = self.report()
        if report.kind == state.model.kind:
            return report.rules
        return replace(report.rules, intercept=None, slope=None)


def _shown(state: MarketState, row: Rendered, rules: Rules) -> dict[str, Any]:
    forecast = row.forecast
    if forecast.horizon != rules.horizon:
        rules = replace(rules, horizon=forecast.horizon, intercept=None, slope=None)
    features = state.features.get(forecast.symbol)
    if features is not None and features.as_of != forecast.as_of:
        features = None
    atr, percent, shares = (_value(features, n) for n in ("atr_14", "volatility_20", "volume_sma_20"))
    found = signal(
        log_return=forecast.log_return,
        p_up=forecast.p_up,
        scale=forecast.scale,
        close=forecast.last_close,
        atr=atr,
        volatility=None if percent is None else percent / 100,
        dollar_volume=None if shares is None else shares * forecast.last_close,
        suspect=forecast.suspect,
        rules=rules,
    )
    return {
        "symbol": forecast.symbol,
        "as_of": forecast.as_of,
        "for_session": forecast.for_session,
        "horizon": forecast.horizon,
        "signal": found.signal,
        "reason": found.reason,
        "confidence": found.confidence,
        "p_up": forecast.p_up,
        "calibrated_p_up": found.calibrated_p_up,
        "score": forecast.score,
        "last_close": forecast.last_close,
        "target": found.target,
        "target_low": found.target_low,
        "target_high": found.target_high,
        "stop_loss": found.stop_loss,
        "take_profit": found.take_profit,
        "expected_return": found.expected_return,
        "expected_cost": found.expected_cost,
        "expected_net": found.expected_net,
        "feature_age_sessions": row.age,
        "provisional": forecast.provisional,
        "unusual": forecast.unusual,
        "suspect": forecast.suspect,
    }


def _order(shown: tuple[Rendered, dict[str, Any]]) -> tuple[bool, float, str]:
    document = shown[1]
    net = document["expected_net"]
    return document["signal"] == "HOLD", inf if net is None else -net, document["symbol"]


def _value(features: SymbolFeatures | None, name: str) -> float | None:
    """A feature that is a number; None where it is not known."""
    value = features.values.get(name) if features else None
    return value if value is not None and abs(value) < inf else None


def _stamp(path: Path | None) -> tuple[int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino) if status else None
