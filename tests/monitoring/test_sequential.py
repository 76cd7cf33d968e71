import numpy as np
import pytest

from monitoring.sequential import charts, cusum, ewma

pytestmark = pytest.mark.unit

NOISE = np.random.default_rng(4).normal(0.02, 0.12, 400)


def test_a_cusum_adds_up_what_is_short_of_the_allowance_and_forgets_what_is_not():
    found = cusum(np.array([-1.0, -1.0, np.nan, 2.0, -0.25]), allowance=0.25)
    assert found.tolist() == [0.75, 1.5, 1.25, 0.0, 0.0]


def test_an_ewma_weighs_the_newest_session():
    assert ewma(np.array([-1.0, -1.0, 0.0]), weight=0.5).tolist() == [0.5, 0.75, 0.375]


def test_a_loss_is_found_and_no_loss_is_not():
    quiet = np.random.default_rng(2).normal(0.02, 0.12, 150)
    for live, rings in ((quiet, False), (quiet - 0.12, True)):
        made = charts(live, NOISE, 0.03, 0.1, samples=400, seed=1)
        assert [chart.alarm is not None for chart in made] == [rings, rings]
    assert made[0].alarm < 40


def test_quiet_years_alarm_as_often_as_they_were_asked_to():
    made = charts(NOISE, NOISE, 0.03, 0.5, samples=1000, seed=1)
    years = np.random.default_rng(3).normal(size=(1000, 252))
    allowance = 0.03 / NOISE.std(ddof=1) / 2
    for chart, values in zip(made, (cusum(years, allowance), ewma(years)), strict=True):
        rung = (values.max(axis=1) > chart.limit).mean()
        assert rung == pytest.approx(1 - np.exp(-0.5), abs=0.12)


def test_a_reference_that_says_nothing_has_no_charts():
    assert charts(NOISE, np.full(50, 0.1), 0.03, 1.0, 100, 1) == []
    assert charts(NOISE, np.array([np.nan, 0.1]), 0.03, 1.0, 100, 1) == []
