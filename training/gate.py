"""The promotion gate: which model version becomes champion, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


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
    reasons: list[str] = field(default_factory=list)


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
        champion: the version in office, measured on the same dates as the candidates.
        baselines: figures by baseline, on the same dates.
        metric: figure to compare; higher is better.
        max_parity: largest difference between torch and ONNX that is let through.
    """
    reasons: list[str] = []
    fit = []
    for candidate in candidates:
        name = f"version {candidate.version} ({candidate.kind})"
        if not candidate.onnx_parity <= max_parity:
            reasons.append(
                f"{name} refused: ONNX differs from torch by {candidate.onnx_parity:.1e}, "
                f"more than {max_parity:.1e}"
            )
        elif _score(candidate, metric) == float("-inf"):
            reasons.append(f"{name} refused: its {metric} is not defined on these dates")
        else:
            fit.append(candidate)
    ranked = sorted(fit, key=lambda c: _score(c, metric), reverse=True)

    winner, promoted = champion, False
    for best in ranked[:1]:
        name = f"version {best.version} ({best.kind})"
        told = f"{metric} {_score(best, metric):+.5f}"
        if champion is None:
            winner, promoted = best, True
            reasons.append(f"{name} becomes the first champion: best of this run with {told}")
        elif best.version == champion.version:
            reasons.append(f"{name} stays champion: best of this run with {told}")
        else:
            promoted = _score(best, metric) > _score(champion, metric)
            winner = best if promoted else champion
            verdict = "beats" if promoted else "refused: does not beat"
            reasons.append(
                f"{name} with {told} {verdict} champion version {champion.version} "
                f"({champion.kind}) with {_score(champion, metric):+.5f} on the same dates"
            )
    if champion and champion.fitted_last_session >= first_test_session:
        reasons.append(
            f"champion version {champion.version} was fitted up to {champion.fitted_last_session}, "
            f"within the test dates that start {first_test_session}: its figure flatters it"
        )
    if champion and any(c.n_predictions != champion.n_predictions for c in candidates):
        reasons.append(
            f"champion version {champion.version} was measured on {champion.n_predictions} rows, the "
            f"candidates on {candidates[0].n_predictions}: it asks for another window length"
        )
    if winner is None:
        reasons.append("there is no champion: no version may be promoted")
        return Decision(None, None, False, False, reasons)

    beaten_by = _baselines_not_beaten(winner, baselines, metric)
    luck = None if beaten_by else _within_luck(winner, baselines)
    if beaten_by:
        reasons.append(f"the champion does NOT beat {', '.join(beaten_by)}: no skill is shown")
    elif luck:
        reasons.append(f"the champion beats the baselines by no more than luck may: {luck}")
    rest = [c for c in ranked if c.version != winner.version]
    if champion is not None and promoted:
        rest = sorted([*rest, champion], key=lambda c: _score(c, metric), reverse=True)
    challenger = rest[0].version if rest else None
    return Decision(winner.version, challenger, promoted, not (beaten_by or luck), reasons)


def _score(candidate: Candidate, metric: str) -> float:
    """The figure to compare; below every other where it is undefined."""
    value = candidate.figures[metric]
    return float("-inf") if value is None or math.isnan(value) else value


def _baselines_not_beaten(
    winner: Candidate, baselines: dict[str, dict[str, Any]], metric: str
) -> list[str]:
    """Baselines the winner loses to, in the metric or else (always_up has no price) in direction."""
    unbeaten = []
    for name, figures in baselines.items():
        compared = metric if figures[metric] is not None else "direction_accuracy"
        theirs, ours = figures[compared], winner.figures[compared]
        if theirs is not None and (ours is None or ours <= theirs):
            unbeaten.append(f"{name} ({compared} {theirs:.4f})")
    return unbeaten


def _within_luck(winner: Candidate, baselines: dict[str, dict]) -> str | None:
    """Why the winner's lead may be chance: its interval of direction accuracy holds always_up's."""
    interval = winner.figures.get("direction_accuracy_ci95")
    always_up = baselines["always_up"]["direction_accuracy"]
    if interval is None or interval[0] > always_up:
        return None
    return (
        f"its direction is right {winner.figures['direction_accuracy']:.1%} of the time "
        f"({interval[0]:.1%} to {interval[1]:.1%}), always_up's {always_up:.1%}"
    )
