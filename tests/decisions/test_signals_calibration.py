"""Stated probabilities against what came: fits in closed form, and nothing that comes later."""

import numpy as np
import pandas as pd
import pytest

from pitwise.decisions.signals_calibration import (
    Platt,
    fit_platt,
    judged,
    ratio_interval,
    reliability,
    scores,
)

pytestmark = pytest.mark.unit


def counted(*groups: tuple[float, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and outcomes of groups: what was said, how many rose, of how many."""
    said = np.concatenate([np.full(n, p) for p, _, n in groups])
    rose = np.concatenate([np.arange(n) < ups for _, ups, n in groups])
    return said, rose


def test_two_groups_are_fitted_through_their_shares():
    fitted = fit_platt(*counted((0.4, 450, 1000), (0.6, 550, 1000)))
    # Two probabilities, two parameters: logit(0.55) / logit(0.6) = 0.200671 / 0.405465.
    assert fitted.slope == pytest.approx(0.494915, abs=1e-4)
    assert fitted.intercept == pytest.approx(0.0, abs=1e-4)
    assert fitted(np.array([0.4, 0.6])) == pytest.approx([0.45, 0.55], abs=1e-4)


@pytest.mark.parametrize(
    "groups",
    [((0.4, 700, 1000), (0.6, 500, 1000)), ((0.55, 1200, 2000),)],
    ids=["wrong way", "constant"],
)
def test_what_tells_nothing_becomes_the_share_of_rises(groups):
    fitted = fit_platt(*counted(*groups))
    assert fitted.slope == 0.0
    assert fitted(np.array([0.1, 0.9])) == pytest.approx([0.6, 0.6])


@pytest.mark.parametrize("groups", [((0.5, 0, 5),), ((0.5, 5, 5),), ((0.5, 0, 0),)])
def test_without_both_outcomes_there_is_no_fit(groups):
    assert fit_platt(*counted(*groups)) is None


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    """Two forecasts a session of 2016, of outcomes that they tell something of."""
    rng = np.random.default_rng(5)
    days = pd.bdate_range("2016-01-04", "2016-12-30", tz="UTC") + pd.Timedelta(hours=21)
    table = pd.DataFrame(
        {"event_timestamp": days.repeat(2), "p_up": rng.uniform(0.4, 0.6, 2 * len(days))}
    )
    return table.assign(label=np.where(rng.random(len(table)) < table["p_up"], 0.01, -0.01))


def test_a_quarter_is_calibrated_on_what_was_known_before_it(year):
    horizon = 5
    rows = judged(year, horizon)
    assert rows["event_timestamp"].min() == pd.Timestamp("2016-04-01T21:00Z")
    july = pd.Timestamp("2016-07-01T21:00Z")
    sessions = year["event_timestamp"].unique()
    # At the close of 1 July the outcome of the session five before it is known, and none after.
    known = year[year["event_timestamp"] <= sessions[list(sessions).index(july) - horizon]]
    fitted = fit_platt(known["p_up"].to_numpy(), known["label"].to_numpy() > 0)
    third = rows[(rows["event_timestamp"] >= july) & (rows["event_timestamp"] < "2016-10-01")]
    assert third["calibrated"].to_numpy() == pytest.approx(fitted(third["p_up"].to_numpy()))
    assert third["base_rate"].unique() == pytest.approx([(known["label"] > 0).mean()])


def test_what_comes_later_changes_no_calibration(year):
    cut = year["event_timestamp"] < "2016-10-01"
    other = year.assign(label=year["label"].where(cut, 0.01))
    before, after = judged(year, 1), judged(other, 1)
    same = before["event_timestamp"] < "2016-10-01"
    pd.testing.assert_frame_equal(before[same], after[same])
    pd.testing.assert_series_equal(before["calibrated"], after["calibrated"])


def test_one_quarter_judges_nothing(year):
    rows = judged(year[year["event_timestamp"] < "2016-04-01"], 1)
    assert rows.empty
    assert reliability(rows["calibrated"], rows, 1, 100, 7) == []


def test_reliability_by_hand():
    # Twenty sessions of ten forecasts, one for each tenth; the lowest never come true.
    said = np.tile(np.arange(0.05, 1.0, 0.1), 20)
    days = pd.date_range("2016-01-04", periods=20, tz="UTC").repeat(10)
    odd = np.arange(200) // 10 % 2 == 1
    rows = pd.DataFrame({"event_timestamp": days, "rose": (said > 0.9) | ((said > 0.4) & odd)})
    tenths = reliability(pd.Series(said), rows, 1, 200, 7)
    assert [tenth["said"] for tenth in tenths] == pytest.approx(np.arange(0.05, 1.0, 0.1))
    assert [tenth["came"] for tenth in tenths] == pytest.approx([0] * 4 + [0.5] * 5 + [1])
    assert {(tenth["count"], tenth["sessions"]) for tenth in tenths} == {(20, 20)}
    assert tenths[0]["ci95"] == [0.0, 0.0]
    assert tenths[-1]["ci95"] == [1.0, 1.0]
    low, high = tenths[5]["ci95"]
    assert low < 0.5 < high


def test_equal_probabilities_are_one_row():
    rows = pd.DataFrame({"event_timestamp": pd.date_range("2016", periods=8), "rose": [True, False] * 4})
    (row,) = reliability(pd.Series(np.full(8, 0.53)), rows, 1, 100, 7)
    assert (row["count"], row["came"], row["said"]) == (8, 0.5, 0.53)


def test_scores_by_hand():
    rows = pd.DataFrame(
        {"p_up": [0.8, 0.4], "calibrated": [0.5, 0.5], "base_rate": [1.0, 1.0], "rose": [True, False]}
    )
    found = scores(rows)
    assert found["stated"]["brier"] == pytest.approx((0.04 + 0.16) / 2)
    assert found["stated"]["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert found["calibrated"] == {"brier": 0.25, "log_loss": pytest.approx(np.log(2))}
    assert np.isfinite(found["base_rate"]["log_loss"])


def test_the_interval_of_a_ratio():
    wholes = np.array([1.0, 3.0, 0.0, 2.0] * 10)
    assert ratio_interval(0.25 * wholes, wholes, 1, 200, 7) == pytest.approx([0.25, 0.25])
    assert ratio_interval(np.ones(40), np.eye(40)[0], 1, 200, 7) is None


def test_platt_is_the_services_calibration():
    from pitwise.decisions.signals import Rules, calibrated

    rules = Rules(1, 0.8, 2, 3, 1, 0, 0, 0, 0, intercept=0.1, slope=0.4)
    said = [0.0, 0.3, 0.52, 1.0]
    ours = [calibrated(p, rules) for p in said]
    assert ours == pytest.approx(Platt(0.1, 0.4)(np.array(said)), rel=1e-12)
