import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from support.markets import synthetic_params
from support.project import PROJECT

from pitwise.bars.calendar import is_session, session_number
from pitwise.bars.schema import COLUMNS, NUMBERS, PRICES
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.errors import DataError
from pitwise.simulation.faults import KINDS
from pitwise.simulation.market import Market, synthetic_market
from pitwise.stage import load_params
from pitwise.workspace import sha256, write_parquet


@pytest.fixture(scope="module")
def market() -> Market:
    """No faults, and long enough to see a crash."""
    return synthetic_market(synthetic_params(symbols=60, sessions=2000))


def returns(bars: pd.DataFrame) -> pd.DataFrame:
    return np.log(bars.pivot(index="date", columns="symbol", values="close")).diff()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    faults = dict.fromkeys(KINDS, 2)
    for name in ("one", "two"):
        bars, truth = synthetic_market(synthetic_params(faults=faults, symbols=80))
        write_parquet(bars, tmp_path / f"{name}.bars")
        write_parquet(truth, tmp_path / f"{name}.truth")
    for what in ("bars", "truth"):
        assert sha256(tmp_path / f"one.{what}") == sha256(tmp_path / f"two.{what}")


def test_another_seed_gives_another_market():
    one, two = (
        synthetic_market(synthetic_params(seed=seed, symbols=3, sessions=50)).bars for seed in (1, 2)
    )
    assert len(one) != len(two) or (one["close"] != two["close"]).mean() > 0.9


def test_the_bars_have_the_raw_schema(market):
    bars = market.bars
    assert list(bars.columns) == COLUMNS
    assert bars["symbol"].dtype == "string"
    assert bars["date"].dtype == "datetime64[us]"
    assert (bars[NUMBERS].dtypes == "float64").all()
    assert is_session(bars["date"]).all()
    assert bars["date"].min() == pd.Timestamp("2012-01-03")
    assert bars["date"].nunique() == 2000
    assert bars["symbol"].nunique() == 60
    assert bars.equals(bars.sort_values(["symbol", "date"], ignore_index=True))
    assert market.truth.empty


def test_prices_are_in_cents_and_volumes_in_whole_shares(market):
    prices = market.bars[PRICES].to_numpy()
    np.testing.assert_array_equal(prices, np.round(prices, 2))
    volume = market.bars["volume"]
    assert (volume == volume.round()).all()
    assert (volume >= 1).all()


def test_without_faults_nothing_is_quarantined():
    bars = synthetic_market(synthetic_params()).bars
    kept, quarantine, *_ = clean(bars, load_params(PROJECT, "clean", CleanParams))
    assert quarantine.empty
    assert len(kept) == len(bars)


def test_no_session_of_a_listed_symbol_is_missing(market):
    numbers = session_number(market.bars["date"])
    step = pd.Series(numbers).groupby(market.bars["symbol"].to_numpy()).diff().dropna()
    assert (step == 1).all()


def test_returns_are_fat_tailed_and_their_size_clusters(market):
    r = returns(market.bars)
    assert r.kurt().median() > 1  # excess
    assert r.abs().apply(lambda x: x.autocorr(1)).median() > 0.05
    assert abs(r.apply(lambda x: x.autocorr(1)).median()) < 0.05
    assert 0.15 < r.std().median() * np.sqrt(252) < 0.5


def test_stocks_move_together_and_more_so_on_wild_days(market):
    r = returns(market.bars)
    upper = np.triu_indices(r.shape[1], 1)
    size = r.abs().mean(axis=1)
    usual = np.nanmean(r.corr().to_numpy()[upper])
    wild = np.nanmean(r[size > size.quantile(0.95)].corr().to_numpy()[upper])
    assert 0.15 < usual < 0.45
    assert wild > usual + 0.1


def test_volume_rises_with_the_size_of_the_return_and_remembers(market):
    volume = np.log(market.bars.pivot(index="date", columns="symbol", values="volume"))
    assert volume.corrwith(returns(market.bars).abs()).median() > 0.2
    assert volume.apply(lambda v: v.autocorr(1)).median() > 0.5


def test_some_are_listed_late_and_some_delisted_early(market):
    by_symbol = market.bars.groupby("symbol")["date"].agg(["min", "max"])
    assert (by_symbol["min"] > market.bars["date"].min()).sum() >= 3
    assert (by_symbol["max"] < market.bars["date"].max()).sum() >= 3
    assert (market.bars["close"] >= 1).all()


def predictor_correlation(signal: float) -> float:
    """Mean over the symbols of corr(-sign(5-session log return), next log return)."""
    close = synthetic_market(synthetic_params(signal=signal)).bars.pivot(
        index="date", columns="symbol", values="close"
    )
    log_close = np.log(close)
    predictor = -np.sign(log_close.diff(5))
    return float(predictor.corrwith(log_close.diff().shift(-1)).mean())


@pytest.mark.parametrize("signal", [0.0, 0.1, 0.3])
def test_the_planted_signal_has_the_strength_it_says(signal):
    assert predictor_correlation(signal) == pytest.approx(signal, abs=0.03)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"symbols": 0}, "symbols"),
        ({"sessions": 1}, "sessions"),
        ({"sessions": 10**9}, "sessions"),
        ({"seed": -1}, "seed"),
        ({"signal": -0.1}, "signal"),
        ({"signal": 0.6}, "signal"),
        ({"start": "1969-12-31"}, "start"),
        ({"start": "soon"}, "start"),
        ({"faults": {"split": -1}}, "split"),
        ({"faults": {"splitt": 1}}, "splitt: no such kind; kinds are outage, split"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_nonsense_is_refused_by_name(change, key):
    with pytest.raises(ValidationError, match=key):
        synthetic_params(**change)


def test_sessions_beyond_the_calendar_are_refused():
    with pytest.raises(DataError, match="calendar ends"):
        synthetic_market(synthetic_params(symbols=1, sessions=15_000))
    with pytest.raises(DataError, match="calendar ends 0 sessions after 9999-01-01"):
        synthetic_market(synthetic_params(start="9999-01-01"))
