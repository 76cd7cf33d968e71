"""The two pages: their figures against hand-made bars, and what a browser makes of them."""

import base64
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import markets
import numpy as np
import pandas as pd
import pytest

from feature_repo import artifacts, overview, quality
from feature_repo.page import compact, page, table
from feature_repo.stage import load_params

PARAMS = quality.QualityParams(
    event_pictures=4, adjusted_pictures=2, contamination=0.001, trees=100, sample=256, seed=7
)
EVIL = "<script>alert('&$x$')</script>"
RAW = ["symbol", "date", "open", "high", "low", "close", "volume"]
NO_QUARANTINE = pd.DataFrame(columns=[*RAW, "reason"])
NO_EVENTS = pd.DataFrame(
    {
        "symbol": pd.Series(dtype="string"),
        "date": pd.Series(dtype="datetime64[us]"),
        "kind": pd.Series(dtype="string"),
        "price_ratio": pd.Series(dtype="float64"),
        "sessions": pd.Series(dtype="int64"),
        "evidence": pd.Series(dtype="string"),
    }
)


def hand_made(closes: dict[str, dict[str, float]], volume: float = 1000.0) -> pd.DataFrame:
    """Clean bars with these closes by symbol and date."""
    rows = [(s, d, c) for s, days in closes.items() for d, c in days.items()]
    bars = pd.DataFrame(rows, columns=["symbol", "date", "close"])
    bars = bars.assign(
        symbol=bars["symbol"].astype("string"),
        date=pd.to_datetime(bars["date"]).astype("datetime64[us]"),
        open=bars["close"],
        high=bars["close"] * 1.01,
        low=bars["close"] * 0.99,
        volume=volume,
        price_factor=1.0,
        segment=np.int32(0),
    )
    return bars.sort_values(["symbol", "date"], ignore_index=True)


def cleaned(bars: pd.DataFrame, quarantine: pd.DataFrame) -> dict:
    return {
        "rows_in": len(bars) + len(quarantine),
        "rows_clean": len(bars),
        "rows_quarantined": len(quarantine),
        "symbols": int(bars["symbol"].nunique()),
        "sessions": int(bars["date"].nunique()),
        "first_session": f"{bars['date'].min():%Y-%m-%d}",
        "last_session": f"{bars['date'].max():%Y-%m-%d}",
    }


def event(symbol, date, kind="jump", price_ratio=1.5, sessions=1, evidence="seen") -> pd.DataFrame:
    values = [symbol, pd.Timestamp(date), kind, price_ratio, sessions, evidence]
    return pd.DataFrame([values], columns=list(NO_EVENTS)).astype(NO_EVENTS.dtypes)


def quality_page(bars, quarantine=NO_QUARANTINE, events=NO_EVENTS, params=PARAMS):
    raw = pd.concat([bars[RAW], quarantine[RAW]], ignore_index=True) if len(quarantine) else bars[RAW]
    return quality.quality(raw, bars, quarantine, events, cleaned(bars, quarantine), params)


class Reader(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, document: str):
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "xlink:href")]

    def handle_data(self, data):
        self.words += data + "\n"

    def pictures(self) -> list[bytes]:
        return [base64.b64decode(s.partition(",")[2]) for s in self.loads if s.startswith("data:")]


@pytest.fixture(scope="module")
def market() -> pd.DataFrame:
    bars = markets.bars(4, 300, seed=3, gaps=0.02)
    return bars.assign(symbol=bars["symbol"].replace("S001", EVIL)).sort_values(
        ["symbol", "date"], ignore_index=True
    )


@pytest.fixture(scope="module")
def pages(market) -> dict[str, str]:
    """Both pages of a market with a symbol, an evidence and a reason that would be code."""
    quarantine = market[market["symbol"] == EVIL].head(12)[RAW].assign(reason=EVIL)
    some = market[market["symbol"] == EVIL]["date"].iloc[[50, 60, 70, 80, 90]]
    events = pd.concat([event(EVIL, d, evidence=f"<b>{EVIL}</b>") for d in some], ignore_index=True)
    document, *_ = quality_page(
        market.assign(price_factor=market["price_factor"].where(market["symbol"] != EVIL, 0.5)),
        quarantine,
        events,
    )
    return {"quality": document, "overview": overview.overview(market)}


