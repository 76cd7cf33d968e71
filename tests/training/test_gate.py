"""The gate's rules, on sessions' rank ICs made by hand."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from pitwise.registry.findings import describe
from training.gate import Candidate, Decision, Rules, WalkForward, decide

pytestmark = pytest.mark.unit

RULES = Rules(alpha=0.025, margin=0.01, min_sessions=20, max_parity=1e-5, samples=400, seed=7)
DAYS = pd.bdate_range("2016-01-04", periods=400)
TEST = pd.bdate_range("2017-06-01", periods=100)
RNG = np.random.default_rng(3)
NOISE = pd.Series(RNG.normal(0, 0.1, len(DAYS)), DAYS)
"""Of a session's rank IC; what two recipes share of it cancels where they are compared."""
OWN = pd.Series(RNG.normal(0, 0.01, len(DAYS)), DAYS)
OWN -= OWN.mean()
OF_TEST = pd.Series(RNG.normal(0, 0.1, len(TEST)), TEST)


def candidate(version, recipe="a", skill=0.0, loss=1.0, fitted="2017-05-25", **others) -> Candidate:
    rank_ic = OF_TEST + skill
    given = {"onnx_parity": 1e-7, "rank_ic": rank_ic} | others
    return Candidate(version, "ann", recipe, validation_loss=loss, fitted_last_session=fitted, **given)


def walked(baseline: float = 0.0, **recipes: float) -> WalkForward:
    """Recipes with a mean rank IC each, beside two baselines of which the better one has `baseline`."""
    noise = NOISE - NOISE.mean()
    return WalkForward(
        {name: noise + mean + OWN for name, mean in recipes.items()},
        {"ridge": noise + baseline, "drift": noise - 0.5},
    )


def decided(*candidates, champion=None, evidence=None, rules=RULES) -> Decision:
    decision = decide(candidates, champion, evidence, rules)
    json.dumps(asdict(decision), allow_nan=False)
    assert all(describe(finding) for finding in decision.findings)
    return decision


def verdicts(decision: Decision) -> list[tuple]:
    return [(f.kind, f.verdict, f.version) for f in decision.findings if f.verdict != "warning"]


def outcome(decision: Decision) -> tuple:
    return decision.champion, decision.challenger, decision.promoted, decision.unproven


# The first champion


def test_the_first_takes_office_unproven_by_its_validation_loss():
    decision = decided(candidate("1", loss=0.9), candidate("2", "b", loss=0.8))
    assert outcome(decision) == ("2", "1", True, True)
    assert verdicts(decision) == [("first", "promoted", "2")]


def test_the_first_is_the_best_of_the_walk_forward_and_proven_where_it_beats_the_baseline():
    both = candidate("1", loss=0.9), candidate("2", "b", loss=0.8)
    assert outcome(decided(*both, evidence=walked(a=0.03, b=0.01))) == ("1", "2", True, False)
    assert outcome(decided(*both, evidence=walked(0.05, a=0.03, b=0.01))) == ("1", "2", True, True)


@pytest.mark.parametrize(
    "broken", [{"onnx_parity": 2e-5}, {"onnx_parity": math.nan}, {"loss": math.nan}]
)
def test_a_broken_model_never_becomes_champion(broken):
    assert outcome(decided(candidate("1"), candidate("2", "b", **broken))) == ("1", None, True, True)
    nobody = decided(candidate("2", **broken))
    assert outcome(nobody) == (None, None, False, True)
    assert nobody.findings[-1].kind == "no_champion"
    kept = decided(candidate("2", "b", **broken), champion=candidate("1"), evidence=walked(a=0, b=0.1))
    assert outcome(kept)[:3] == ("1", None, False)


# A new recipe


