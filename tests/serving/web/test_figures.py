"""What the pages are made of: bars and forecasts as known then, moments, intervals, how figures look."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, logistic
from support.web_files import DAYS, features_of, walked_of

from pitwise.workspace import write_parquet
from serving.state.market import SymbolFeatures
from serving.web.bars import BarHistory
from serving.web.drawing import sparkline
from serving.web.files import Files
from serving.web.market import squarified
from serving.web.model import by_quarter
from serving.web.moment import moment
from serving.web.outlook import Outlook, scale_of
from serving.web.pages import fixed, json_data, percent, sentence, signed
from serving.web.past import wilson
from serving.web.walked import WalkForward

pytestmark = pytest.mark.unit


def at(instant: str) -> int:
    return pd.Timestamp(instant, tz="UTC").value // 1000


def kept(path, *versions: pd.DataFrame) -> BarHistory:
    keys = ["symbol", "event_timestamp", "created_timestamp"]
    write_parquet(pd.concat(versions, ignore_index=True).sort_values(keys), path)
    return BarHistory(path)


def test_a_bar_is_what_was_known_of_it_then(tmp_path):
    first = features_of("A", np.array([10.0, 11.0, 12.0]), DAYS[:3])
    corrected = first.iloc[[1]].assign(
        close=11.5, created_timestamp=pd.Timestamp("2013-10-01", tz="UTC")
    )
    withdrawn = first.iloc[[2]].assign(
        close=np.nan, created_timestamp=pd.Timestamp("2013-10-02", tz="UTC")
    )
    bars = kept(tmp_path / "d.parquet", first, corrected, withdrawn)
    assert bars.of("A", at("2013-09-24 21:00")).close.tolist() == [10, 11]
    assert bars.of("A", at("2013-09-30")).close.tolist() == [10, 11, 12]
    assert bars.of("A", at("2013-10-01")).close.tolist() == [10, 11.5, 12]
    assert bars.of("A").close.tolist() == [10, 11.5]
    assert bars.of("A", at("2013-09-01")) is None
    assert bars.of("B") is None


def test_prices_are_on_the_share_basis_of_the_last_bar_and_end_at_a_break(tmp_path):
    rows = features_of("A", np.array([7.0, 100.0, 51.0]), DAYS[:3])
    rows["price_factor"], rows["share_factor"] = [1.0, 0.5, 1.0], [1.0, 2.0, 1.0]
    rows["segment"] = np.array([0, 1, 1], "int32")
    found = kept(tmp_path / "d.parquet", rows).of("A")
    assert found.close.tolist() == [50, 51]
    assert found.volume.tolist() == [2000, 1000]
    assert found.day.astype(str).tolist() == ["2013-09-24", "2013-09-25"]


@pytest.fixture
def five_days(tmp_path, monkeypatch) -> BarHistory:
    """Of which the last four are looked at: A split, B broke, C is gone, D was withdrawn."""
    monkeypatch.setattr("serving.web.bars.PART", 4)  # which cuts through symbols
    monkeypatch.setattr("serving.web.bars.SPAN", 4)
    later = pd.Timestamp("2013-10-02", tz="UTC")
    split = features_of("A", np.array([9.0, 10.0, 22.0, 12.0, 13.0]), DAYS[:5])
    split["price_factor"] = split["share_factor"] = [1.0, 1.0, 1.0, 2.0, 2.0]
    broken = features_of("B", np.array([5.0, 6.0, 7.0]), DAYS[1:4]).assign(segment=np.int32([0, 1, 1]))
    corrected = broken.iloc[[1]].assign(close=6.5, created_timestamp=later)
    gone, withdrawn = (features_of(s, np.ones(1), DAYS[i : i + 1]) for s, i in (("C", 0), ("D", 3)))
    nothing = withdrawn.assign(close=np.nan, created_timestamp=later)
    return kept(tmp_path / "d.parquet", split, broken, corrected, gone, withdrawn, nothing)


def test_the_market_has_the_last_sessions_of_each_symbol(five_days):
    nan = np.nan
    now = five_days.market()
    assert now.symbols == ["A", "B"]
    assert (now.days == DAYS[1:5].to_numpy()).all()
    assert now.session.T.tolist() == [[0, 1, 2, 3], [-1, -1, 1, 2]]
    np.testing.assert_array_equal(now.close.T, [[5, 11, 12, 13], [nan, nan, 6.5, 7]])
    np.testing.assert_array_equal(now.volume.T, [[500, 500, 1000, 1000], [nan, nan, 1000, 1000]])
    assert now.has("2013-09-27").tolist() == [True, False]
    then = five_days.market("2013-09-27", at("2013-09-27 21:00"))
    assert then.symbols == ["A", "B", "D"]
    assert then.close[-2:, 1:].tolist() == [[6, pytest.approx(nan, nan_ok=True)], [7, 1]]
    first = five_days.market("2013-09-23", at("2013-09-23 21:00"))
    assert (first.symbols, first.close.tolist()) == (["A", "C"], [[9, 1]])
    assert five_days.market("2013-09-20", at("2013-09-20 21:00")).symbols == []
    assert five_days.market() is now  # kept beside the last one of the past


def test_live_bars_follow_the_markets_last_ones(five_days):
    def live(symbol, day, close):
        values = dict.fromkeys(["open", "high", "low", "close"], close) | {"volume": 5.0}
        return SymbolFeatures(symbol, f"{day}T20:00:00Z", 0, True, values)

    market = five_days.market()
    old, late = live("A", "2013-09-27", 99.0), live("B", "2013-09-27", 8.0)
    assert market.with_live({"A": old, "B": live("B", "2013-09-30", None)}) is market
    found = market.with_live({"A": old, "B": late, "NEW": live("NEW", "2013-09-30", 1.0)})
    assert (found.days == market.days).all()
    np.testing.assert_array_equal(found.close.T, [[5, 11, 12, 13], [np.nan, 6.5, 7, 8]])
    assert found.session.T.tolist() == [[0, 1, 2, 3], [-1, 1, 2, 3]]
    found = market.with_live({"A": live("A", "2013-09-30", 14.0)})
    assert str(found.days[-1]) == "2013-09-30"
    assert found.session.T.tolist() == [[1, 2, 3, 4], [-1, -1, 1, 2]]
    assert (found.close[:, 0].tolist(), found.volume[-1, 0]) == ([11, 12, 13, 14], 5)


def test_a_live_bar_follows_the_last_one(tmp_path):
    bars = kept(tmp_path / "d.parquet", features_of("A", np.array([10.0, 11.0]), DAYS[:2])).of("A")
    bar = {"open": 11.0, "high": 13.0, "low": 10.5, "close": 12.0, "volume": 5.0}
    assert bars.with_live("2013-09-25", bar).close.tolist() == [10, 11, 12]
    assert bars.with_live("2013-09-24", bar) is bars
    assert bars.with_live("2013-09-25", bar | {"close": None}) is bars


def test_the_walk_forward_is_the_mean_of_the_seeds_of_its_kind(workspace):
    walked = WalkForward(workspace.walk_forward_forecasts, "lstm")
    market = {one.symbol: one.log_return for one in walked.market("2013-10-30")}
    assert market == {"AAPL": pytest.approx(0.02), "MSFT": pytest.approx(0.03)}
    assert [(one.day, one.scale) for one in walked.of("AAPL", "2013-10-31")] == [
        ("2013-10-30", None),
        ("2013-10-31", None),
    ]
    assert len(walked.of("AAPL", "2013-10-30")) == 1
    assert walked.of("NONE", "2013-10-31") == []


@pytest.mark.parametrize(
    ("as_of", "day", "before", "after"),
    [
        (None, "2013-11-01", "2013-10-31", None),
        ("2013-11-01", "2013-11-01", "2013-10-31", None),
        ("2020-01-01", "2013-11-01", "2013-10-31", None),
        ("2013-10-27", "2013-10-25", "2013-10-24", "2013-10-28"),
        ("2013-09-23", "2013-09-23", None, "2013-09-24"),
        ("1999-01-01", "1999-01-01", None, "2013-09-23"),
    ],
)
def test_a_moment_is_the_newest_session_then(as_of, day, before, after):
    found = moment(as_of, "2013-11-01", DAYS.to_numpy().astype("datetime64[D]"))
    assert (found.day, found.before, found.after) == (day, before, after)
    end = as_of and at(f"{as_of} 23:59:59.999999")
    assert found.instant == end


def outlook(scale: float | None) -> Outlook:
    return Outlook("A", "2013-11-01", None, 1.0, 1.0, 0.001, 0.5, 0.001, 1, scale, True)


def test_an_interval_is_the_logistic_distributions():
    low, high = outlook(0.01).interval(0.9)
    expected = np.expm1(logistic.ppf([0.05, 0.95], loc=0.001, scale=0.01))
    assert (low, high) == pytest.approx(tuple(expected))
    assert outlook(None).interval(0.9) is None


def test_without_a_stated_scale_the_volatility_tells_it():
    scale, is_stated = scale_of(None, 0.02, 4)
    assert logistic.std(scale=scale) == pytest.approx(0.04)
    assert not is_stated
    assert scale_of(0.3, 0.02, 4) == (0.3, True)
    assert scale_of(None, None, 1) == (None, False)


def test_wilsons_interval():
    found = binomtest(226, 502).proportion_ci(0.95, "wilson")
    assert wilson(226, 502) == pytest.approx((found.low, found.high), abs=1e-4)


def test_figures_have_a_minus_and_no_sign_of_nothing():
    assert [signed(x) for x in (0.126, -0.126, 0.001, -0.001, None)] == [
        "+0.13",
        "−0.13",
        "0.00",
        "0.00",
        "–",
    ]
    assert (percent(-0.0123), fixed(-1234.5), fixed(None)) == ("−1.23", "−1,234.50", "–")
    assert sentence("version 2: -0.01 at 1e-5, worst-case") == "Version 2: −0.01 at 1e-5, worst-case."


def test_data_cannot_end_the_element_that_holds_it():
    assert "<" not in json_data({"symbol": "</script><script>alert(1)</script>"})


def test_a_quarter_is_the_mean_of_its_sessions(tmp_path):
    """Spearman by hand: of three symbols 1, -1, then 0.5, 1."""
    said = {
        "2013-09-27": [1, 2, 3],
        "2013-09-30": [3, 2, 1],
        "2013-10-01": [1, 3, 2],
        "2013-10-02": [1, 2, 3],
    }
    rows = [
        walked_of(symbol, "lstm", 7, {day: float(scores[i]) for day, scores in said.items()}).assign(
            label=float(i)
        )
        for i, symbol in enumerate("ABC")
    ]
    write_parquet(pd.concat(rows), tmp_path / "w.parquet")
    walked = WalkForward(tmp_path / "w.parquet", "lstm")
    found = by_quarter(walked, np.datetime64("2013-10-02"))
    assert [(q["name"], q["mean"], q["n"]) for q in found] == [
        ("2013 Q3", pytest.approx(0), 2),
        ("2013 Q4", pytest.approx(0.75), 2),
    ]
    assert [q["n"] for q in by_quarter(walked, np.datetime64("2013-09-30"))] == [2]


def test_a_map_is_filled_in_proportion():
    """The example of Bruls et al.: 6, 6, 4, 3, 2, 2, 1 in 6 by 4."""
    boxes = squarified([6, 6, 4, 3, 2, 2, 1], 6, 4)
    assert [round(w * h, 9) for _, _, w, h in boxes] == [6, 6, 4, 3, 2, 2, 1]
    assert boxes[0] == pytest.approx((0, 0, 3, 2))
    assert boxes[2] == pytest.approx((3, 0, 12 / 7, 7 / 3))


def test_a_sparkline_ends_at_the_last_close():
    assert str(sparkline(np.array([1.0, 3.0, 2.0]))).count('d="M0 21l45-20 45 10"') == 1
    assert str(sparkline(np.arange(1000.0))).count(" ") < 100
    assert str(sparkline(np.array([1.0]))) == ""


def test_a_file_is_read_again_when_it_is_written_anew(tmp_path):
    files, path, reads = Files(), tmp_path / "a.json", []

    def reader(path):
        reads.append(path.read_text())
        return reads[-1]

    assert files.read(path, reader) is None
    path.write_text("one")
    assert [files.read(path, reader) for _ in range(2)] == ["one", "one"]
    path.write_text("three")
    assert files.read(path, reader) == "three"
    assert reads == ["one", "three"]
