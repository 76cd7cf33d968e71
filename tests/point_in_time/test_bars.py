"""The definition of point in time: what is known at an instant does not depend on what came later.

A random market is delivered in all the ways of `support.deliveries`. Asking all of it what was known at
an instant gives, bit for bit, what is known from that which existed then.
"""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, example, given, settings
from support.deliveries import MODES, deliveries, exactly, existing_at, instants, versions_of
from support.revisions import bars_known, bars_told, happenings, replayed

from pitwise.bars.landing import Landing
from pitwise.bars.schema import COLUMNS, NUMBERS
from pitwise.bars.versions import known_bars

FEW = settings(deadline=None, max_examples=2, phases=[Phase.explicit, Phase.generate])
"""Markets beside the pinned ones; they are too large to be shrunk."""
MARKETS = st.tuples(st.integers(0, 10_000), st.sampled_from(MODES))


@given(MARKETS)
@FEW
@example((1, "traded"))
@example((2, "adjusted"))
@example((3, "split_adjusted"))
def test_bars_known_at_an_instant_are_those_of_what_had_come(market):
    seed, mode = market
    landings = deliveries(seed, mode)
    told, versions = happenings(landings), versions_of(landings)
    for at in instants(landings, seed, 8):
        then = known_bars(versions, at)
        exactly(then, known_bars(versions_of(existing_at(landings, at))))
        if mode != "split_adjusted":
            assert bars_told(then) == bars_known(told, at)
    newest = known_bars(versions)
    exactly(newest, known_bars(versions, pd.Timestamp("2100-01-01", tz="UTC")))


@given(MARKETS)
@FEW
@example((1, "traded"))
@example((3, "split_adjusted"))
def test_a_version_is_never_rewritten_and_a_seal_never_moved(market):
    seed, mode = market
    landings = deliveries(seed, mode)
    versions = versions_of(landings)
    for at in instants(landings, seed, 5)[1:]:
        before = versions_of(existing_at(landings, at))
        for name in ("bars", "factors"):
            table = getattr(versions, name)
            exactly(table[table["known_at"] <= at], getattr(before, name))
        seals = versions.seals[versions.seals["sealed_at"] <= at]
        # A session is in the list from its first bar on, which may come when it has long been over.
        exactly(seals[seals["date"].isin(before.bars["date"])], before.seals)


@pytest.mark.parametrize("seed", [4, 5])
def test_all_at_once_with_the_instant_of_each_row_is_the_same_as_delivery_by_delivery(seed):
    landings = deliveries(seed, "traded")
    versions = versions_of(landings)
    at_once = versions_of([one_landing(landings)])
    for at in instants(landings, seed, 8):
        assert bars_told(known_bars(at_once, at)) == bars_told(known_bars(versions, at))


def one_landing(landings: list[Landing]) -> Landing:
    """All news in one delivery, each row with its own instant and withdrawals spelt out."""
    rows, had = [], {}
    for instant, now in replayed(happenings(landings)):
        for key in now.keys() | had.keys():
            if now.get(key) == had.get(key):
                continue
            for values in now.get(key) or [(np.nan,) * len(NUMBERS)]:
                unkeyed = key[0] == ""
                row = values if unkeyed else (*key, *values)
                rows.append((*row, instant, key not in now))
        had = now
    kinds = {"symbol": "string", "date": "datetime64[us]"} | dict.fromkeys(NUMBERS, "float64")
    table = pd.DataFrame(rows, columns=[*COLUMNS, "known_at", "withdrawn"]).astype(kinds)
    return Landing(rows=table, source="csv", received_at=landings[-1].received_at)