def test_coverage_counts_the_sessions_between_a_symbols_first_and_last_bar():
    # 2014-01-02 and 03 are a Thursday and a Friday, 06 to 08 the Monday to Wednesday after them.
    bars = hand_made(
        {
            "A": {"2014-01-02": 10, "2014-01-03": 10, "2014-01-07": 10, "2014-01-08": 10},
            "B": {"2014-01-03": 5, "2014-01-06": 5},
            "C": {"2014-01-02": 5, "2014-01-08": 5},
        }
    )
    found = quality.coverage_by_symbol(bars).set_index("symbol")
    assert list(found.index) == ["C", "A", "B"]
    assert found["sessions"].to_dict() == {"A": 5, "B": 2, "C": 5}
    assert found["missing"].to_dict() == {"A": 1, "B": 0, "C": 3}
    assert found["share"].to_dict() == {"A": 0.8, "B": 1.0, "C": 0.4}
    sessions = quality.coverage_by_session(bars)
    assert [f"{d:%d}" for d in sessions.index] == ["02", "03", "06", "07", "08"]
    assert sessions["listed"].tolist() == [2, 3, 3, 2, 2]
    assert sessions["there"].tolist() == [2, 2, 1, 1, 2]


def test_the_report_holds_the_cleaning_and_the_coverage():
    bars = hand_made({"A": {"2014-01-02": 10, "2014-01-06": 10}, "B": {"2014-01-02": 5}})
    bars.loc[bars["date"] == "2014-01-02", "price_factor"] = [0.5, 1.0]
    _, report, found = quality_page(bars)
    assert report["rows_in"] == report["rows_clean"] == 3
    assert report["coverage"] == {
        "sessions_of_symbols": 4,
        "missing": 1,
        "share": 0.75,
        "symbols_with_missing": 1,
    }
    assert report["symbols_adjusted"] == 1
    assert report["flagged"] == len(found)


def test_measures_are_in_the_symbols_own_robust_deviations():
    days = [f"2014-01-{d:02d}" for d in (2, 3, 6, 7, 8)]
    bars = hand_made({"A": dict.fromkeys(days, 10.0)})
    bars["volume"] = np.exp([1.0, 2.0, 3.0, 4.0, 9.0]) - 1
    found = quality.measures(bars)
    # Median 3; distances 2, 1, 0, 1, 6 with median 1.
    assert found["log_volume"].tolist() == pytest.approx([x / 1.4826 for x in (-2, -1, 0, 1, 6)])
    assert found["log_return"].tolist() == [0] * 5


def test_a_measure_takes_no_return_across_a_segment():
    bars = markets.bars(1, 200, seed=1)
    half = bars.index >= 100
    joined = bars.assign(close=bars["close"] * np.where(half, 10, 1))
    joined[["open", "high", "low"]] = joined[["open", "high", "low"]].mul(np.where(half, 10, 1), axis=0)
    assert quality.measures(joined)["log_return"].abs().iloc[100] > 20
    apart = joined.assign(segment=half.astype("int32"))
    assert quality.measures(apart)["log_return"].iloc[100] == 0


def test_a_planted_outlier_is_flagged_and_the_flags_repeat():
    bars = markets.bars(5, 400, seed=5)
    bars["volume"] = 1e6 * np.exp(np.random.default_rng(5).normal(0, 0.3, len(bars)))
    row = 777
    bars.loc[row, ["high", "volume"]] = [bars.loc[row, "high"] * 1.2, 1e7]
    first, again = (quality.flags(bars, quality.measures(bars), PARAMS) for _ in range(2))
    assert (first["symbol"][0], first["date"][0]) == tuple(bars.loc[row, ["symbol", "date"]])
    assert len(first) == 2  # 0.001 of 2,000 bars
    assert first["score"].between(0.5, 1, inclusive="right").all()
    pd.testing.assert_frame_equal(first, again)


def test_bars_that_are_all_alike_have_no_flags():
    days = [f"2014-01-{d:02d}" for d in (2, 3, 6, 7, 8)]
    bars = hand_made({"A": dict.fromkeys(days, 10.0)})
    assert quality.flags(bars, quality.measures(bars), PARAMS).empty


