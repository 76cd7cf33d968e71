import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import exchange_calendars
import pandas as pd
import pytest
import yfinance.cache
import yfinance.data
from curl_cffi.requests import Session
from curl_cffi.requests.exceptions import ConnectionError as NoConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from support.project import PROJECT
from yfinance.exceptions import YFDataException, YFPricesMissingError, YFRateLimitError

from pitwise.bars.landing import landings, read_landing
from pitwise.bars.sources import yahoo
from pitwise.bars.sources.yahoo import YahooParams, last_finished_session, yahoo_market
from pitwise.errors import DataError, ParamsError
from pitwise.load import load
from pitwise.stage import load_params
from pitwise.workspace import Workspace

# Sessions: Mon 1, Tue 2, Wed 3 July 2024 (half day, closes 17:00 UTC), not Thu 4, Fri 5 (20:00), Mon 8.
SESSIONS = ["2024-07-01", "2024-07-02", "2024-07-03", "2024-07-05"]
FRIDAY_NIGHT = pd.Timestamp("2024-07-05 23:00", tz="UTC")
MONDAY_NIGHT = pd.Timestamp("2024-07-08 23:00", tz="UTC")


def params(
    folder: Path, tickers="[AAPL, MSFT, IBM]", start="2024-07-01", end="null", rate=1e9, retries=2
) -> YahooParams:
    lines = f"  tickers: {tickers}\n  start: {start}\n  end: {end}\n"
    lines += f"  requests_per_minute: {rate}\n  retries: {retries}\n"
    workspace = Workspace(folder)
    workspace.params.write_text("yfinance:\n" + lines)
    return load_params(workspace, "yfinance", YahooParams)


def frame(days=SESSIONS, price: float = 10.0) -> pd.DataFrame:
    """What yfinance 1.7.0 returns; a test below compares it with the library itself."""
    index = pd.DatetimeIndex(days, tz="America/New_York", name="Date")
    columns = {
        "Open": price,
        "High": price + 2,
        "Low": price - 1,
        "Close": price + 1,
        "Adj Close": price / 2,
        "Volume": 100,
        "Dividends": 0.0,
        "Stock Splits": 0.0,
    }
    return pd.DataFrame(columns, index=index)


def no_such_ticker(ticker: str) -> YFPricesMissingError:
    reason = "No data found, symbol may be delisted"
    return YFPricesMissingError(ticker, "(1d 2024-07-01 -> 2024-07-06)", yahoo_reason=reason)


class Clock:
    """Time that passes only when someone sleeps."""

    def __init__(self):
        self.time = 1000.0
        self.sleeps = []

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time += seconds
        self.sleeps.append(seconds)

    @property
    def backoffs(self) -> list[float]:
        return [s for s in self.sleeps if s > 0.1]


class Yahoo:
    """Returns each ticker's answers one by one, the last one for ever; an exception is raised."""

    def __init__(self, clock=None, takes: float = 0.0, **answers):
        self.answers = {ticker: list(own) for ticker, own in answers.items()}
        self.clock = clock or Clock()
        self.takes = takes
        self.asked = []
        self.days = set()
        self.times = []

    def __call__(self, ticker: str, first: date, last: date) -> pd.DataFrame:
        self.asked.append(ticker)
        self.days.add((str(first), str(last)))
        self.times.append(self.clock.time)
        self.clock.time += self.takes
        left = self.answers.get(ticker, [frame()])
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def fetched(folder: Path, source: Yahoo, now=FRIDAY_NIGHT, **changed) -> pd.DataFrame:
    return yahoo_market(
        params(folder, **changed),
        cache=folder / "cache",
        ask=source,
        now=now,
        clock=source.clock,
        sleep=source.clock.sleep,
    )[0]


def kept(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder / "cache/unfinished")) for p in folder.rglob("*.parquet"))


def report(folder: Path) -> dict:
    return json.loads((folder / "cache/report.json").read_text())


# What comes out


