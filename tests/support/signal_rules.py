"""Rules of signals as stage `signals` writes them, by hand."""

from dataclasses import asdict, replace

from pitwise.decisions.signals import Rules
from pitwise.workspace import Workspace, write_json

RULES = Rules(1, 0.8, 2, 3, 1e5, 0.5, 2.0, 0.5, 50, intercept=0.0, slope=1.0)
RECORD = {
    side: {
        "count": 0,
        "sessions": 0,
        **dict.fromkeys(("hit_rate", "ci95", "base_rate", "net_bp", "net_ci95", "base_bp")),
    }
    for side in ("BUY", "SELL")
}


def write_rules(workspace: Workspace, kind: str = "lstm", **changed) -> None:
    """The part of `metrics/signals.json` that the service reads."""
    rules = asdict(replace(RULES, **changed))
    write_json({"kind": kind, "rules": rules, "record": RECORD}, workspace.root / "metrics/signals.json")