def test_pictures_are_shared_among_the_kinds_and_the_rest_is_told():
    bars = markets.bars(1, 200, seed=2)
    days = bars["date"]
    ratios = {10: 1.1, 20: 3, 30: 0.2, 40: 1.5, 50: 2}
    jumps = [event("S000", days[i], price_ratio=ratio) for i, ratio in ratios.items()]
    halts = [event("S000", days[100 + i], "halt", 1.0, i) for i in range(1, 4)]
    events = pd.concat([*jumps, *halts], ignore_index=True)
    order = quality.ranked(events)
    assert order.loc[order["kind"] == "jump", "price_ratio"].tolist() == [0.2, 3, 2, 1.5, 1.1]
    assert order.loc[order["kind"] == "halt", "sessions"].tolist() == [3, 2, 1]
    document, *_ = quality_page(bars, events=events)
    pictured = [line for line in Reader(document).words.splitlines() if line.endswith(": close, US$")]
    wanted = [days[30], days[20], days[103], days[102]]
    assert pictured == [f"S000, {d:%Y-%m-%d}: close, US$" for d in wanted]
    assert "8 events" in document


def test_quarantine_shows_the_first_rows_of_a_reason_and_counts_the_rest(pages):
    assert "and 2 more in data/clean/quarantine.parquet" in pages["quality"]


def test_the_index_is_the_compounded_mean_return_and_joins_no_segments():
    days = ["2014-01-02", "2014-01-03", "2014-01-06"]
    bars = hand_made(
        {
            "A": dict(zip(days, (10, 11, 11), strict=True)),
            "B": dict(zip(days, (20, 18, 36), strict=True)),
        }
    )
    found = overview.market(bars)
    assert found["index"].tolist() == pytest.approx([100, 100, 150])  # (+10% - 10%) / 2, (0 + 100%) / 2
    assert found["volume"].tolist() == [2000, 2000, 2000]
    assert found["advancing"].tolist()[1:] == [0.5, 1.0]  # A did not move on the third session
    assert np.isnan(found["advancing"].iloc[0])
    apart = bars.assign(segment=[0, 0, 0, 0, 0, 1])
    assert overview.market(apart)["index"].tolist() == pytest.approx([100, 100, 100])


def test_breadth_is_the_share_above_the_50_session_mean():
    bars = markets.bars(3, 120, seed=4, gaps=0.1)
    found = overview.market(bars)["above_trend"]
    votes: dict = {}
    for _, own in bars.groupby("symbol"):
        closes = own["close"].to_numpy()
        for i in range(49, len(own)):
            votes.setdefault(own["date"].iloc[i], []).append(closes[i] > closes[i - 49 : i + 1].mean())
    for day, share in found.items():
        assert (np.isnan(share) and day not in votes) or share == pytest.approx(np.mean(votes[day]))


def test_a_symbols_averages_and_volatility():
    bars = markets.bars(2, 60, seed=6)
    own = bars[bars["symbol"] == "S001"]
    found = overview.by_symbol(bars).loc["S001"]
    assert found["volume"] == pytest.approx(own["volume"].mean())
    assert found["value"] == pytest.approx((own["close"] * own["volume"]).mean())
    daily = np.diff(np.log(own["close"]))
    assert found["volatility"] == pytest.approx(daily.std(ddof=1) * 252**0.5)
    assert np.isnan(overview.by_symbol(bars.groupby("symbol").head(20))["volatility"]).all()


def test_correlated_symbols_stand_side_by_side():
    bars = markets.bars(4, 250, seed=8)
    twin = bars[bars["symbol"] == "S000"].assign(symbol="S009")
    both = pd.concat([bars, twin], ignore_index=True)
    found = overview.correlations(both, pd.Index(both["symbol"].unique()))
    names = list(found)
    assert abs(names.index("S000") - names.index("S009")) == 1
    assert found.loc["S000", "S009"] == pytest.approx(1)
    assert list(found.index) == names


