"""The promotion gate: a test of recipes. Which model version becomes champion, and why.

A recipe is what a model is made by, whatever bars it is fitted on. A new one is promoted if it is shown
to be better; a refit of the champion's own one if it is shown to be not much worse. `docs/gate.md` has
the rules with their error rates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.evaluation.figures import block_length, block_means
from pitwise.registry.findings import Finding


class Rules(NamedTuple):
    """Section `register` of params.yaml, as far as the gate goes by it."""

    alpha: float
    """Error rate, one-sided: how often a run may promote a recipe that is no better."""
    margin: float
    """Rank IC that a refit may be worse by."""
    min_sessions: int
    """Fewer sessions give no verdict."""
    max_parity: float
    """Largest difference between torch and ONNX that is let through."""
    samples: int
    """Draws of the block bootstrap."""
    seed: int


@dataclass(frozen=True)
class Candidate:
    """A registered model version."""

    version: str
    kind: str
    recipe: str | None
    """None where it is not recorded."""
    onnx_parity: float
    """Largest absolute difference between torch and onnxruntime."""
    validation_loss: float
    """Of the fit, on the validation sessions of its run."""
    fitted_last_session: str
    """Last session of its training and validation dates."""
    rank_ic: pd.Series
    """Of the fitted model, by session (day) of the current test dates."""
    logged_rank_ic: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    """Of what it forecast as champion or in its shadow, by session (day), from the prediction log."""
    horizon: int = 1
    """Sessions that it looks ahead."""


@dataclass(frozen=True)
class WalkForward:
    """What the walk-forward says of recipes, over the horizon of a run's candidates."""

    rank_ic: Mapping[str, pd.Series]
    """By recipe, each session's rank IC out of sample."""
    baselines: Mapping[str, pd.Series]
    """By baseline."""

    @property
    def best_baseline(self) -> str | None:
        """The one with the largest mean rank IC; None where none ranks."""
        means = {name: ic.mean() for name, ic in self.baselines.items() if ic.notna().any()}
        return max(means, key=lambda name: means[name]) if means else None


@dataclass(frozen=True)
class Decision:
    champion: str | None
    """Version the alias `champion` should point to, None if there is none."""
    challenger: str | None
    """The best of the versions that did not become champion."""
    promoted: bool
    unproven: bool
    """Whether the champion's recipe is not shown to beat the best baseline."""
    findings: list[Finding]


class Interval(NamedTuple):
    """A mean over sessions, and its bounds at the error rate, each one-sided."""

    mean: float
    low: float
    high: float
    n: int


def interval(values: pd.Series, horizon: int, alpha: float, rules: Rules) -> Interval | None:
    """The mean of a figure a session by the block bootstrap; None with fewer than `min_sessions`."""
    known = values.dropna().sort_index().to_numpy(float)
    if len(known) < max(rules.min_sessions, 2):
        return None
    means = block_means(known, block_length(len(known), horizon), rules.samples, rules.seed)
    low, high = np.quantile(means, [alpha, 1 - alpha])
    return Interval(float(known.mean()), float(low), float(high), len(known))


def decide(
    candidates: Sequence[Candidate],
    champion: Candidate | None,
    evidence: WalkForward | None,
    rules: Rules,
) -> Decision:
    """Who is champion after a run.

    Args:
        candidates: the versions of this run, of one horizon; may contain the champion itself.
        champion: the current champion, its rank IC of the candidates' test dates.
        evidence: of the walk-forward; None where there is none.
    """
    findings = [f for c in candidates if (f := _refusal(c, rules))]
    refused = {finding.version for finding in findings}
    fit = sorted((c for c in candidates if c.version not in refused), key=lambda c: _order(c, evidence))
    others = [c for c in fit if champion is None or c.version != champion.version]
    if champion is None:
        if not fit:
            return Decision(None, None, False, True, [*findings, Finding("no_champion", "warning")])
        winner, promoted = fit[0], True
        findings.append(_finding("first", "promoted", winner, _chosen_by(winner, evidence)))
    elif fit and fit[0].horizon != champion.horizon:
        # It forecasts what is no longer asked for, so that there is nothing to hold against it.
        winner, promoted = fit[0], True
        asked = {"champion": champion.version, "before": champion.horizon, "horizon": winner.horizon}
        findings.append(
            _finding("other_horizon", "promoted", winner, _chosen_by(winner, evidence) | asked)
        )
    else:
        if any(c.version == champion.version for c in fit):
            findings.append(_finding("stays", "kept", champion))
        # Each new recipe of a run is another try, so that they share the error rate.
        new = {c.recipe for c in others if not _is_refit(c, champion)}
        alpha = rules.alpha / max(len(new), 1)
        verdicts = [
            _refit(c, champion, rules)
            if _is_refit(c, champion)
            else _new_recipe(c, champion, evidence, alpha, rules)
            for c in others
        ]
        findings += verdicts
        # A recipe that is better goes before the champion's own, fitted anew.
        taking = [
            c for c, verdict in zip(others, verdicts, strict=True) if verdict.verdict == "promoted"
        ]
        taking.sort(key=lambda c: _is_refit(c, champion))
        winner, promoted = (taking[0], True) if taking else (champion, False)
        for also in taking[1:]:
            at = next(i for i, f in enumerate(findings) if f.version == also.version)
            findings[at] = _finding("behind", "refused", also, {"champion": winner.version})
    doubt = _unproven(winner, evidence, rules)
    if doubt:
        findings.append(doubt)
    rest = [champion] if champion is not None and promoted else [c for c in fit if c is not winner]
    rest = [c for c in rest if c.version != winner.version]
    return Decision(
        winner.version, rest[0].version if rest else None, promoted, doubt is not None, findings
    )


