import json
import math

import pytest

from pitwise.registry.findings import Finding, describe
from training.gate import Candidate, Decision, decide

METRIC = "skill_vs_persistence"
FIRST_TEST = "2017-06-01"
BASELINES = {
    "persistence": {METRIC: 0.0, "direction_accuracy": None, "rank_ic_mean": None},
    "drift": {METRIC: 0.001, "direction_accuracy": 0.52, "rank_ic_mean": None},
    "always_up": {METRIC: None, "direction_accuracy": 0.52, "rank_ic_mean": None},
    "gradient_boosting": {METRIC: 0.002, "direction_accuracy": 0.51, "rank_ic_mean": 0.02},
}


def candidate(version, skill, parity=1e-7, fitted="2016-12-30", direction=0.54, rows=1000) -> Candidate:
    figures = {METRIC: skill, "direction_accuracy": direction, "rank_ic_mean": 0.03}
    return Candidate(version, "ann", parity, figures, fitted, rows)


def decided(*candidates, champion=None, baselines=BASELINES, metric=METRIC) -> Decision:
    return decide(candidates, champion, baselines, FIRST_TEST, metric, max_parity=1e-5)


def text(decision: Decision) -> str:
    return "\n".join(describe(finding) for finding in decision.findings)


def kinds(decision: Decision) -> list[str]:
    return [finding.kind for finding in decision.findings]


def test_the_best_of_the_first_run_becomes_champion():
    decision = decided(candidate("1", 0.003), candidate("2", 0.005))
    assert (decision.champion, decision.challenger, decision.promoted) == ("2", "1", True)
    assert decision.beats_baselines
    assert "version 2 (ann) becomes the first champion" in text(decision)
    assert "+0.00500" in text(decision)


def test_a_better_challenger_is_promoted_and_the_old_champion_challenges():
    decision = decided(candidate("3", 0.006), candidate("4", 0.003), champion=candidate("2", 0.005))
    assert (decision.champion, decision.challenger, decision.promoted) == ("3", "2", True)
    assert "version 3 (ann) with" in text(decision)
    assert "beats champion version 2" in text(decision)


def test_a_better_sibling_challenges_before_the_old_champion():
    decision = decided(candidate("3", 0.007), candidate("4", 0.006), champion=candidate("2", 0.005))
    assert (decision.champion, decision.challenger) == ("3", "4")


@pytest.mark.parametrize("skill", [0.004, 0.005])
def test_a_model_that_is_not_better_is_refused(skill):
    decision = decided(candidate("3", skill), champion=candidate("2", 0.005))
    assert (decision.champion, decision.challenger, decision.promoted) == ("2", "3", False)
    assert "refused: does not beat champion version 2" in text(decision)
    assert "+0.00500 on the same dates" in text(decision)


@pytest.mark.parametrize("parity", [2e-5, math.nan, math.inf])
def test_a_model_that_fails_parity_is_refused_however_good(parity):
    decision = decided(candidate("1", 0.003), candidate("2", 0.9, parity=parity))
    assert (decision.champion, decision.challenger) == ("1", None)
    assert "version 2 (ann) refused: ONNX differs from torch" in text(decision)


def test_parity_at_the_bound_is_let_through():
    assert decided(candidate("1", 0.003, parity=1e-5)).champion == "1"


def test_an_undefined_figure_is_refused():
    decision = decided(candidate("1", None), candidate("2", -0.5))
    assert (decision.champion, decision.challenger) == ("2", None)
    assert f"version 1 (ann) refused: its {METRIC} is not defined" in text(decision)


def test_a_figure_that_is_not_a_number_never_becomes_champion():
    decision = decided(candidate("1", math.nan), candidate("2", 0.003))
    assert (decision.champion, decision.challenger) == ("2", None)


def test_a_champion_whose_figure_is_not_a_number_does_not_stay_champion_for_ever():
    assert decided(candidate("3", 0.003), champion=candidate("2", math.nan)).champion == "3"


def test_a_champion_without_a_figure_gives_way():
    decision = decided(candidate("3", -0.1), champion=candidate("2", None))
    assert (decision.champion, decision.promoted) == ("3", True)


def test_the_champion_among_the_candidates_stays():
    champion = candidate("1", 0.005)
    decision = decided(champion, candidate("2", 0.003), champion=champion)
    assert (decision.champion, decision.challenger, decision.promoted) == ("1", "2", False)
    assert "version 1 (ann) stays champion" in text(decision)


def test_a_better_sibling_of_the_champion_takes_its_place():
    champion = candidate("1", 0.005)
    decision = decided(champion, candidate("2", 0.006), champion=champion)
    assert (decision.champion, decision.challenger, decision.promoted) == ("2", "1", True)


def test_a_champion_fitted_within_the_test_dates_is_noted():
    within = candidate("1", 0.005, fitted=FIRST_TEST)
    decision = decided(candidate("2", 0.003), champion=within)
    assert "version 1 was fitted up to 2017-06-01, within the test dates" in text(decision)
    before = candidate("1", 0.005, fitted="2017-05-31")
    assert "within the test dates" not in text(decided(candidate("2", 0.003), champion=before))


def test_baselines_that_are_not_beaten_are_named():
    decision = decided(candidate("1", 0.001, direction=0.52))
    assert decision.champion == "1"
    assert not decision.beats_baselines
    assert "does NOT beat drift" in text(decision)
    assert "always_up (direction_accuracy 0.5200)" in text(decision)
    assert "gradient_boosting" in text(decision)
    assert "persistence (" not in text(decision)


