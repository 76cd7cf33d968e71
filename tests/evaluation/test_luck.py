import math

import numpy as np
import pandas as pd
import pytest

from pitwise.evaluation import luck
from pitwise.evaluation.luck import Track

DAILY = 250
"""Sessions in a year, as the papers count them."""
PUBLISHED = Track(sharpe=2.5 / math.sqrt(DAILY), skewness=-3, kurtosis=10, n=1250)
"""Bailey and López de Prado (2014), section "A numerical example": 2.5 a year over five years."""


def test_a_track_by_hand():
    # Mean 0.01, deviations (0, -2, 1, 1) / 100. Squares 6e-4: / 3 is 2e-4, / 4 is 1.5e-4. Cubes
    # -6e-6 / 4 = -1.5e-6, fourth powers 18e-8 / 4 = 4.5e-8.
    found = luck.track(pd.Series([0.01, -0.01, math.nan, 0.02, 0.02]))
    assert found.sharpe == pytest.approx(0.01 / math.sqrt(2e-4))
    assert found.skewness == pytest.approx(-1.5e-6 / 1.5e-4**1.5)
    assert found.kurtosis == pytest.approx(4.5e-8 / 1.5e-4**2)
    assert found.n == 4


@pytest.mark.parametrize("returns", [[], [0.01], [0.02, 0.02, 0.02], [math.nan, 0.01]])
def test_returns_that_do_not_vary_have_no_track(returns):
    assert luck.track(np.array(returns)) is None


def test_the_probabilistic_sharpe_ratio_is_as_published():
    # Bailey and López de Prado (2012): 24 months at 0.458 with skewness -2.448 and kurtosis 10.164 are
    # above 0 with 91.3%; were they normal, with 98.2%.
    assert luck.probabilistic_sharpe_ratio(Track(0.458, -2.448, 10.164, 24)) == pytest.approx(
        0.913, abs=0.0005
    )
    assert luck.probabilistic_sharpe_ratio(Track(0.458, 0, 3, 24)) == pytest.approx(0.982, abs=0.0005)


def test_the_probabilistic_sharpe_ratio_by_hand():
    # (0.5 - 0.1) * sqrt(16 / (1 + 0.5 * 0.25)) = 1.50849; the normal distribution function there.
    of = Track(0.5, 0, 3, 17)
    expected = 0.5 * (1 + math.erf(0.4 * math.sqrt(16 / 1.125) / math.sqrt(2)))
    assert luck.probabilistic_sharpe_ratio(of, 0.1) == pytest.approx(expected)
    assert luck.probabilistic_sharpe_ratio(of, 0.5) == 0.5


def test_the_deflated_sharpe_ratio_is_as_published():
    # A hundred trials whose yearly Sharpe ratios have the variance 1/2: 0.1132 a day is to be expected
    # of the best, and 2.5 a year is above 0 with 90.0%; of 46 trials with 95.05%; were the returns
    # normal, of 88 trials with about 95%.
    variance = 0.5 / DAILY
    normal = Track(PUBLISHED.sharpe, 0, 3, 1250)
    assert luck.expected_max_sharpe_ratio(100, variance) == pytest.approx(0.1132, abs=0.00005)
    assert luck.deflated_sharpe_ratio(PUBLISHED, 100, variance) == pytest.approx(0.9004, abs=0.00005)
    assert luck.deflated_sharpe_ratio(PUBLISHED, 46, variance) == pytest.approx(0.9505, abs=0.00005)
    assert luck.deflated_sharpe_ratio(normal, 88, variance) == pytest.approx(0.9505, abs=0.00005)


@pytest.mark.parametrize(("n", "maximum"), [(10, 1.53875), (100, 2.50759), (1000, 3.24144)])
def test_the_expected_maximum_is_near_the_normal_order_statistics(n, maximum):
    """The largest of n standard normal values, as tables of order statistics have it."""
    assert luck.expected_max_sharpe_ratio(n, 1.0) == pytest.approx(maximum, rel=0.025)
    assert luck.expected_max_sharpe_ratio(n, 0.04) == pytest.approx(0.2 * maximum, rel=0.025)


def test_one_try_is_no_choice():
    assert luck.expected_max_sharpe_ratio(1, 0.1) == 0
    assert luck.deflated_sharpe_ratio(PUBLISHED, 1, 0.1) == luck.probabilistic_sharpe_ratio(PUBLISHED)


def test_the_best_of_twenty_worthless_tries_fools_the_one_and_not_the_other():
    rng = np.random.default_rng(11)
    probabilistic, deflated = [], []
    for _ in range(300):
        tracks = [luck.track(tried) for tried in rng.normal(0, 0.01, (20, 250))]
        variance = np.var([one.sharpe for one in tracks], ddof=1)
        best = max(tracks, key=lambda one: one.sharpe)
        probabilistic.append(luck.probabilistic_sharpe_ratio(best) > 0.95)
        deflated.append(luck.deflated_sharpe_ratio(best, 20, variance) > 0.95)
    # One of twenty is above its 95% point in 1 - 0.95^20 = 64% of all cases.
    assert np.mean(probabilistic) == pytest.approx(0.64, abs=0.08)
    assert np.mean(deflated) <= 0.05


def test_a_track_that_is_worth_something_survives_its_trials():
    returns = np.random.default_rng(1).normal(0.002, 0.01, 750)
    assert luck.deflated_sharpe_ratio(luck.track(returns), 20, 1 / 750) > 0.95