def _is_refit(candidate: Candidate, champion: Candidate) -> bool:
    return candidate.recipe is not None and candidate.recipe == champion.recipe


def _refusal(candidate: Candidate, rules: Rules) -> Finding | None:
    """Why a candidate may not be compared at all, if so."""
    if not candidate.onnx_parity <= rules.max_parity:  # so that a NaN is refused
        figures = {"parity": _finite(candidate.onnx_parity), "max_parity": rules.max_parity}
        return _finding("parity", "refused", candidate, figures)
    if not math.isfinite(candidate.validation_loss):
        return _finding("undefined", "refused", candidate)
    return None


def _order(candidate: Candidate, evidence: WalkForward | None) -> tuple[float, float]:
    """The best first: by the walk-forward, else by the validation loss; the test dates are not asked."""
    mean = _walked(candidate, evidence)
    return -mean if mean is not None else math.inf, candidate.validation_loss


def _walked(candidate: Candidate, evidence: WalkForward | None) -> float | None:
    ic = evidence.rank_ic.get(candidate.recipe or "") if evidence else None
    return float(ic.mean()) if ic is not None and ic.notna().any() else None


def _chosen_by(candidate: Candidate, evidence: WalkForward | None) -> dict[str, Any]:
    mean = _walked(candidate, evidence)
    if mean is not None:
        return {"by": "rank IC in the walk-forward", "score": mean}
    return {"by": "validation loss", "score": candidate.validation_loss}


def _new_recipe(
    candidate: Candidate,
    champion: Candidate,
    evidence: WalkForward | None,
    alpha: float,
    rules: Rules,
) -> Finding:
    """Another recipe than the champion's: promoted if it is better than both champion and baselines."""
    named = {"champion": champion.version, "champion_kind": champion.kind}
    ours = evidence.rank_ic.get(candidate.recipe or "") if evidence else None
    if evidence is None or ours is None or evidence.best_baseline is None:
        return _finding("no_evidence", "refused", candidate, named)
    best, horizon = evidence.best_baseline, candidate.horizon
    theirs = evidence.rank_ic.get(champion.recipe or "")
    if (
        theirs is None
    ):  # of a recipe that is made no more: the model itself, on dates that it has not seen
        theirs = _unseen(champion.rank_ic, champion, candidate)
        ours_beside = _unseen(candidate.rank_ic, champion, candidate)
    else:
        ours_beside = ours
    to_champion = interval(ours_beside - theirs, horizon, alpha, rules)
    to_baseline = interval(ours - evidence.baselines[best], horizon, alpha, rules)
    if to_champion is None or to_baseline is None:
        return _finding("too_few", "refused", candidate, named | {"min_sessions": rules.min_sessions})
    rate = {"level": 1 - alpha}
    if not to_baseline.low > 0:
        figures = {"baseline": best} | to_baseline._asdict() | rate
        return _finding("baseline_not_beaten", "refused", candidate, figures)
    figures = named | to_champion._asdict() | rate
    if not to_champion.low > 0:
        return _finding("not_better", "refused", candidate, figures)
    return _finding("better", "promoted", candidate, figures)


def _refit(candidate: Candidate, champion: Candidate, rules: Rules) -> Finding:
    """The champion's own recipe, fitted anew: takes over if it is not worse by the margin."""
    named = {"champion": champion.version, "margin": rules.margin, "level": 1 - rules.alpha}
    ours = _unseen(candidate.rank_ic, candidate)
    difference = ours - _unseen(champion.rank_ic, candidate, champion)
    horizon = candidate.horizon
    beside, against = interval(difference, horizon, rules.alpha, rules), "champion"
    if beside is None and champion.fitted_last_session > candidate.fitted_last_session:
        # The champion has seen these dates: it may not defend on them, and the refit must only stand.
        beside, against = interval(ours, horizon, rules.alpha, rules), "chance"
    if beside is None:
        few = {"champion": champion.version, "min_sessions": rules.min_sessions}
        return _finding("too_few", "refused", candidate, few)
    figures = named | beside._asdict() | {"against": against}
    if not beside.low > -rules.margin:
        return _finding("may_be_worse", "refused", candidate, figures)
    both_logged = candidate.logged_rank_ic - champion.logged_rank_ic
    logged = interval(both_logged, horizon, rules.alpha, rules)
    if logged is not None and logged.high < -rules.margin:
        return _finding("shadow_worse", "refused", candidate, named | logged._asdict())
    return _finding("refit", "promoted", candidate, figures)


def _unseen(rank_ic: pd.Series, *fits: Candidate) -> pd.Series:
    """The sessions after the last one that any of the fits has seen."""
    return rank_ic[rank_ic.index > pd.Timestamp(max(fit.fitted_last_session for fit in fits))]


def _unproven(winner: Candidate, evidence: WalkForward | None, rules: Rules) -> Finding | None:
    """Why the winner's recipe is not shown to beat the best baseline, if so."""
    ic = evidence.rank_ic.get(winner.recipe or "") if evidence else None
    best = evidence.best_baseline if evidence else None
    if evidence is None or ic is None or best is None:
        return Finding("unproven", "warning", figures={"champion": winner.version})
    beside = interval(ic - evidence.baselines[best], winner.horizon, rules.alpha, rules)
    if beside is None:
        return Finding("unproven", "warning", figures={"champion": winner.version})
    if beside.low > 0:
        return None
    figures = {"champion": winner.version, "baseline": best, "level": 1 - rules.alpha}
    return Finding("unproven_against", "warning", figures=figures | beside._asdict())


def _finding(
    kind: str, verdict: Any, candidate: Candidate, figures: dict[str, Any] | None = None
) -> Finding:
    return Finding(kind, verdict, candidate.version, candidate.kind, figures or {})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
