import math

import pytest

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


def told(decision: Decision) -> str:
    return "\n".join(decision.reasons)


def test_the_best_of_the_first_run_becomes_champion():
    decision = decided(candidate("1", 0.003), candidate("2", 0.005))
    assert (decision.champion, decision.challenger, decision.promoted) == ("2", "1", True)
    assert decision.beats_baselines
    assert "version 2 (ann) becomes the first champion" in told(decision)
    assert "+0.00500" in told(decision)


def test_a_better_challenger_is_promoted_and_the_old_champion_challenges():
    decision = decided(candidate("3", 0.006), candidate("4", 0.003), champion=candidate("2", 0.005))
    assert (decision.champion, decision.challenger, decision.promoted) == ("3", "2", True)
    assert "version 3 (ann) with" in told(decision)
    assert "beats champion version 2" in told(decision)


def test_a_better_sibling_challenges_before_the_old_champion():
    decision = decided(candidate("3", 0.007), candidate("4", 0.006), champion=candidate("2", 0.005))
    assert (decision.champion, decision.challenger) == ("3", "4")


@pytest.mark.parametrize("skill", [0.004, 0.005])
def test_a_model_that_is_not_better_is_refused(skill):
    decision = decided(candidate("3", skill), champion=candidate("2", 0.005))
    assert (decision.champion, decision.challenger, decision.promoted) == ("2", "3", False)
    assert "refused: does not beat champion version 2" in told(decision)
    assert "+0.00500 on the same dates" in told(decision)


@pytest.mark.parametrize("parity", [2e-5, math.nan, math.inf])
def test_a_model_that_fails_parity_is_refused_however_good(parity):
    decision = decided(candidate("1", 0.003), candidate("2", 0.9, parity=parity))
    assert (decision.champion, decision.challenger) == ("1", None)
    assert "version 2 (ann) refused: ONNX differs from torch" in told(decision)


def test_parity_at_the_bound_is_let_through():
    assert decided(candidate("1", 0.003, parity=1e-5)).champion == "1"


def test_an_undefined_figure_is_refused():
    decision = decided(candidate("1", None), candidate("2", -0.5))
    assert (decision.champion, decision.challenger) == ("2", None)
    assert f"version 1 (ann) refused: its {METRIC} is not defined" in told(decision)


def test_a_figure_that_is_not_a_number_never_becomes_champion():
    decision = decided(candidate("1", math.nan), candidate("2", 0.003))
    assert (decision.champion, decision.challenger) == ("2", None)


def test_a_champion_whose_figure_is_not_a_number_does_not_hold_the_office_for_ever():
    assert decided(candidate("3", 0.003), champion=candidate("2", math.nan)).champion == "3"


def test_a_champion_without_a_figure_gives_way():
    decision = decided(candidate("3", -0.1), champion=candidate("2", None))
    assert (decision.champion, decision.promoted) == ("3", True)


def test_the_champion_among_the_candidates_stays():
    champion = candidate("1", 0.005)
    decision = decided(champion, candidate("2", 0.003), champion=champion)
    assert (decision.champion, decision.challenger, decision.promoted) == ("1", "2", False)
    assert "version 1 (ann) stays champion" in told(decision)


def test_a_sibling_of_the_champion_takes_its_office():
    champion = candidate("1", 0.005)
    decision = decided(champion, candidate("2", 0.006), champion=champion)
    assert (decision.champion, decision.challenger, decision.promoted) == ("2", "1", True)


def test_a_champion_fitted_within_the_test_dates_is_noted():
    within = candidate("1", 0.005, fitted=FIRST_TEST)
    decision = decided(candidate("2", 0.003), champion=within)
    assert "version 1 was fitted up to 2017-06-01, within the test dates" in told(decision)
    before = candidate("1", 0.005, fitted="2017-05-31")
    assert "within the test dates" not in told(decided(candidate("2", 0.003), champion=before))


def test_it_is_said_plainly_which_baselines_are_not_beaten():
    decision = decided(candidate("1", 0.001, direction=0.52))
    assert decision.champion == "1"
    assert not decision.beats_baselines
    assert "does NOT beat drift" in told(decision)
    assert "always_up (direction_accuracy 0.5200)" in told(decision)
    assert "gradient_boosting" in told(decision)
    assert "persistence (" not in told(decision)


def test_losing_to_persistence_is_said():
    decision = decided(candidate("1", -0.01))
    assert not decision.beats_baselines
    assert "NOT beat persistence (" in told(decision)


def test_beating_the_prices_but_not_the_direction_is_not_beating_the_baselines():
    decision = decided(candidate("1", 0.9, direction=0.51))
    assert not decision.beats_baselines
    assert "persistence (" not in told(decision)
    assert "always_up" in told(decision)


def test_another_metric_compares_by_it():
    first, second = candidate("1", 0.9, direction=0.51), candidate("2", 0.1, direction=0.55)
    decision = decided(first, second, metric="direction_accuracy")
    assert (decision.champion, decision.beats_baselines) == ("2", True)


def test_nothing_fit_leaves_the_champion_in_office():
    decision = decided(candidate("3", 0.9, parity=1.0), champion=candidate("2", 0.005))
    assert (decision.champion, decision.challenger, decision.promoted) == ("2", None, False)


def test_nothing_fit_and_no_champion_promotes_nothing():
    decision = decided(candidate("1", 0.9, parity=1.0), candidate("2", None))
    assert (decision.champion, decision.challenger, decision.promoted) == (None, None, False)
    assert not decision.beats_baselines
    assert "there is no champion" in told(decision)


def test_a_champion_measured_on_other_rows_than_the_candidates_is_told():
    champion = candidate("2", 0.005, rows=940)
    assert "measured on 940 rows, the candidates on 1000" in told(
        decided(candidate("3", 0.004), champion=champion)
    )
    assert "rows" not in told(decided(candidate("3", 0.004), champion=candidate("2", 0.005)))


@pytest.mark.parametrize(("interval", "lucky"), [((0.51, 0.56), True), ((0.525, 0.56), False)])
def test_a_lead_that_may_be_luck_is_told_as_such(interval, lucky):
    best = candidate("1", 0.005)
    best.figures["direction_accuracy_ci95"] = interval
    decision = decided(best)
    assert decision.beats_baselines is not lucky
    assert ("no more than luck may" in told(decision)) is lucky
    assert not lucky or "54.0% of the time (51.0% to 56.0%), always_up's 52.0%" in told(decision)
