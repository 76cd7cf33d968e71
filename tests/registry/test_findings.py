import json
from dataclasses import asdict

import pytest

from pitwise.registry.findings import SENTENCES, Finding, describe

pytestmark = pytest.mark.unit

SPAN = {"mean": 0.0123456, "low": 0.0023, "high": 0.02, "n": 502, "level": 0.975}
SPAN_TEXT = "+0.0123 (at least +0.0023 at 97.5%, 502 sessions)"
CHAMPION = {"champion": "2", "champion_kind": "lstm"}
FINDINGS = [
    (
        Finding("parity", "refused", "3", "ann", {"parity": 2.34e-4, "max_parity": 1e-5}),
        "version 3 (ann) refused: ONNX differs from torch by 2.3e-04, more than 1.0e-05",
    ),
    (
        Finding("undefined", "refused", "3", "ann"),
        "version 3 (ann) refused: its validation loss is not a number",
    ),
    (
        Finding("first", "promoted", "1", "lstm", {"by": "validation loss", "score": 1.5}),
        "version 1 (lstm) becomes the first champion: best of this run by validation loss (+1.50000)",
    ),
    (
        Finding(
            "other_horizon",
            "promoted",
            "3",
            "lstm",
            {"by": "validation loss", "score": 1.5, "champion": "2", "before": 1, "horizon": 5},
        ),
        "version 3 (lstm) becomes champion, best of this run by validation loss (+1.50000): "
        "label.horizon is 5, and champion version 2 was made for 1",
    ),
    (
        Finding("stays", "kept", "1", "lstm"),
        "version 1 (lstm) stays champion: this run made it again",
    ),
    (
        Finding("better", "promoted", "3", "ann", CHAMPION | SPAN),
        "version 3 (ann) is promoted: its recipe's rank IC less that of champion version 2 (lstm) is "
        + SPAN_TEXT,
    ),
    (
        Finding(
            "refit", "promoted", "3", "ann", CHAMPION | SPAN | {"against": "chance", "margin": 0.01}
        ),
        "version 3 (ann) is promoted: a refit of champion version 2, its rank IC less that of chance is "
        f"{SPAN_TEXT}, and may be down to -0.01",
    ),
    (
        Finding("behind", "refused", "3", "ann", {"champion": "4"}),
        "version 3 (ann) refused: version 4 of this run goes before",
    ),
    (
        Finding("no_evidence", "refused", "3", "ann", CHAMPION),
        "version 3 (ann) refused: the walk-forward has no forecasts of its recipe to hold against "
        "champion version 2 (lstm). Run `dvc repro walk_forward/dvc.yaml`",
    ),
    (
        Finding("too_few", "refused", "3", "ann", CHAMPION | {"min_sessions": 60}),
        "version 3 (ann) refused, without a verdict: fewer than 60 sessions to compare it on with "
        "champion version 2 that neither has seen",
    ),
    (
        Finding("baseline_not_beaten", "refused", "3", "ann", SPAN | {"baseline": "reversal"}),
        f"version 3 (ann) refused: its recipe's rank IC less that of baseline reversal is {SPAN_TEXT}",
    ),
    (
        Finding("not_better", "refused", "3", "ann", CHAMPION | SPAN),
        "version 3 (ann) refused: its recipe's rank IC less that of champion version 2 (lstm) is "
        + SPAN_TEXT,
    ),
    (
        Finding(
            "may_be_worse",
            "refused",
            "3",
            "ann",
            CHAMPION | SPAN | {"against": "champion", "margin": 0.01},
        ),
        "version 3 (ann) refused: a refit of champion version 2, its rank IC less that of champion is "
        f"{SPAN_TEXT}, below -0.01",
    ),
    (
        Finding("shadow_worse", "refused", "3", "ann", CHAMPION | SPAN),
        "version 3 (ann) refused: in the prediction log its rank IC less that of champion version 2 is "
        "+0.0123 (at most +0.0200 at 97.5%, 502 sessions)",
    ),
    (
        Finding("no_champion", "warning"),
        "there is no champion: no version may be promoted",
    ),
    (
        Finding("unproven", "warning", figures={"champion": "2"}),
        "champion version 2 is unproven: the walk-forward does not hold its recipe",
    ),
    (
        Finding("unproven_against", "warning", figures=SPAN | {"champion": "2", "baseline": "ridge"}),
        "champion version 2 is unproven: its recipe's rank IC less that of baseline ridge is "
        + SPAN_TEXT,
    ),
]
every_finding = pytest.mark.parametrize(
    ("finding", "sentence"), FINDINGS, ids=[finding.kind for finding, _ in FINDINGS]
)


@every_finding
def test_each_kind_of_finding_has_its_sentence(finding, sentence):
    assert describe(finding) == sentence


def test_every_kind_is_here():
    assert [finding.kind for finding, _ in FINDINGS] == list(SENTENCES)


@every_finding
def test_a_finding_comes_back_from_json_and_reads_the_same(finding, sentence):
    stored = json.dumps(asdict(finding), allow_nan=False)
    back = Finding(**json.loads(stored))
    assert back == finding
    assert describe(back) == sentence


def test_a_figure_that_is_no_number_is_undefined_in_the_sentence():
    finding = Finding("parity", "refused", "3", "ann", {"parity": None, "max_parity": 1e-5})
    json.dumps(asdict(finding), allow_nan=False)
    assert "differs from torch by undefined, more than" in describe(finding)
