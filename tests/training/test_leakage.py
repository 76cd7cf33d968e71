"""Leakage is tested, not promised: each of these fails when the future leaks into the past."""

import numpy as np
import pandas as pd
import pytest
import torch
from support import small_runs as small

from pitwise.evaluation.baselines import Forecast, of_model
from training import KINDS
from training.evaluate import measure
from training.models.fit import Fit

NUMBERS = ["open", "high", "low", "close", "volume"]
NO_SIGNAL = 0.02
"""Skill that no forecast reached on six random walks of this size (the best had 0.001)."""
CHANCE = 0.05
"""Skill that no forecast reached from shuffled labels of six planted markets (the best had 0.025)."""


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    """Half of a day's return comes again the next day: at best, skill 0.25 and 2/3 right."""
    return small.dataset_rows(small.market(20, 400, seed=0, momentum=0.5))


@pytest.fixture(scope="module")
def random_walk() -> pd.DataFrame:
    return small.dataset_rows(small.market(20, 400, seed=0))


def of_part(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    return rows[rows["split"] == name]


@torch.no_grad()
def model_forecast(fit: Fit, rows: pd.DataFrame) -> Forecast:
    said = fit.model(small.all_windows(small.part(rows, "test")))
    score, log_return, p_up, _ = (values.numpy() for values in said)
    return of_model(log_return, p_up, score)


def figures_of(forecast: Forecast, rows: pd.DataFrame) -> dict:
    return measure(forecast, of_part(rows, "test"), small.evaluate_params())


def with_shuffled_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The labels of the training and validation dates dealt out anew within each of the two."""
    rng = np.random.default_rng(0)
    shuffled = rows.copy()
    for name in ("train", "validation"):
        chosen = rows["split"] == name
        shuffled.loc[chosen, "label"] = rng.permutation(rows.loc[chosen, "label"])
    return shuffled


def changed_after(bars: pd.DataFrame, session: pd.Timestamp) -> pd.DataFrame:
    """Every number of every later bar scaled by a random factor of its own."""
    rng = np.random.default_rng(1)
    later = bars["date"] > session
    changed = bars.copy()
    changed.loc[later, NUMBERS] *= rng.uniform(0.5, 2, (later.sum(), len(NUMBERS)))
    return changed


@torch.no_grad()
def outputs_at(fit: Fit, rows: pd.DataFrame, ends: np.ndarray) -> np.ndarray:
    """All outputs for the windows that end at these positions."""
    windows = small.at_ends(rows, ends)
    return torch.stack(fit.model(small.all_windows(windows))).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_changing_the_future_moves_no_fit_and_no_prediction_of_the_past(kind):
    bars = small.market(8, 250, seed=4, momentum=0.5)
    rows = small.dataset_rows(bars)
    # The last session that fitting may know: the one at which its last label is known.
    last_seen = of_part(rows, "validation")["event_timestamp"].max()
    now = rows.loc[rows["event_timestamp"] > last_seen, "event_timestamp"].min()
    changed = small.dataset_rows(changed_after(bars, now.tz_convert(None).normalize()))

    past = (rows["event_timestamp"] <= now).to_numpy()
    ends = np.flatnonzero(past & rows["ends_window"])
    fits = [small.small_fit(kind, r, max_batches=80) for r in (rows, changed)]
    before, after = (outputs_at(f, r, ends) for f, r in zip(fits, (rows, changed), strict=True))
    np.testing.assert_array_equal(before, after)
    pd.testing.assert_frame_equal(
        rows.loc[past, list(small.FEATURES)], changed.loc[past, list(small.FEATURES)], check_exact=True
    )

    future = np.flatnonzero(~past & rows["ends_window"])
    moved = outputs_at(fits[0], rows, future) != outputs_at(fits[0], changed, future)
    assert moved.mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_shows_no_skill_where_there_is_no_signal(kind, random_walk):
    figures = figures_of(model_forecast(small.small_fit(kind, random_walk), random_walk), random_walk)
    assert figures["skill_vs_persistence"] < NO_SIGNAL
    assert figures["direction_accuracy"] == pytest.approx(0.5, abs=0.04)
    assert abs(figures["rank_ic_t"]) < 3


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_labels_take_the_skill_from_a_model(kind, planted):
    shuffled = with_shuffled_labels(planted)
    figures = figures_of(model_forecast(small.small_fit(kind, shuffled), planted), planted)
    assert figures["skill_vs_persistence"] < CHANCE
    assert figures["direction_accuracy"] < 0.58


def test_a_label_among_the_inputs_would_be_seen(planted):
    leaking = planted.assign(rsi_14=planted["label"].fillna(0))
    fit = small.small_fit("gradient_boosting", leaking)
    assert figures_of(model_forecast(fit, leaking), planted)["skill_vs_persistence"] > 0.7