@pytest.mark.parametrize("name", ["quality", "overview"])
def test_a_page_loads_nothing_from_elsewhere_and_runs_no_script(pages, name):
    read = Reader(pages[name])
    assert not {"script", "link", "iframe", "object", "embed", "base", "b"} & set(read.tags)
    assert all(load.startswith(("#", "data:image/svg+xml;base64,")) for load in read.loads)
    for code in ("url(", "@import", "<script"):
        assert code not in pages[name]
    assert EVIL in read.words


@pytest.mark.parametrize("name", ["quality", "overview"])
def test_the_pictures_are_well_formed_and_load_nothing(pages, name):
    pictures = Reader(pages[name]).pictures()
    assert len(pictures) >= 8
    words = ""
    for source in pictures:
        for element in ET.fromstring(source).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "foreignObject")
            links = [v for k, v in element.attrib.items() if k.rpartition("}")[2] == "href"]
            assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
            words += element.text or ""
    assert (EVIL in words) == (name == "overview")  # on a ranking's axis, dollar signs and all


def test_a_page_is_the_same_bytes_each_time(market, pages):
    assert overview.overview(market) == pages["overview"]


@pytest.mark.parametrize("name", ["quality", "overview"])
def test_a_page_opens_in_a_browser(pages, name, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here")
    file = tmp_path / "page.html"
    file.write_text(pages[name])
    done = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/me"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seen, written = Reader(done.stdout), Reader(pages[name])
    assert seen.tags.count("figure") == written.tags.count("figure") >= 8
    assert EVIL in seen.words
    assert "script" not in seen.tags


@pytest.mark.parametrize(
    "closes",
    [
        {"A": {"2014-01-02": 10.0}},
        {"A": {"2014-01-02": 10.0}, "B": {"2014-01-02": 20.0}},
        {"A": {f"2014-01-{d:02d}": 10.0 for d in (2, 3, 6, 7, 8)}},
    ],
    ids=["one bar", "one session each", "prices that never move"],
)
def test_the_least_market_has_its_pages(closes):
    bars = hand_made(closes, volume=0.0)
    document, report, found = quality_page(bars)
    assert report["coverage"]["share"] == 1
    assert found.empty
    assert "No row was set aside" in document
    assert "No split, spin-off" in document
    assert "No two symbols have 20 returns" in overview.overview(bars)


def test_both_stages_write_their_files(tmp_path, monkeypatch, market):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(f"quality: {PARAMS.model_dump_json()}")
    artifacts.write_parquet(market[RAW], artifacts.RAW_BARS)
    artifacts.write_parquet(market, artifacts.CLEAN_BARS)
    artifacts.write_parquet(NO_QUARANTINE, artifacts.QUARANTINE)
    artifacts.write_parquet(NO_EVENTS, artifacts.EVENTS)
    artifacts.write_json(cleaned(market, NO_QUARANTINE), artifacts.CLEAN_REPORT)
    quality.main()
    overview.main()
    written = artifacts.read_parquet(artifacts.FLAGS)
    assert list(written)[:3] == ["symbol", "date", "score"]
    assert artifacts.read_json(artifacts.QUALITY_REPORT)["flagged"] == len(written) > 0
    for page_path in (artifacts.QUALITY_PAGE, artifacts.OVERVIEW_PAGE):
        assert page_path.read_text().rstrip().endswith("</html>")
    assert load_params("quality", quality.QualityParams) == PARAMS


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0"), (0.5, "0.5"), (789, "789"), (1234, "1.23 k"), (45_600_000, "45.6 M"), (2e9, "2 B")],
)
def test_large_numbers_are_told_in_three_digits(number, told):
    assert compact(number) == told


def test_a_table_shows_the_decimals_its_column_needs():
    frame = pd.DataFrame({"price": [10.25, 3.0, np.nan], "shares": [1e6, 0, 5], "day": pd.NaT})
    shown = table("T", frame)
    assert shown.rows == [["10.25", "1,000,000", "–"], ["3.00", "0", "–"], ["–", "5", "–"]]
    assert shown.kinds == ["number", "number", ""]


def test_texts_of_a_page_are_escaped():
    document = page("<i>", "<i>", [("<i>", "<i>")], [])
    assert document.count("&lt;i&gt;") == 5
    assert "<i>" not in document
