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


SENTENCES = {
    "parity": "{name} refused: ONNX differs from torch by {parity:.1e}, more than {max_parity:.1e}",
    "undefined": "{name} refused: its {metric} is not defined on these dates",
    "first": "{name} becomes the first champion: best of this run with {metric} {score:+.5f}",
    "stays": "{name} stays champion: best of this run with {metric} {score:+.5f}",
    "beats": "{name} with {metric} {score:+.5f} beats champion version {champion} ({champion_kind}) "
    "with {champion_score:+.5f} on the same dates",
    "not_better": "{name} with {metric} {score:+.5f} refused: does not beat champion version {champion} "
    "({champion_kind}) with {champion_score:+.5f} on the same dates",
    "fitted_within_test": "champion version {champion} was fitted up to {fitted_last_session}, within "
    "the test dates that start {first_test_session}: its figure flatters it",
    "other_rows": "champion version {champion} was measured on {champion_rows} rows, the candidates on "
    "{rows}: its window has another length",
    "no_champion": "there is no champion: no version may be promoted",
    "baselines_not_beaten": "the champion does NOT beat {baselines}: no skill is shown",
    "within_noise": "the champion beats the baselines within noise only: its direction is right "
    "{direction:.1%} of the time ({low:.1%} to {high:.1%}), always_up's {always_up:.1%}",
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
    if "baselines" in figures:
        figures["baselines"] = ", ".join(
            f"{b['name']} ({b['metric']} {b['value']:.4f})" for b in figures["baselines"]
        )
    return SENTENCES[finding.kind].format(
        name=f"version {finding.version} ({finding.model_kind})", **figures
    )