def test_bars_have_the_raw_schema_and_yahoos_own_numbers(tmp_path, capsys):
    bars = fetched(tmp_path, Yahoo(MSFT=[frame(price=20.0)]), tickers="[AAPL, MSFT]")
    assert {name: str(dtype) for name, dtype in bars.dtypes.items()} == {
        "symbol": "string",
        "date": "datetime64[us]",
        "open": "float64",
        "high": "float64",
        "low": "float64",
        "close": "float64",
        "volume": "float64",
        "adj_close": "float64",
    }
    assert bars["symbol"].tolist() == ["AAPL"] * 4 + ["MSFT"] * 4
    assert bars["date"].tolist() == [pd.Timestamp(d) for d in SESSIONS] * 2
    assert bars.iloc[-1].tolist() == ["MSFT", pd.Timestamp("2024-07-05"), 20, 22, 19, 21, 100, 10]
    assert bars.index.tolist() == list(range(8))
    assert capsys.readouterr() == ("", "")


def test_a_missing_price_is_left_for_clean_to_judge(tmp_path):
    holed = frame()
    holed.loc[holed.index[1], "Open"] = None
    bars = fetched(tmp_path, Yahoo(AAPL=[holed]), tickers="[AAPL]")
    assert bars["open"].isna().tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2024-07-02 15:00", "2024-07-01"),
        ("2024-07-02 20:00", "2024-07-01"),  # closed, the bar not settled
        ("2024-07-02 20:30", "2024-07-02"),
        ("2024-07-03 17:29", "2024-07-02"),  # half day
        ("2024-07-03 17:30", "2024-07-03"),
        ("2024-07-04 23:00", "2024-07-03"),  # holiday
        ("2024-07-05 03:00", "2024-07-03"),  # Thursday evening in New York
        ("2024-07-05 20:30", "2024-07-05"),
        ("2024-07-07 12:00", "2024-07-05"),  # weekend
    ],
)
def test_a_bar_of_a_session_that_has_not_finished_is_not_taken(tmp_path, now, last):
    source = Yahoo(AAPL=[frame([*SESSIONS, "2024-07-08"])])  # Yahoo returns running bars too
    bars = fetched(tmp_path, source, now=pd.Timestamp(now, tz="UTC"), tickers="[AAPL]")
    assert bars["date"].tolist() == [pd.Timestamp(d) for d in SESSIONS if d <= last]
    assert source.days == {("2024-07-01", last)}


CLOSES = exchange_calendars.get_calendar("XNYS", start="1999-01-01").schedule["close"]


@settings(max_examples=60, deadline=None)
@given(st.datetimes(pd.Timestamp("2000-01-01"), pd.Timestamp("2024-12-31"), timezones=st.just(None)))
def test_the_last_finished_session_is_the_latest_whose_close_is_half_an_hour_ago(instant):
    now = pd.Timestamp(instant, tz="UTC")
    finished = CLOSES + pd.Timedelta(minutes=30) <= now
    expected = CLOSES.index[finished].max()
    assert last_finished_session(now) == expected
    assert last_finished_session(now.tz_convert("Asia/Tokyo")) == expected


@pytest.mark.parametrize(
    ("end", "last"),
    [("2024-07-02", "2024-07-02"), ("2024-07-04", "2024-07-03"), ("2031-01-01", "2024-07-05")],
)
def test_the_end_is_the_last_day_taken_but_never_one_to_come(tmp_path, end, last):
    bars = fetched(tmp_path, Yahoo(), tickers="[AAPL]", end=end)
    assert bars["date"].tolist() == [pd.Timestamp(d) for d in SESSIONS if d <= last]


def test_a_start_with_no_finished_session_behind_it_is_refused(tmp_path):
    source = Yahoo()
    with pytest.raises(DataError, match=r"yfinance\.start: 2024-07-08 .* finished session, 2024-07-05"):
        fetched(tmp_path, source, start="2024-07-08")
    assert source.asked == []


def test_yahoo_is_asked_in_its_own_spelling_and_the_bars_keep_the_persons(tmp_path):
    source = Yahoo()
    bars = fetched(tmp_path, source, tickers="[BRK.B, BF-B, aapl, ^GSPC]")
    assert source.asked == ["BRK-B", "BF-B", "AAPL", "^GSPC"]
    assert bars["symbol"].unique().tolist() == ["BRK.B", "BF-B", "aapl", "^GSPC"]


def test_a_ticker_named_twice_is_asked_once_and_keeps_its_first_spelling(tmp_path):
    source = Yahoo()
    bars = fetched(tmp_path, source, tickers="[BRK.B, AAPL, BRK-B, brk.b, AAPL]")
    assert source.asked == ["BRK-B", "AAPL"]
    assert bars["symbol"].value_counts().to_dict() == {"BRK.B": 4, "AAPL": 4}