@pytest.mark.parametrize(
    ("ours", "theirs", "baseline", "kind"),
    [
        (0.03, 0.01, 0.01, "better"),
        (0.03, 0.01, 0.04, "baseline_not_beaten"),
        (0.03, 0.03, 0.01, "not_better"),
        (0.03, 0.05, 0.01, "not_better"),
    ],
)
def test_a_new_recipe_must_beat_both_the_champions_and_the_best_baseline(ours, theirs, baseline, kind):
    new, champion = candidate("2", "b"), candidate("1")
    evidence = walked(baseline, b=ours)
    evidence.rank_ic["a"] = NOISE - NOISE.mean() + theirs
    decision = decided(new, champion=champion, evidence=evidence)
    promoted = kind == "better"
    assert verdicts(decision) == [(kind, "promoted" if promoted else "refused", "2")]
    assert outcome(decision)[:3] == (("2", "1", True) if promoted else ("1", "2", False))


def test_a_better_test_split_alone_promotes_nothing():
    """The dates that a person looks at most decide nothing about recipes."""
    lucky, champion = candidate("2", "b", skill=0.5), candidate("1")
    assert verdicts(decided(lucky, champion=champion)) == [("no_evidence", "refused", "2")]
    decision = decided(lucky, champion=champion, evidence=walked(0.01, a=0.02, b=0.02))
    assert not decision.promoted


def test_a_champion_of_a_recipe_that_is_made_no_more_is_compared_on_dates_it_has_not_seen():
    old = candidate("1", "gone", fitted="2017-03-01")
    evidence = walked(0.0, b=0.03)
    better = candidate("2", "b", rank_ic=OF_TEST + 0.05 + OWN.to_numpy()[:100])
    assert verdicts(decided(better, champion=old, evidence=evidence)) == [("better", "promoted", "2")]
    as_good = candidate("2", "b", rank_ic=OF_TEST)
    assert verdicts(decided(as_good, champion=old, evidence=evidence)) == [
        ("not_better", "refused", "2")
    ]
    has_seen = replace(old, fitted_last_session=f"{TEST[-10]:%Y-%m-%d}")
    assert verdicts(decided(better, champion=has_seen, evidence=evidence)) == [
        ("too_few", "refused", "2")
    ]


def test_of_two_better_recipes_the_better_one_is_promoted():
    decision = decided(
        candidate("2", "b"),
        candidate("3", "c"),
        champion=candidate("1"),
        evidence=walked(a=0, b=0.02, c=0.03),
    )
    assert sorted(verdicts(decision)) == [("behind", "refused", "2"), ("better", "promoted", "3")]
    assert (decision.champion, decision.challenger) == ("3", "1")


# A refit of the champion's own recipe


@pytest.mark.parametrize(
    ("worse_by", "kind"), [(0.0, "refit"), (0.005, "refit"), (0.012, "may_be_worse")]
)
def test_a_refit_takes_over_unless_it_may_be_worse_by_the_margin(worse_by, kind):
    noise = OWN.to_numpy()[:100] - OWN.to_numpy()[:100].mean()
    refit = candidate("2", rank_ic=OF_TEST - worse_by + noise)
    decision = decided(refit, champion=candidate("1", fitted="2017-03-01"))
    assert [f[0] for f in verdicts(decision)] == [kind]
    assert decision.promoted is (kind == "refit")


def test_a_champion_that_has_seen_the_dates_may_not_defend_on_them():
    saw = candidate("1", skill=0.5, fitted=f"{TEST[-1]:%Y-%m-%d}")
    stands = decided(candidate("2", rank_ic=OF_TEST * 0.01), champion=saw)
    assert verdicts(stands) == [("refit", "promoted", "2")]
    assert stands.findings[0].figures["against"] == "chance"
    harmful = decided(candidate("2", rank_ic=OF_TEST * 0.01 - 0.02), champion=saw)
    assert verdicts(harmful) == [("may_be_worse", "refused", "2")]


