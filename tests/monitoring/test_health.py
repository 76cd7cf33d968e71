import numpy as np
import pandas as pd
import pytest

from monitoring.health import bar_health, broken, forecast_health

pytestmark = pytest.mark.unit

DAYS = pd.date_range("2024-06-03", periods=5)
SYMBOLS = [f"S{i:02}" for i in range(25)]


def bars() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "symbol": np.repeat(SYMBOLS, 5),
            "date": np.tile(DAYS, 25),
            "close": np.repeat(10.0 * 1.2 ** np.arange(25), 5) * np.tile([1, 1.01, 0.99, 1.02, 1.0], 25),
            "volume": rng.integers(1_000, 9_000, 125).astype(float),
        }
    )


def named(table: pd.DataFrame) -> set[str]:
    return {found["figure"] for found in broken(bar_health(table))}


def test_a_quiet_week_breaks_no_limit():
    assert broken(bar_health(bars())) == []


def test_a_factor_of_ten_is_named_on_the_day_it_begins():
    table = bars()
    table.loc[table["symbol"].isin(SYMBOLS[:3]) & (table["date"] >= DAYS[2]), "close"] *= 10
    (found,) = [one for one in broken(bar_health(table)) if one["figure"] == "jumped"]
    assert (found["session"], found["value"], found["sessions"]) == ("2024-06-05", 3 / 25, 1)


def test_two_symbols_are_their_own_news():
    table = bars()
    table.loc[table["symbol"].isin(SYMBOLS[-2:]) & (table["date"] >= DAYS[2]), "close"] *= 10
    assert named(table) == set()


def test_frozen_volumes_and_closes_are_named():
    table = bars()
    for column, figure in (("volume", "same_volume"), ("close", "same_close")):
        frozen = table.assign(**{column: table.groupby("symbol")[column].transform("first")})
        assert named(frozen) == {figure}


def test_shuffled_symbols_are_named():
    table = bars()
    day = table["date"] == DAYS[3]
    table.loc[day, "close"] = np.roll(table.loc[day, "close"], 7)
    assert {"price_order", "jumped"} <= named(table)
    few = table[table["symbol"].isin(SYMBOLS[:5])]
    assert bar_health(few)["price_order"].isna().all()


def test_a_third_of_the_symbols_missing_is_named():
    table = bars()
    assert named(table[~((table["date"] == DAYS[4]) & table["symbol"].isin(SYMBOLS[:8]))]) == {"symbols"}


def test_forecasts_that_are_missing_or_those_of_the_day_before_are_named():
    closes = DAYS.tz_localize("UTC")
    said = pd.DataFrame(
        {
            "symbol": np.repeat(SYMBOLS, 5),
            "event_timestamp": np.tile(closes, 25),
            "log_return": np.arange(125) / 1000,
        }
    )
    could = pd.Series(25, closes)
    assert broken(forecast_health(said, could)) == []
    stale = said.copy()
    stale.loc[said["event_timestamp"] == closes[2], "log_return"] = said.loc[
        said["event_timestamp"] == closes[1], "log_return"
    ].to_numpy()
    (found,) = broken(forecast_health(stale, could))
    assert (found["figure"], found["session"], found["value"]) == ("repeated", "2024-06-05", 1.0)
    (found,) = broken(forecast_health(said[said["event_timestamp"] != closes[4]], could))
    assert (found["figure"], found["session"], found["value"]) == ("served", "2024-06-07", 0.0)