# Interrupted, finished, started anew


def test_an_interrupted_run_asks_for_exactly_what_is_missing(tmp_path):
    tickers = "[AAPL, MSFT, IBM, ORCL, BRK.B]"
    prices = {t: [frame(price=5.0 + i)] for i, t in enumerate(["AAPL", "MSFT", "IBM", "ORCL"])}
    first = Yahoo(**prices | {"IBM": [KeyboardInterrupt()]})
    with pytest.raises(KeyboardInterrupt):
        fetched(tmp_path, first, tickers=tickers)
    assert first.asked == ["AAPL", "MSFT", "IBM"]
    days = "2024-07-01_2024-07-05"
    assert kept(tmp_path) == [f"{days}/AAPL.parquet", f"{days}/MSFT.parquet"]

    second = Yahoo(**prices)
    bars = fetched(tmp_path, second, tickers=tickers)
    assert second.asked == ["IBM", "ORCL", "BRK-B"]
    (tmp_path / "other").mkdir()
    pd.testing.assert_frame_equal(bars, fetched(tmp_path / "other", Yahoo(**prices), tickers=tickers))


def test_a_file_that_was_being_written_when_the_run_died_counts_as_missing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fetched(tmp_path, Yahoo(MSFT=[KeyboardInterrupt()]))
    folder = tmp_path / "cache/unfinished/2024-07-01_2024-07-05"
    (folder / ".MSFT.parquet.123.tmp").write_bytes(b"PAR1")
    source = Yahoo()
    fetched(tmp_path, source)
    assert source.asked == ["MSFT", "IBM"]


def test_a_finished_run_leaves_nothing_behind_and_the_next_asks_afresh(tmp_path):
    fetched(tmp_path, Yahoo())
    assert kept(tmp_path) == []
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["report.json"]
    source = Yahoo(AAPL=[frame(price=99.0)])
    assert fetched(tmp_path, source)["open"].iloc[0] == 99
    assert source.asked == ["AAPL", "MSFT", "IBM"]


