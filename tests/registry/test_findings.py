import json
from dataclasses import asdict

import pytest

from pitwise.registry.findings import SENTENCES, Finding, describe

pytestmark = pytest.mark.unit

COMPARED = {
    "metric": "rank_ic_mean",
    "score": 0.0123456,
    "champion": "2",
    "champion_kind": "lstm",
    "champion_score": -0.5,
}
UNBEATEN = [
    {"name": "drift", "metric": "rank_ic_mean", "value": 0.02},
    {"name": "always_up", "metric": "direction_accuracy", "value": 0.52},
]
FINDINGS = [
    (
        Finding("parity", "refused", "3", "ann", {"parity": 2.34e-4, "max_parity": 1e-5}),
        "version 3 (ann) refused: ONNX differs from torch by 2.3e-04, more than 1.0e-05",
    ),
    (
        Finding("undefined", "refused", "3", "ann", {"metric": "rank_ic_mean"}),
        "version 3 (ann) refused: its rank_ic_mean is not defined on these dates",
    ),
    (
        Finding("first", "promoted", "1", "lstm", {"metric": "rank_ic_mean", "score": 0.0123456}),
        "version 1 (lstm) becomes the first champion: best of this run with rank_ic_mean +0.01235",
    ),
    (
        Finding("stays", "kept", "1", "lstm", {"metric": "rank_ic_mean", "score": -0.5}),
        "version 1 (lstm) stays champion: best of this run with rank_ic_mean -0.50000",
    ),
    (
        Finding("beats", "promoted", "3", "ann", COMPARED),
        "version 3 (ann) with rank_ic_mean +0.01235 beats champion version 2 (lstm) with -0.50000 on "
        "the same dates",
    ),
    (
        Finding("not_better", "refused", "3", "ann", COMPARED | {"champion_score": 1}),
        "version 3 (ann) with rank_ic_mean +0.01235 refused: does not beat champion version 2 (lstm) "
        "with +1.00000 on the same dates",
    ),
    (
        Finding(
            "fitted_within_test",
            "warning",
            figures={
                "champion": "2",
                "fitted_last_session": "2017-06-01",
                "first_test_session": "2017-05-01",
            },
        ),
        "champion version 2 was fitted up to 2017-06-01, within the test dates that start 2017-05-01: "
        "its figure flatters it",
    ),
    (
        Finding("other_rows", "warning", figures={"champion": "2", "champion_rows": 940, "rows": 1000}),
        "champion version 2 was measured on 940 rows, the candidates on 1000: its window has "
        "another length",
    ),
    (
        Finding("no_champion", "warning"),
        "there is no champion: no version may be promoted",
    ),
    (
        Finding("baselines_not_beaten", "warning", figures={"baselines": UNBEATEN}),
        "the champion does NOT beat drift (rank_ic_mean 0.0200), always_up (direction_accuracy 0.5200): "
        "no skill is shown",
    ),
    (
        Finding(
            "within_noise",
            "warning",
            figures={"direction": 0.54, "low": 0.51, "high": 0.56, "always_up": 0.52},
        ),
        "the champion beats the baselines within noise only: its direction is right 54.0% of the time "
        "(51.0% to 56.0%), always_up's 52.0%",
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


@pytest.mark.parametrize(
    ("kind", "figures", "sentence"),
    [
        (
            "parity",
            {"parity": None, "max_parity": 1e-5},
            "version 3 (ann) refused: ONNX differs from torch by undefined, more than 1.0e-05",
        ),
        (
            "beats",
            COMPARED | {"champion_score": None},
            "version 3 (ann) with rank_ic_mean +0.01235 beats champion version 2 (lstm) with undefined "
            "on the same dates",
        ),
    ],
)
def test_a_figure_that_is_no_number_is_undefined_in_the_sentence(kind, figures, sentence):
    finding = Finding(kind, "refused", "3", "ann", figures)
    json.dumps(asdict(finding), allow_nan=False)
    assert describe(finding) == sentence
