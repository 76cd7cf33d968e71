"""The promotion gate: which model version becomes champion, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pitwise.registry.findings import Finding


@dataclass(frozen=True)
class Candidate:
    """A registered model version and what is known of it on the common test dates."""

    version: str
    kind: str
    onnx_parity: float
    """Largest absolute difference between torch and onnxruntime."""
    figures: dict[str, Any]
    """As `metrics/evaluation.json` has them, on the current test dates."""
    fitted_last_session: str
    """Last session of its training and validation dates."""
    n_predictions: int
    """Test rows it was measured on."""


@dataclass(frozen=True)
class Decision:
    champion: str | None
    """Version the alias `champion` should point to, None if there is none."""
    challenger: str | None
    """The best of the versions that did not become champion."""
    promoted: bool
    beats_baselines: bool
    findings: list[Finding]


def decide(
    candidates: Sequence[Candidate],
    champion: Candidate | None,
    baselines: dict[str, dict[str, Any]],
    first_test_session: str,
    metric: str,
    max_parity: float,
) -> Decision:
    """Compare the candidates with the champion on the same test dates.

    Args:
        candidates: the versions of this run; may contain the champion itself.
        champion: the current champion, measured on the same dates as the candidates.
        baselines: figures by baseline, on the same dates.
        metric: figure to compare; higher is better.
        max_parity: largest difference between torch and ONNX that is let through.
    """
    findings = [f for c in candidates if (f := _refusal(c, metric, max_parity))]
    refused = {finding.version for finding in findings}
    fit = [c for c in candidates if c.version not in refused]
    ranked = sorted(fit, key=lambda c: _score(c, metric), reverse=True)

    winner, promoted = champion, False
    if ranked:
        finding = _compared(ranked[0], champion, metric)
        findings.append(finding)
        promoted = finding.verdict == "promoted"
        winner = ranked[0] if promoted else champion
    if champion:
        findings += _doubts(champion, candidates, first_test_session)
    if winner is None:
        return Decision(None, None, False, False, [*findings, Finding("no_champion", "warning")])

    doubt = _baselines_not_beaten(winner, baselines, metric) or _within_noise(winner, baselines)
    if doubt:
        findings.append(doubt)
    rest = [c for c in ranked if c.version != winner.version]
    if champion is not None and promoted:
        rest = sorted([*rest, champion], key=lambda c: _score(c, metric), reverse=True)
    challenger = rest[0].version if rest else None
    return Decision(winner.version, challenger, promoted, doubt is None, findings)


def _refusal(candidate: Candidate, metric: str, max_parity: float) -> Finding | None:
    """Why a candidate may not be compared at all, if so."""
    if not candidate.onnx_parity <= max_parity:  # so that a NaN is refused
        figures = {"parity": _finite(candidate.onnx_parity), "max_parity": max_parity}
        return Finding("parity", "refused", candidate.version, candidate.kind, figures)
    if _score(candidate, metric) == -math.inf:
        return Finding("undefined", "refused", candidate.version, candidate.kind, {"metric": metric})
    return None


def _compared(best: Candidate, champion: Candidate | None, metric: str) -> Finding:
    """The best candidate against the champion."""
    score = _score(best, metric)
    figures: dict[str, Any] = {"metric": metric, "score": score}
    if champion is None:
        return Finding("first", "promoted", best.version, best.kind, figures)
    if best.version == champion.version:
        return Finding("stays", "kept", best.version, best.kind, figures)
    theirs = _score(champion, metric)
    figures |= {
        "champion": champion.version,
        "champion_kind": champion.kind,
        "champion_score": _finite(theirs),
    }
    if score > theirs:
        return Finding("beats", "promoted", best.version, best.kind, figures)
    return Finding("not_better", "refused", best.version, best.kind, figures)


def _doubts(
    champion: Candidate, candidates: Sequence[Candidate], first_test_session: str
) -> list[Finding]:
    """What makes the champion's figure another than the candidates'."""
    doubts = []
    if champion.fitted_last_session >= first_test_session:
        figures = {
            "champion": champion.version,
            "fitted_last_session": champion.fitted_last_session,
            "first_test_session": first_test_session,
        }
        doubts.append(Finding("fitted_within_test", "warning", figures=figures))
    if any(c.n_predictions != champion.n_predictions for c in candidates):
        rows: dict[str, Any] = {
            "champion": champion.version,
            "champion_rows": champion.n_predictions,
            "rows": candidates[0].n_predictions,
        }
        doubts.append(Finding("other_rows", "warning", figures=rows))
    return doubts


def _score(candidate: Candidate, metric: str) -> float:
    """The figure to compare; below every other where it is undefined."""
    value = candidate.figures[metric]
    return -math.inf if value is None or math.isnan(value) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _baselines_not_beaten(
    winner: Candidate, baselines: dict[str, dict[str, Any]], metric: str
) -> Finding | None:
    """Baselines the winner loses to, in the metric or else (always_up has no price) in direction."""
    unbeaten = []
    for name, figures in baselines.items():
        compared = metric if figures[metric] is not None else "direction_accuracy"
        theirs, ours = figures[compared], winner.figures[compared]
        if theirs is not None and (ours is None or ours <= theirs):
            unbeaten.append({"name": name, "metric": compared, "value": theirs})
    if not unbeaten:
        return None
    return Finding("baselines_not_beaten", "warning", figures={"baselines": unbeaten})


def _within_noise(winner: Candidate, baselines: dict[str, dict]) -> Finding | None:
    """Whether the winner's lead may be chance: its interval of direction accuracy holds always_up's."""
    interval = winner.figures.get("direction_accuracy_ci95")
    always_up = baselines["always_up"]["direction_accuracy"]
    if interval is None or interval[0] > always_up:
        return None
    low, high = interval
    direction = winner.figures["direction_accuracy"]
    figures = {"direction": direction, "low": low, "high": high, "always_up": always_up}
    return Finding("within_noise", "warning", figures=figures)