def test_what_an_interrupted_run_kept_does_not_serve_for_other_days(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fetched(tmp_path, Yahoo(IBM=[KeyboardInterrupt()]))
    source = Yahoo(IBM=[KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        fetched(tmp_path, source, now=MONDAY_NIGHT)
    assert source.asked == ["AAPL", "MSFT", "IBM"]
    assert {name.split("/")[0] for name in kept(tmp_path)} == {"2024-07-01_2024-07-08"}


def test_a_disk_that_fails_is_not_taken_for_the_network(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(yahoo, "write_parquet", full)
    source = Yahoo()
    with pytest.raises(OSError, match="No space left"):
        fetched(tmp_path, source)
    assert source.asked == ["AAPL"]


# Retries, and giving up


def test_a_failure_that_may_pass_is_retried_with_growing_jittered_waits(tmp_path, capsys):
    failures = [
        NoConnection("Could not resolve host"),
        YFRateLimitError(),
        YFDataException("*** YAHOO! FINANCE IS CURRENTLY DOWN! ***"),
        json.JSONDecodeError("Expecting value", "<html>", 0),
    ]
    source = Yahoo(AAPL=[*failures, frame()])
    bars = fetched(tmp_path, source, tickers="[AAPL]", retries=4)
    assert (len(bars), source.asked) == (4, ["AAPL"] * 5)
    waits = source.clock.backoffs
    assert len(waits) == 4
    for wait, shortest in zip(waits, [2, 4, 8, 16], strict=True):
        assert shortest <= wait <= shortest + 2
    assert any(wait != round(wait) for wait in waits)
    assert capsys.readouterr().err == ""


def test_waits_stop_growing_at_a_minute(tmp_path):
    source = Yahoo(AAPL=[*[YFRateLimitError()] * 9, frame()])
    fetched(tmp_path, source, tickers="[AAPL]", retries=9)
    assert max(source.clock.backoffs) == 60


def test_a_ticker_yahoo_does_not_know_is_asked_once_and_reported(tmp_path, capsys):
    source = Yahoo(**{"BAD-X": [no_such_ticker("BAD-X")]})
    bars = fetched(tmp_path, source, tickers="[AAPL, BAD.X, MSFT]", retries=5)
    assert source.asked == ["AAPL", "BAD-X", "MSFT"]
    assert source.clock.backoffs == []
    assert bars["symbol"].unique().tolist() == ["AAPL", "MSFT"]
    reason = "YFPricesMissingError: $BAD-X: No data found, symbol may be delisted"
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1 of 3 tickers could not be got")
    assert lines[1:] == [f"  BAD.X: {reason}"]
    assert report(tmp_path) == {
        "retrieved_at": "2024-07-05T23:00:00+00:00",
        "first": "2024-07-01",
        "last": "2024-07-05",
        "got": 2,
        "given_up": {"BAD.X": reason},
    }
    assert kept(tmp_path) == []  # Yahoo has answered for each, so the run is finished


@pytest.mark.parametrize("days", [["2024-07-08"], ["2024-06-28"], []])
def test_a_ticker_without_a_bar_in_those_days_is_given_up(tmp_path, days):
    fetched(tmp_path, Yahoo(MSFT=[frame(days)]))
    assert "no bar from 2024-07-01 to 2024-07-05" in report(tmp_path)["given_up"]["MSFT"]


def test_the_run_goes_on_past_a_ticker_that_fails_and_the_next_run_asks_for_that_one_alone(tmp_path):
    source = Yahoo(MSFT=[NoConnection("reset by peer")])
    bars = fetched(tmp_path, source, retries=2)
    assert source.asked == ["AAPL", "MSFT", "MSFT", "MSFT", "IBM"]
    assert bars["symbol"].unique().tolist() == ["AAPL", "IBM"]
    assert report(tmp_path)["given_up"] == {"MSFT": "ConnectionError: reset by peer"}
    again = Yahoo()
    assert fetched(tmp_path, again)["symbol"].unique().tolist() == ["AAPL", "MSFT", "IBM"]
    assert again.asked == ["MSFT"]
    assert report(tmp_path)["given_up"] == {}
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "strange", [KeyError("chart"), TypeError("'NoneType' object"), AttributeError("x")]
)
def test_an_answer_yfinance_stumbles_over_costs_one_ticker_not_the_run(tmp_path, strange):
    bars = fetched(tmp_path, Yahoo(MSFT=[strange]))
    assert bars["symbol"].unique().tolist() == ["AAPL", "IBM"]
    assert type(strange).__name__ in report(tmp_path)["given_up"]["MSFT"]


def test_none_got_is_an_error_with_the_reason(tmp_path):
    source = Yahoo(AAPL=[no_such_ticker("AAPL")], MSFT=[NoConnection("no route")])
    with pytest.raises(DataError, match=r"none could be got.*AAPL: No data found") as caught:
        fetched(tmp_path, source, tickers="[AAPL, MSFT]")
    assert "\n" not in str(caught.value)
    assert list(report(tmp_path)["given_up"]) == ["AAPL", "MSFT"]


@pytest.mark.parametrize("cause", [NoConnection("Could not resolve host"), YFRateLimitError()])
def test_no_network_ends_the_run_after_three_tickers(tmp_path, cause):
    tickers = [f"T{i}" for i in range(500)]
    source = Yahoo(**{t: [cause] for t in tickers})
    with pytest.raises(DataError) as caught:
        fetched(tmp_path, source, tickers=f"[{', '.join(tickers)}]", retries=3)
    assert source.asked == ["T0"] * 4 + ["T1"] * 4 + ["T2"] * 4
    assert source.clock.time < 1000 + 3 * 20 + 1  # 2 + 4 + 8 seconds a ticker, and jitter
    message = str(caught.value)
    assert "\n" not in message
    assert type(cause).__name__ in message
    assert "0 of 500 tickers are kept" in message


def test_a_network_lost_midway_ends_the_run_and_keeps_what_it_had(tmp_path):
    lost = {t: [NoConnection("timed out")] for t in ["C", "D", "E", "F"]}
    with pytest.raises(DataError, match="2 of 6 tickers are kept"):
        fetched(tmp_path, Yahoo(**lost), tickers="[A, B, C, D, E, F]")
    source = Yahoo()
    fetched(tmp_path, source, tickers="[A, B, C, D, E, F]")
    assert source.asked == ["C", "D", "E", "F"]


@pytest.mark.parametrize("answer", [frame(), no_such_ticker("C")])
def test_any_answer_between_shows_that_yahoo_is_there(tmp_path, answer):
    failing = {t: [NoConnection("timed out")] for t in "ABDE"}
    fetched(tmp_path, Yahoo(**failing, C=[answer]), tickers="[A, B, C, D, E, F]", retries=0)
    assert list(report(tmp_path)["given_up"])[:2] == ["A", "B"]


# Pace


def test_requests_keep_the_pace_retries_included(tmp_path):
    source = Yahoo(MSFT=[YFRateLimitError(), frame()], IBM=[no_such_ticker("IBM")])
    fetched(tmp_path, source, rate=10, tickers="[AAPL, MSFT, IBM, ORCL]")
    assert source.asked == ["AAPL", "MSFT", "MSFT", "IBM", "ORCL"]
    assert [t - 1000 for t in source.times] == pytest.approx([0, 6, 12, 18, 24])


def test_an_answer_that_takes_longer_than_the_pace_is_followed_at_once(tmp_path):
    source = Yahoo(takes=8.0)
    fetched(tmp_path, source, rate=10)
    assert [t - 1000 for t in source.times] == [0, 8, 16]
    quick = Yahoo(takes=2.0)
    fetched(tmp_path, quick, rate=10)
    assert [t - 1000 for t in quick.times] == [0, 6, 12]


# Params


def test_tickers_may_stand_in_a_file(tmp_path):
    path = tmp_path / "tickers.txt"
    path.write_text("# big ones\nAAPL\n\n  BRK.B  # Berkshire\nON\n#MSFT\n")
    assert params(tmp_path, tickers=str(path)).tickers == ("AAPL", "BRK.B", "ON")


def test_a_relative_tickers_file_is_of_the_workspace(tmp_path):
    (tmp_path / "tickers.txt").write_text("IBM\n")
    assert params(tmp_path, tickers="tickers.txt").tickers == ("IBM",)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"tickers": "absent.txt"}, r"yfinance\.tickers: .*absent\.txt"),
        ({"tickers": "[]"}, r"yfinance\.tickers: .*at least 1"),
        ({"tickers": "null"}, r"yfinance\.tickers"),
        ({"tickers": "[AAPL, ON]"}, r"yfinance\.tickers\.1: .*quote it.*True"),
        ({"tickers": "[AAPL, 7203]"}, r"yfinance\.tickers\.1: .*7203"),
        ({"tickers": "['../AAPL']"}, r"yfinance\.tickers\.0: .*not a ticker.*\.\./AAPL"),
        ({"tickers": "['AAPL MSFT']"}, r"yfinance\.tickers\.0: .*AAPL MSFT"),
        ({"tickers": "['']"}, r"yfinance\.tickers\.0"),
        ({"start": "soon"}, r"yfinance\.start: .*soon"),
        ({"start": "'2024-02-30'"}, r"yfinance\.start: .*2024-02-30"),
        ({"end": "2024-06-30"}, r"yfinance\.end: .*before yfinance\.start"),
        ({"rate": 0}, r"yfinance\.requests_per_minute: .*greater than 0"),
        ({"rate": ".inf"}, r"yfinance\.requests_per_minute"),
        ({"retries": -1}, r"yfinance\.retries"),
        ({"retries": "1\n  retires: 2"}, r"yfinance\.retires is not a known key"),
    ],
)
def test_impossible_params_are_refused_by_name(tmp_path, changed, named):
    with pytest.raises(ParamsError, match=named) as caught:
        params(tmp_path, **changed)
    assert "\n" not in str(caught.value)


