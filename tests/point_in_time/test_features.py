"""What is computed from bars as known at an instant does not depend on what came later.

Verdicts, features and windows as they were served: out of all deliveries, and out of those that existed.
"""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
from hypothesis import Phase, example, given, settings
from support.deliveries import MODES, deliveries, exactly, existing_at, instants, versions_of
from support.project import PROJECT

from pitwise.bars.calendar import session_close
from pitwise.bars.versions import BarVersions
from pitwise.cleaning.clean import CleanParams
from pitwise.cleaning.events import LIFE, known_events
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.indicators import FEATURES, NAMES
from pitwise.features.served import ServedWindows, as_served
from pitwise.features.versions import feature_history
from pitwise.features.windows import window_ends
from pitwise.stage import load_params

WINDOW = 5
MIN_HISTORY = 40
FACTORS = ["price_factor", "share_factor"]
ROUNDING = {"rtol": 1e-11, "atol": 1e-9}
"""Features that differ by less make no version."""
RECURSIVE = {"rtol": 1e-6, "atol": 1e-6}
"""Averages that never quite forget, and what is computed from them."""
MARKETS = st.tuples(st.integers(0, 10_000), st.sampled_from(MODES))


TOLD = ["symbol", "date", "kind", "status", *LIFE, "told_by"]
"""Of an event: its numbers are those of the bars known now."""


def params(verdicts: str) -> CleanParams:
    project = load_params(PROJECT, "clean", CleanParams)
    return project.model_copy(update={"verdicts": verdicts, "min_history": MIN_HISTORY})


def by_window(table: pd.DataFrame) -> dict[tuple, np.ndarray]:
    """The whole windows of a table by symbol and session, each on the basis of its last session."""
    rows = table[NAMES].to_numpy("float64")
    price, shares = (table[name].to_numpy() for name in FACTORS)
    found = {}
    for end in window_ends(table["symbol"].to_numpy(object), rows, WINDOW):
        window = rows[end - WINDOW + 1 : end + 1].copy()
        inside = slice(end - WINDOW + 1, end + 1)
        for column, feature in enumerate(FEATURES):
            if feature.unit in ("price", "price_change"):
                window[:, column] *= price[inside] / price[end]
            elif feature.unit == "shares":
                window[:, column] *= shares[end] / shares[inside]
        found[table["symbol"].iloc[end], table["event_timestamp"].iloc[end]] = window
    return found


def alike(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """The same rows; the values to the bit, but for averages that never forget."""
    exactly(got[[*KEYS, "segment"]], wanted[[*KEYS, "segment"]])
    for name in [*NAMES, *FACTORS]:
        loose = any(name.startswith(part) for part in ("rsi", "macd", "atr", "adx", "ema"))
        bound = RECURSIVE if loose else ROUNDING
        np.testing.assert_allclose(got[name], wanted[name], err_msg=name, **bound)


@given(st.just("all"), MARKETS)
@settings(deadline=None, max_examples=1, phases=[Phase.explicit, Phase.generate])
@example("off", (1, "traded"))
@example("all", (2, "adjusted"))
@example("all", (3, "split_adjusted"))
def test_verdicts_features_and_windows_are_those_of_what_had_come(verdicts, market):
    seed, mode = market
    rules = params(verdicts)
    landings = deliveries(seed, mode, first=70, symbols=7, sessions=100)
    versions = versions_of(landings)
    told, history = feature_history(versions, rules)
    assert history.equals(history.sort_values([*KEYS, CREATED], ignore_index=True))
    for at in instants(landings, seed, 3)[1:]:
        before = versions_of(existing_at(landings, at))
        there, prefix = feature_history(before, rules)
        exactly(known_events(told.cleaned.events, at)[TOLD], there.cleaned.events[TOLD])
        alike(known(history, at), daily_features(there.cleaned.bars))
        alike(known(history, at), known(prefix))
        slowly = served_slowly(history, versions, at)
        for table, of in ((history, versions), (prefix, before)):
            quick = served_windows(table, of, at)
            # A session that has been withdrawn is no row of a training set.
            stands = set(known(table)[KEYS].itertuples(index=False, name=None))
            assert quick.keys() == slowly.keys() & stands
            for key, window in quick.items():
                np.testing.assert_allclose(window, slowly[key], rtol=1e-5, atol=1e-5)


def served_at(history: pd.DataFrame, versions: BarVersions) -> pd.Series:
    """When each symbol's session was served first, by symbol and session; those not sealed left out."""
    first = history.drop_duplicates(KEYS).set_index(KEYS)[CREATED]
    sealed = versions.seals["sealed_at"].set_axis(session_close(versions.seals["date"]))
    sealed = pd.Series(first.index.get_level_values(1).map(sealed), first.index)
    return pd.concat([first, sealed], axis=1).max(axis=1)[sealed.notna()]


def served_slowly(
    history: pd.DataFrame, versions: BarVersions, at: pd.Timestamp
) -> dict[tuple, np.ndarray]:
    """The windows served by an instant, each out of what was known when its session was."""
    found, windows = {}, {}
    for key, instant in served_at(history, versions).items():
        if instant <= at:
            if instant not in windows:
                windows[instant] = by_window(known(history, instant))
            if key in windows[instant]:
                found[key] = windows[instant][key]
    return found


def served_windows(
    history: pd.DataFrame, versions: BarVersions, at: pd.Timestamp
) -> dict[tuple, np.ndarray]:
    """The same as training gathers them."""
    ends, served = as_served(history, versions.seals, WINDOW)
    rows = known(history).assign(ends_window=ends)
    windows = ServedWindows(rows, served, NAMES)
    at_ends = windows.ends(WINDOW)
    keys = rows[KEYS].iloc[at_ends].itertuples(index=False, name=None)
    when = served_at(history, versions)
    found = zip(keys, windows.gather(at_ends, WINDOW), strict=True)
    return {key: window for key, window in found if key in when and when[key] <= at}