def test_too_few_sessions_that_neither_has_seen_give_no_verdict():
    refit = candidate("2", rank_ic=OF_TEST[:19])
    decision = decided(refit, champion=candidate("1", fitted="2017-03-01"))
    assert verdicts(decision) == [("too_few", "refused", "2")]
    assert outcome(decision) == ("1", "2", False, True)


def test_what_was_forecast_in_the_shadow_must_not_speak_against_a_refit():
    log = pd.Series(OF_TEST.to_numpy(), TEST)
    champion = candidate("1", fitted="2017-03-01", logged_rank_ic=log)
    worse = candidate("2", logged_rank_ic=log - 0.05)
    assert verdicts(decided(worse, champion=champion)) == [("shadow_worse", "refused", "2")]
    too_short = candidate("2", logged_rank_ic=(log - 0.05)[:19])
    assert verdicts(decided(too_short, champion=champion)) == [("refit", "promoted", "2")]


def test_the_champion_made_again_stays():
    champion = candidate("1")
    decision = decided(champion, candidate("2", "b"), champion=champion)
    assert outcome(decision) == ("1", "2", False, True)
    assert verdicts(decision) == [("stays", "kept", "1"), ("no_evidence", "refused", "2")]


# Another horizon


def test_a_champion_of_another_horizon_gives_way_to_the_best_of_the_run():
    """It answers another question, however well."""
    champion = candidate("1", skill=0.5)
    new = [candidate(v, r, loss=loss, horizon=5) for v, r, loss in (("2", "b", 0.9), ("3", "c", 0.8))]
    decision = decided(*new, champion=champion, evidence=walked(a=0.1, b=-0.1))
    assert outcome(decision) == ("2", "1", True, True)
    assert verdicts(decision) == [("other_horizon", "promoted", "2")]
    says = describe(decision.findings[0])
    assert "label.horizon is 5, and champion version 1 was made for 1" in says
    broken = [replace(one, onnx_parity=math.nan) for one in new]
    assert decided(*broken, champion=champion).champion == "1"


def test_sessions_whose_labels_overlap_show_less():
    """Twenty sessions share a label's days: the mean of as many has a wider interval."""
    shared = np.convolve(np.random.default_rng(2).normal(0, 0.02, 119), np.ones(20), "valid")
    shared = pd.Series(shared - shared.mean(), TEST)
    lows = [
        decided(
            candidate("2", rank_ic=OF_TEST + shared, horizon=horizon),
            champion=candidate("1", fitted="2017-03-01", horizon=horizon),
        )
        .findings[0]
        .figures["low"]
        for horizon in (1, 20)
    ]
    assert lows[1] < 1.2 * lows[0] < 0


# Its error rate


def promotions(draws: int, skill: float) -> int:
    """How often one of two recipes is promoted that are better than the champion's by `skill`.

    The baseline is beaten by far, so that the comparison with the champion alone decides.
    """
    rng, rules = np.random.default_rng(11), RULES._replace(samples=200)
    count = 0
    for _ in range(draws):
        # Rank ICs of 400 sessions of 60 names each, of which all forecasts share a half.
        shared = rng.normal(0, 60**-0.5, 400)
        ic = [pd.Series(0.7 * (shared + rng.normal(0, 60**-0.5, 400)), DAYS) for _ in range(3)]
        recipes = {"a": ic[0], "b": ic[1] + skill, "c": ic[2]}
        new = candidate("2", "b"), candidate("3", "c")
        evidence = WalkForward(recipes, {"ridge": shared_baseline(shared)})
        count += decide(new, candidate("1"), evidence, rules).promoted
    return count


def shared_baseline(shared: np.ndarray) -> pd.Series:
    return pd.Series(0.7 * shared - 0.5, DAYS)


def test_where_nothing_is_better_it_promotes_at_most_at_its_stated_rate():
    assert promotions(200, 0.0) <= 200 * RULES.alpha


def test_a_recipe_that_is_better_is_promoted():
    assert promotions(20, 0.06) >= 18