def test_a_tickers_file_of_comments_alone_is_refused(tmp_path):
    path = tmp_path / "tickers.txt"
    path.write_text("# none yet\n\n")
    with pytest.raises(ParamsError, match=r"yfinance\.tickers: .*at least 1"):
        params(tmp_path, tickers=str(path))


def test_a_tickers_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "tickers.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParamsError, match=r"yfinance\.tickers: .*readable file"):
        params(tmp_path, tickers=str(path))


# yfinance itself, down to the HTTP request


class Response:
    def __init__(self, text: str, status: int = 200):
        self.text = text
        self.content = text.encode()
        self.status_code = status
        self.url = "https://query2.finance.yahoo.com/v8/finance/chart/"

    def json(self):
        return json.loads(self.text)


def chart(days=SESSIONS, price: float = 10.0) -> Response:
    """Yahoo's chart document: times are the sessions' openings."""
    opens = pd.DatetimeIndex([f"{d} 09:30" for d in days], tz="America/New_York")
    n = len(days)
    quote = {"open": [price] * n, "high": [price + 2] * n, "low": [price - 1] * n}
    quote |= {"close": [price + 1] * n, "volume": [100] * n}
    result = {
        "meta": {
            "currency": "USD",
            "instrumentType": "EQUITY",
            "exchangeTimezoneName": "America/New_York",
            "validRanges": ["1d", "max"],
        },
        "timestamp": [int(t.timestamp()) for t in opens],
        "indicators": {"quote": [quote], "adjclose": [{"adjclose": [price / 2] * n}]},
        # Neither a split nor a dividend may change what the arrays say.
        "events": {
            "splits": {"1": {"date": int(opens[1].timestamp()), "numerator": 4, "denominator": 1}},
            "dividends": {"2": {"date": int(opens[2].timestamp()), "amount": 0.5}},
        },
    }
    return Response(json.dumps({"chart": {"result": [result], "error": None}}))