def test_losing_to_persistence_is_a_finding():
    decision = decided(candidate("1", -0.01))
    assert not decision.beats_baselines
    assert "NOT beat persistence (" in text(decision)


def test_beating_the_prices_but_not_the_direction_is_not_beating_the_baselines():
    decision = decided(candidate("1", 0.9, direction=0.51))
    assert not decision.beats_baselines
    assert "persistence (" not in text(decision)
    assert "always_up" in text(decision)


def test_another_metric_compares_by_it():
    first, second = candidate("1", 0.9, direction=0.51), candidate("2", 0.1, direction=0.55)
    decision = decided(first, second, metric="direction_accuracy")
    assert (decision.champion, decision.beats_baselines) == ("2", True)


def test_no_candidate_fit_to_compare_leaves_the_champion():
    decision = decided(candidate("3", 0.9, parity=1.0), champion=candidate("2", 0.005))
    assert (decision.champion, decision.challenger, decision.promoted) == ("2", None, False)


def test_no_candidate_fit_and_no_champion_promotes_nothing():
    decision = decided(candidate("1", 0.9, parity=1.0), candidate("2", None))
    assert (decision.champion, decision.challenger, decision.promoted) == (None, None, False)
    assert not decision.beats_baselines
    assert "there is no champion" in text(decision)


def test_a_champion_measured_on_other_rows_than_the_candidates_is_a_finding():
    champion = candidate("2", 0.005, rows=940)
    assert "measured on 940 rows, the candidates on 1000" in text(
        decided(candidate("3", 0.004), champion=champion)
    )
    assert "rows" not in text(decided(candidate("3", 0.004), champion=candidate("2", 0.005)))


@pytest.mark.parametrize(("interval", "by_chance"), [((0.51, 0.56), True), ((0.525, 0.56), False)])
def test_a_lead_that_may_be_chance_is_a_finding(interval, by_chance):
    best = candidate("1", 0.005)
    best.figures["direction_accuracy_ci95"] = interval
    decision = decided(best)
    assert decision.beats_baselines is not by_chance
    assert ("beats the baselines within noise only" in text(decision)) is by_chance
    assert not by_chance or "54.0% of the time (51.0% to 56.0%), always_up's 52.0%" in text(decision)


# The findings as data


def test_the_findings_of_a_promotion_are_the_figures_that_were_compared():
    candidates = candidate("3", 0.006), candidate("4", 0.9, parity=1.0)
    decision = decided(*candidates, champion=candidate("2", 0.005))
    refused = {"parity": 1.0, "max_parity": 1e-5}
    compared = {
        "metric": METRIC,
        "score": 0.006,
        "champion": "2",
        "champion_kind": "ann",
        "champion_score": 0.005,
    }
    assert decision.findings == [
        Finding("parity", "refused", "4", "ann", refused),
        Finding("beats", "promoted", "3", "ann", compared),
    ]


@pytest.mark.parametrize(
    ("candidates", "champion", "verdicts"),
    [
        ([("1", 0.003)], None, [("first", "promoted", "1")]),
        ([("1", 0.005)], ("1", 0.005), [("stays", "kept", "1")]),
        ([("3", 0.006)], ("2", 0.005), [("beats", "promoted", "3")]),
        ([("3", 0.004)], ("2", 0.005), [("not_better", "refused", "3")]),
        ([("3", None)], ("2", 0.005), [("undefined", "refused", "3")]),
        ([("3", None)], None, [("undefined", "refused", "3"), ("no_champion", "warning", None)]),
    ],
)
def test_each_comparison_has_its_kind_and_verdict(candidates, champion, verdicts):
    decision = decided(*(candidate(*c) for c in candidates), champion=champion and candidate(*champion))
    assert [(f.kind, f.verdict, f.version) for f in decision.findings] == verdicts


def test_what_makes_a_figure_doubtful_is_a_warning_of_the_champion():
    champion = candidate("2", 0.001, fitted=FIRST_TEST, direction=0.52, rows=940)
    decision = decided(candidate("3", -0.5), champion=champion)
    assert kinds(decision) == ["not_better", "fitted_within_test", "other_rows", "baselines_not_beaten"]
    warnings = decision.findings[1:]
    assert {(f.verdict, f.version) for f in warnings} == {("warning", None)}
    assert warnings[0].figures == {
        "champion": "2",
        "fitted_last_session": FIRST_TEST,
        "first_test_session": FIRST_TEST,
    }
    assert warnings[1].figures == {"champion": "2", "champion_rows": 940, "rows": 1000}
    assert warnings[2].figures["baselines"] == [
        {"name": "drift", "metric": METRIC, "value": 0.001},
        {"name": "always_up", "metric": "direction_accuracy", "value": 0.52},
        {"name": "gradient_boosting", "metric": METRIC, "value": 0.002},
    ]


def test_a_chance_lead_has_the_interval_and_the_baseline_it_holds():
    best = candidate("1", 0.005)
    best.figures["direction_accuracy_ci95"] = (0.51, 0.56)
    assert decided(best).findings[-1] == Finding(
        "within_noise",
        "warning",
        figures={"direction": 0.54, "low": 0.51, "high": 0.56, "always_up": 0.52},
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_figures_that_are_not_finite_are_none_so_that_json_holds_them(value):
    refused = decided(candidate("1", 0.9, parity=value)).findings[0]
    assert refused.figures == {"parity": None, "max_parity": 1e-5}
    over = decided(candidate("3", 0.003), champion=candidate("2", math.nan)).findings[0]
    assert over.figures["champion_score"] is None
    json.dumps([refused.figures, over.figures], allow_nan=False)