def noisy_copies(counts: list[int], noise: float, seed: int = 0) -> pd.DataFrame:
    """Independent ideas, each tried as often as its count says, with the deviation of its noise."""
    rng = np.random.default_rng(seed)
    ideas = rng.normal(size=(500, len(counts)))
    tried = np.repeat(ideas, counts, axis=1)
    return pd.DataFrame(tried + noise * rng.normal(size=tried.shape))


@pytest.mark.parametrize("counts", [[1], [12], [4, 2, 1], [10, 10], [1] * 30])
def test_effective_trials_are_the_ideas(counts):
    # Noise of half the idea's deviation: two tries of one idea correlate 1 / 1.25 = 0.8.
    assert luck.effective_trials(noisy_copies(counts, 0.5)) == len(counts)


def test_tries_that_hardly_correlate_are_each_their_own():
    # 1 / (1 + 4) = 0.2, below the limit of 0.5; above one of 0.1.
    tries = noisy_copies([8], 2.0)
    assert luck.effective_trials(tries) == 8
    assert luck.effective_trials(tries, alike=0.1) == 1


def test_the_opposite_of_a_try_is_another_try():
    tries = noisy_copies([1], 0.0)
    assert luck.effective_trials(pd.concat([tries, -tries], axis=1, ignore_index=True)) == 2


def test_identical_tries_and_those_without_returns():
    one = noisy_copies([1], 0.0)[0]
    assert luck.effective_trials(pd.DataFrame({"a": one, "b": one, "c": 2 * one})) == 1
    assert luck.effective_trials(pd.DataFrame({"a": one, "b": 0.0, "c": math.nan})) == 3
    assert luck.effective_trials(pd.DataFrame(index=range(5))) == 0


def test_tries_of_other_sessions_are_compared_on_those_they_share():
    tries = noisy_copies([2, 1], 0.5)
    tries.iloc[:200, 0] = tries.iloc[400:, 1] = math.nan
    assert luck.effective_trials(tries) == 2


def test_the_minimum_detectable_ic_by_hand():
    # (1.959964 + 0.841621) * 0.125 / sqrt(142) = 0.029388.
    assert luck.minimum_detectable_ic(142, 0.125) == pytest.approx(0.029388, abs=1e-6)
    # Of 710 overlapping labels of five sessions 142 are independent.
    assert luck.minimum_detectable_ic(710, 0.125, horizon=5) == pytest.approx(0.029388, abs=1e-6)
    # At an even chance of being seen it is the 95% point: 1.959964 * 0.0104897.
    assert luck.minimum_detectable_ic(142, 0.125, power=0.5) == pytest.approx(0.020560, abs=1e-6)


def test_an_ic_of_the_minimum_is_seen_with_the_stated_power():
    rng = np.random.default_rng(2)
    smallest = luck.minimum_detectable_ic(250, 0.1)
    mean = rng.normal(smallest, 0.1, (4000, 250)).mean(axis=1)
    assert np.mean(np.abs(mean) > 1.959964 * 0.1 / math.sqrt(250)) == pytest.approx(0.8, abs=0.02)


def confidence_set(ic: pd.DataFrame, level: float = 0.1) -> dict:
    return luck.model_confidence_set(ic, horizon=1, samples=500, seed=7, level=level)


def included(found: dict) -> set[str]:
    return {kind for kind, of in found.items() if of["included"]}


@pytest.fixture
def chance() -> pd.DataFrame:
    """Rank ICs of three kinds, of which what they share is larger than what tells them apart."""
    rng = np.random.default_rng(9)
    shared = rng.normal(0, 0.1, (400, 1))
    return pd.DataFrame(shared + rng.normal(0, 0.03, (400, 3)), columns=list("abc"))


def test_a_better_kind_is_alone_in_the_confidence_set(chance):
    # 0.01 is 0.1 of the shared deviation, and 4.7 standard errors of the difference in pairs.
    assert included(confidence_set(chance.assign(b=chance["b"] + 0.01))) == {"b"}


def test_a_worse_kind_is_not_in_the_confidence_set(chance):
    found = confidence_set(chance.assign(c=chance["c"] - 0.02))
    assert "c" not in included(found)
    assert included(found) >= {"a"} or included(found) >= {"b"}
    assert found["c"]["p_value"] <= 0.1 < max(of["p_value"] for of in found.values())


def test_the_best_kind_is_kept_as_often_as_the_level_says():
    rng = np.random.default_rng(12)
    kept = []
    for _ in range(60):
        ic = pd.DataFrame(rng.normal(0, 0.1, (120, 3)), columns=list("abc"))
        found = luck.model_confidence_set(ic, horizon=1, samples=200, seed=0, level=0.1)
        kept.append(found["a"]["included"])
    # All are equally good, so that each is in the set in at least 90% of all cases.
    assert np.mean(kept) >= 0.85


def test_identical_kinds_are_in_the_confidence_set_together(chance):
    found = confidence_set(chance.assign(b=chance["b"] + 0.02, d=chance["b"] + 0.02))
    assert included(found) == {"b", "d"}
    assert found["b"] == found["d"]


def test_kinds_without_figures_are_no_members(chance):
    assert set(confidence_set(chance.assign(c=math.nan))) == {"a", "b"}
    assert confidence_set(chance[["a"]]) == {"a": {"p_value": 1.0, "included": True}}
    assert confidence_set(chance.assign(a=math.nan, b=math.nan, c=math.nan)) == {}
    assert confidence_set(chance.head(1)) == {}


def test_sessions_that_one_kind_lacks_are_left_out(chance):
    lacking = chance.copy()
    lacking.loc[:9, "a"] = math.nan
    assert confidence_set(lacking) == confidence_set(chance.iloc[10:])