class Http:
    """Answers yfinance's own requests; `charts` are the answers to come for prices."""

    def __init__(self):
        self.charts = []
        self.asked = []

    def __call__(self, session, method: str, url: str, **request):
        if "/chart/" not in url:
            return Response("crumb")
        self.asked.append((url.rsplit("/", 1)[1], request["params"]))
        answer = self.charts.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def http(tmp_path, monkeypatch) -> Http:
    """yfinance as in a new process, its home in `tmp_path/home`, and no network behind it."""
    answering = Http()
    monkeypatch.setattr(Session, "request", lambda *a, **k: answering(*a, **k))
    monkeypatch.setattr(yfinance.data.SingletonMeta, "_instances", {})
    monkeypatch.setattr(yfinance.cache._CookieCacheManager, "_Cookie_cache", None)
    for manager in ("_TzDBManager", "_CookieDBManager", "_ISINDBManager"):
        monkeypatch.setattr(getattr(yfinance.cache, manager), "_cache_dir", str(tmp_path / "home"))
    return answering


def through_yfinance(folder: Path, retries=2, tickers="[BRK.B]") -> tuple[pd.DataFrame, Clock]:
    clock = Clock()
    asked = params(folder, tickers=tickers, retries=retries)
    bars, _ = yahoo_market(
        asked, cache=folder / "cache", now=FRIDAY_NIGHT, clock=clock, sleep=clock.sleep
    )
    return bars, clock


def test_the_fake_answers_as_yfinance_does(tmp_path, http):
    http.charts = [chart()]
    answer = yahoo._yahoo(tmp_path)("BRK-B", date(2024, 7, 1), date(2024, 7, 5))
    expected = frame()
    expected.loc[expected.index[1], "Stock Splits"] = 4.0
    expected.loc[expected.index[2], "Dividends"] = 0.5
    pd.testing.assert_frame_equal(answer, expected, check_freq=False)


def test_one_request_a_ticker_for_whole_days_in_new_york(tmp_path, http):
    http.charts = [chart()]
    bars, _ = through_yfinance(tmp_path)
    assert bars["date"].tolist() == [pd.Timestamp(d) for d in SESSIONS]
    assert bars.iloc[0].tolist() == ["BRK.B", pd.Timestamp("2024-07-01"), 10, 12, 9, 11, 100, 5]
    [(ticker, request)] = http.asked
    assert (ticker, request["interval"]) == ("BRK-B", "1d")
    assert pd.Timestamp(request["period1"], unit="s") == pd.Timestamp("2024-07-01 04:00")
    assert pd.Timestamp(request["period2"], unit="s") == pd.Timestamp("2024-07-06 04:00")


def test_yfinance_keeps_its_files_in_the_cache_folder_and_out_of_the_home(tmp_path, http):
    http.charts = [chart()]
    through_yfinance(tmp_path)
    assert (tmp_path / "cache/cookies.db").exists()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "bad",
    [
        [NoConnection("Failed to connect")],
        [Response("Too Many Requests", 429)] * 2,  # yfinance itself asks again with another cookie
        [Response("<html>Bad gateway</html>", 502)] * 2,
        [Response("Will be right back")],
        [Response("")],
    ],
)
def test_yfinance_recovers_from_what_passes(tmp_path, http, bad):
    http.charts = [*bad, chart()]
    bars, clock = through_yfinance(tmp_path)
    assert len(bars) == 4
    assert len(clock.backoffs) == 1


