"""What a week's report found, and the one verdict that follows."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from monitoring.health import MEANING

Level = Literal["act", "warn", "note"]
ORDER: dict[Level, int] = {"act": 0, "warn": 1, "note": 2}
VERDICT = {0: "act", 1: "warn", 2: "ok"}
EXIT = {"ok": 0, "warn": 3, "act": 4}
"""Exit codes of `pitwise report`; 1 is an error, 2 a wrong option."""

TODO = {
    "bars": "Look at the feed: `pitwise load` brings it again, reports/data_quality.html has the rows "
    "set aside. Believe no forecast of these sessions until it is mended.",
    "serve": "Look at the service's log and at `pitwise evening`: forecasts were not made, or made of "
    "old features.",
    "swap": "Find out who changed the model: `pitwise model show` lists the versions, `pitwise model "
    "rollback` goes back to the champion before.",
    "retrain": "Retrain: `dvc exp run`. The new model must pass the promotion gate.",
    "watch": "Look at the columns below; if next week says the same, retrain: `dvc exp run`.",
    "wait": "Nothing to do.",
}
KIND_TODO = {
    "missing_session": "bars",
    "bars": "bars",
    "set_aside": "bars",
    "no_forecasts": "serve",
    "served": "serve",
    "repeated": "serve",
    "errors": "serve",
    "model_gone": "swap",
    "model_changed": "swap",
    "model_unknown": "swap",
    "not_of_the_model": "swap",
    "other_windows": "serve",
    "forecast_drift": "swap",
    "worse": "retrain",
    "below_band": "watch",
    "feature_drift": "watch",
    "error_drift": "watch",
}


@dataclass(frozen=True)
class Finding:
    level: Level
    kind: str
    text: str
    """A clause that a sentence can go on with."""

    @property
    def todo(self) -> str:
        return TODO[KIND_TODO.get(self.kind, "wait")]


def bars_finding(found: dict[str, Any]) -> Finding:
    """Of one figure of the bars or the forecasts that is beyond its limit."""
    name, more = found["figure"], found["sessions"] - 1
    also = f", and on {more} other session{'s' * (more > 1)}" if more else ""
    value = f"{found['value']:.2f}" if name == "price_order" else f"{found['value']:.1%}"
    limit = f"{found['limit']:.2f}" if name == "price_order" else f"{found['limit']:.0%}"
    kind = name if name in ("served", "repeated") else "bars"
    return Finding("act", kind, f"{MEANING[name]}: {value} on {found['session']} (limit {limit}){also}")


def verdict(week: str, findings: list[Finding], judged: bool) -> dict[str, str]:
    """ok | warn | act, why in one sentence, and what to do.

    Args:
        judged: whether there was anything to judge accuracy by.
    """
    ranked = sorted(findings, key=lambda finding: ORDER[finding.level])
    worst = ranked[0] if ranked else Finding("note", "", "")
    state = VERDICT[ORDER[worst.level]]
    if state == "ok":
        told = "" if judged else "; accuracy is not judged yet"
        return {
            "verdict": "ok",
            "reason": f"{week}: nothing is beyond its limits{told}.",
            "todo": TODO["wait"],
        }
    others = sum(ORDER[finding.level] < ORDER["note"] for finding in ranked) - 1
    more = f"; and {others} more below" if others else ""
    return {"verdict": state, "reason": f"{week}: {worst.text}{more}.", "todo": worst.todo}


def as_documents(findings: list[Finding]) -> list[dict[str, str]]:
    ranked = sorted(findings, key=lambda finding: ORDER[finding.level])
    return [asdict(finding) | {"todo": finding.todo} for finding in ranked]
