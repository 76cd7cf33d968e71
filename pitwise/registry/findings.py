"""What the promotion gate found, as data; `describe` makes the sentence where a person reads it."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["promoted", "kept", "refused", "warning"]


@dataclass(frozen=True)
class Finding:
    """One finding of the gate; JSON holds it as it is."""

    kind: str
    """A key of `SENTENCES`."""
    verdict: Verdict
    version: str | None = None
    """The registered version that it is about; None: the champion, or none at all."""
    model_kind: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    """What the sentence quotes; None for a figure that is not a finite number."""


SPAN = "{mean:+.4f} (at least {low:+.4f} at {level:.1%}, {n} sessions)"
SENTENCES = {
    "parity": "{name} refused: ONNX differs from torch by {parity:.1e}, more than {max_parity:.1e}",
    "undefined": "{name} refused: its validation loss is not a number",
    "first": "{name} becomes the first champion: best of this run by {by} ({score:+.5f})",
    "other_horizon": "{name} becomes champion, best of this run by {by} ({score:+.5f}): label.horizon "
    "is {horizon}, and champion version {champion} was made for {before}",
    "stays": "{name} stays champion: this run made it again",
    "better": "{name} is promoted: its recipe's rank IC less that of champion version {champion} "
    f"({{champion_kind}}) is {SPAN}",
    "refit": "{name} is promoted: a refit of champion version {champion}, its rank IC less that of "
    f"{{against}} is {SPAN}, and may be down to -{{margin:g}}",
    "behind": "{name} refused: version {champion} of this run goes before",
    "no_evidence": "{name} refused: the walk-forward has no forecasts of its recipe to hold against "
    "champion version {champion} ({champion_kind}). Run `dvc repro walk_forward/dvc.yaml`",
    "too_few": "{name} refused, without a verdict: fewer than {min_sessions} sessions to compare it "
    "on with champion version {champion} that neither has seen",
    "baseline_not_beaten": "{name} refused: its recipe's rank IC less that of baseline {baseline} is "
    f"{SPAN}",
    "not_better": "{name} refused: its recipe's rank IC less that of champion version {champion} "
    f"({{champion_kind}}) is {SPAN}",
    "may_be_worse": "{name} refused: a refit of champion version {champion}, its rank IC less that of "
    f"{{against}} is {SPAN}, below -{{margin:g}}",
    "shadow_worse": "{name} refused: in the prediction log its rank IC less that of champion version "
    "{champion} is {mean:+.4f} (at most {high:+.4f} at {level:.1%}, {n} sessions)",
    "no_champion": "there is no champion: no version may be promoted",
    "unproven": "champion version {champion} is unproven: the walk-forward does not hold its recipe",
    "unproven_against": "champion version {champion} is unproven: its recipe's rank IC less that of "
    f"baseline {{baseline}} is {SPAN}",
}
"""Kind of a finding to its sentence."""


class _Figure(float):
    """A figure that prints as `undefined` where it is not a number."""

    def __format__(self, form: str) -> str:
        return super().__format__(form) if math.isfinite(self) else "undefined"


def describe(finding: Finding) -> str:
    """The finding as a sentence."""
    figures: dict[str, Any] = {
        name: _Figure("nan") if value is None else _Figure(value) if isinstance(value, float) else value
        for name, value in finding.figures.items()
    }
    return SENTENCES[finding.kind].format(
        name=f"version {finding.version} ({finding.model_kind})", **figures
    )