def test_yfinance_does_not_ask_again_for_a_ticker_that_yahoo_lacks(tmp_path, http):
    error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
    missing = Response(json.dumps({"chart": {"result": None, "error": error}}), 404)
    http.charts = [missing, missing, chart()]
    bars, clock = through_yfinance(tmp_path, tickers="[GONE, AAPL]")
    assert bars["symbol"].unique().tolist() == ["AAPL"]
    assert clock.backoffs == []
    assert "No data found, symbol may be delisted" in report(tmp_path)["given_up"]["GONE"]


def loading(folder: Path, tickers: str, start: str) -> Workspace:
    workspace = Workspace(folder)
    params(folder, tickers=tickers, start=start)
    with workspace.params.open("a") as file:
        file.write("load: {source: yfinance, path: prices}\n")
    return workspace


def test_a_load_lands_what_yahoo_answers_and_what_was_asked_for_is_whole(tmp_path, http):
    """A ticker that failed is covered by nothing: its absence withdraws no bar."""
    workspace = loading(tmp_path, tickers="[GONE, BRK.B]", start="2024-06-28")
    error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
    missing = Response(json.dumps({"chart": {"result": None, "error": error}}), 404)
    http.charts = [missing, missing, chart()]
    landing = read_landing(load(workspace, now=FRIDAY_NIGHT))
    assert landing.rows["symbol"].tolist() == ["BRK.B"] * 4
    assert landing.rows.columns.tolist()[-1] == "adj_close"
    assert (landing.source, landing.basis, landing.history) == ("yfinance", "split_adjusted", "assumed")
    assert landing.received_at == FRIDAY_NIGHT
    assert landing.covers == {"BRK.B": (date(2024, 6, 28), date(2024, 7, 5))}
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["landing", "raw"]
    assert [p.name for p in (tmp_path / "data/raw").iterdir()] == ["yfinance"]


def test_splits_and_dividends_land_beside_the_bars_for_the_days_that_were_asked_for(tmp_path, http):
    workspace = loading(tmp_path, tickers="[BRK.B]", start="2024-06-28")
    http.charts = [chart()]
    load(workspace, now=FRIDAY_NIGHT)
    bars, actions = landings(workspace)
    assert (actions.source, actions.basis) == ("yfinance_actions", "split_adjusted")
    assert actions.received_at == bars.received_at
    assert actions.covers == bars.covers
    assert actions.rows.empty
    assert actions.actions[["symbol", "date", "kind", "ratio", "amount"]].fillna(0).values.tolist() == [
        ["BRK.B", pd.Timestamp("2024-07-02"), "split", 4.0, 0.0],
        ["BRK.B", pd.Timestamp("2024-07-03"), "dividend", 0.0, 0.5],
    ]


def test_a_dividend_of_a_day_without_a_bar_is_an_action_and_no_bar(tmp_path):
    answer = frame()
    answer.loc[answer.index[2], ["Open", "High", "Low", "Close", "Adj Close", "Volume"]] = None
    answer.loc[answer.index[2], "Dividends"] = 0.25
    asked = params(tmp_path, tickers="[AAPL]")
    bars, actions = yahoo.yahoo_market(
        asked, tmp_path / "cache", ask=Yahoo(AAPL=[answer]), now=FRIDAY_NIGHT, sleep=lambda s: None
    )
    assert bars["date"].tolist() == [pd.Timestamp(d) for d in SESSIONS if d != "2024-07-03"]
    assert actions["amount"].tolist() == [0.25]


def test_tickers_of_a_load_may_come_from_a_file(tmp_path, http):
    workspace = loading(tmp_path, tickers="[AAPL, MSFT]", start="2024-07-01")
    (tmp_path / "mine.txt").write_text("BRK.B\n")
    http.charts = [chart()]
    landing = read_landing(load(workspace, data=tmp_path / "mine.txt", now=FRIDAY_NIGHT))
    assert landing.covers == {"BRK.B": (date(2024, 7, 1), date(2024, 7, 5))}


@pytest.mark.component
def test_no_other_source_loads_yfinance():
    code = "import sys, pitwise.load; sys.exit('yfinance' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT.root, timeout=60, check=False)
    assert done.returncode == 0
