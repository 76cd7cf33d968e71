"""A week judged: what is broken is named, what cannot be told is not."""

import json
import re
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pandas as pd
import pytest

from monitoring.alert import alert
from monitoring.findings import EXIT, Finding, verdict
from monitoring.judge import Judged, again, judge
from monitoring.material import Material, Model
from monitoring.page import week_page
from monitoring.settings import MonitorParams
from monitoring.sketch import quantile_edges, sketch, three_ways
from monitoring.weeks import Week
from pitwise.bars.calendar import session_close, session_date, session_number
from pitwise.errors import StoreError
from pitwise.evaluation.sessions import by_session

WEEK = Week.named("2024-W23")
SYMBOLS = 25
LEANT_ON = {"feature": "f", "moved": 0.1, "moved_se": 0.01, "lost": None, "lost_se": None}
PARAMS = MonitorParams(
    reference_sessions=120,
    min_reference_sessions=60,
    min_sessions=3,
    false_alarms_per_year=0.2,
    accuracy_sessions=40,
    loss=0.05,
    importance_windows=100,
    served_share=0.95,
    alert=None,
    retrain="propose",
    samples=100,
    seed=1,
)
LAST = session_number(pd.Series(WEEK.days[-1:]))[0]
DAYS = session_date(np.arange(LAST - 124, LAST + 1))
CLOSES = pd.DatetimeIndex(session_close(DAYS.to_series()))


def made(skill: float, seed: int, days: pd.DatetimeIndex = DAYS) -> pd.DataFrame:
    """Forecasts and outcomes of each close; the score correlates by `skill` with the return."""
    rng = np.random.default_rng(seed)
    n = len(days) * SYMBOLS
    score, noise = rng.normal(size=(2, n))
    label = 0.01 * (skill * score + np.sqrt(1 - skill**2) * noise)
    return pd.DataFrame(
        {
            "symbol": np.tile([f"S{i:02}" for i in range(SYMBOLS)], len(days)),
            "event_timestamp": np.repeat(session_close(days.to_series()).to_numpy(), SYMBOLS),
            "for_session": np.repeat(session_date(session_number(days) + 1), SYMBOLS),
            "model_version": "1",
            "role": "champion",
            "score": score,
            "log_return": score / 1000,
            "p_up": 1 / (1 + np.exp(-score / 10)),
            "scale": 0.01 * np.sqrt(3) / np.pi,
            "horizon": 1,
            "label": label,
            "label_open": label,
            "last_return": rng.normal(size=n) / 100,
            "outcome": "matured",
        }
    ).assign(event_timestamp=lambda t: pd.to_datetime(t["event_timestamp"], utc=True))


def features(moved: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(len(DAYS) * SYMBOLS, 2)) + rng.normal(size=(len(DAYS), 2)).repeat(SYMBOLS, 0)
    table = pd.DataFrame(rows, columns=["f", "g"]).assign(event_timestamp=CLOSES.repeat(SYMBOLS))
    table.loc[table["event_timestamp"] >= WEEK.closes[0], "g"] += moved
    return table


def sketched(moved: float = 0.0):
    table = features(moved)
    return sketch(table, quantile_edges(three_ways(table.iloc[: 60 * SYMBOLS], ["f", "g"])))


@pytest.fixture(scope="module")
def calm() -> Material:
    before = session_date(np.arange(LAST - 324, LAST - 124))
    bars = pd.DataFrame({"symbols": 1.0, "jumped": 0.0, "price_order": 0.999}, index=CLOSES)
    return Material(
        features=sketched(),
        bars=bars,
        symbols=pd.Series(SYMBOLS, CLOSES),
        forecasts=made(0.3, 1),
        models={"1": Model("1", "tree", "abc")},
        expected={"tree": by_session(made(0.3, 2, before), 1)},
        set_aside=pd.DataFrame({"date": [], "reason": [], "n": [], "share": []}),
        seals=pd.DataFrame({"date": DAYS}),
    )


@pytest.fixture(scope="module")
def quiet(calm) -> Judged:
    return judge(calm, WEEK, PARAMS)


def kinds(judged: Judged) -> list[str]:
    return [found["kind"] for found in judged.document["findings"]]


def of_week(table: pd.DataFrame) -> pd.Series:
    return table["event_timestamp"] >= WEEK.closes[0]


def test_a_quiet_week_is_ok_and_held_against_what_was_expected(quiet):
    document = quiet.document
    assert (document["verdict"], document["findings"]) == ("ok", [])
    assert document["accuracy"]["expected"]["inside"]
    assert document["accuracy"]["expected"]["sessions"] == 40
    # Forecasts made on Friday are of the week after; those for Monday were made on the Friday before.
    assert document["accuracy"]["week"]["champion"]["n_sessions"] == 5
    assert document["accuracy"]["outcomes"] == {"matured": 124 * SYMBOLS, "open": SYMBOLS}
    assert document["accuracy"]["live"]["champion"]["coverage_80"] == pytest.approx(0.8, abs=0.06)
    json.dumps(document, allow_nan=False)
    page = week_page(quiet, None)
    assert "nothing is beyond its limits" in page
    assert "http" not in page


def test_attention_stands_beside_that_of_the_week_before(quiet):
    def told(shares):
        rows = [{"back": at, "share": share, "share_se": 0.01} for at, share in enumerate(shares)]
        return {"importance": {"n": 5, "differ": 0.0, "importance": [LEANT_ON], "attention": rows}}

    judged = replace(quiet, document=quiet.document | told([0.3, 0.7]))
    rows = re.findall(r"<tr><th scope=\"row\">(\d)</th>(.*?)</tr>", week_page(judged, told([0.4, 0.6])))
    cells = {back: re.findall(r">([^<]+)</td>", row) for back, row in rows}
    assert cells == {"1": ["70.00%", "+10.00%", "1.00%"], "0": ["30.00%", "−10.00%", "1.00%"]}
    assert list(cells) == ["1", "0"]
    assert "Attention" not in week_page(replace(quiet, document=quiet.document | told([])), None)


def test_what_is_known_later_changes_nothing(calm):
    week = WEEK.before()
    later = calm.forecasts["event_timestamp"] > week.end
    rows = calm.forecasts[~later]
    # What is bought at Friday's open is sold at Monday's.
    sold = rows["for_session"] < week.days[-1]
    cut = replace(
        calm,
        forecasts=rows.assign(label_open=rows["label_open"].where(sold)),
        bars=calm.bars[calm.bars.index <= week.end],
        symbols=calm.symbols[calm.symbols.index <= week.end],
    )
    assert judge(calm, week, PARAMS).document == judge(cut, week, PARAMS).document


def test_a_model_that_became_worse_is_named_and_retraining_proposed(calm):
    judged = judge(replace(calm, forecasts=made(0.0, 1)), WEEK, PARAMS)
    assert kinds(judged) == ["worse"]
    assert judged.document["verdict"] == "act"
    assert "dvc exp run" in judged.document["todo"]
    assert judged.document["accuracy"]["expected"]["charts"]["CUSUM"]["alarm"] < "2024-06-03"


def test_features_that_drifted_are_a_warning_and_forecasts_alone_an_alarm(calm):
    judged = judge(replace(calm, features=sketched(moved=6.0)), WEEK, PARAMS)
    assert (kinds(judged), judged.document["verdict"]) == (["feature_drift"], "warn")
    assert "g" in judged.document["reason"]
    other = calm.forecasts.copy()
    other.loc[of_week(other), "score"] *= 20
    judged = judge(replace(calm, forecasts=other), WEEK, PARAMS)
    assert (kinds(judged), judged.document["verdict"]) == (["forecast_drift"], "act")
    assert "no feature did" in judged.document["reason"]


def test_stale_forecasts_and_a_missing_session_are_named(calm):
    stale = calm.forecasts.copy()
    friday, thursday = (stale["event_timestamp"] == CLOSES[at] for at in (-1, -2))
    stale.loc[friday, "log_return"] = stale.loc[thursday, "log_return"].to_numpy()
    bars = calm.bars.drop(WEEK.closes[2])
    judged = judge(replace(calm, forecasts=stale, bars=bars), WEEK, PARAMS)
    assert sorted(kinds(judged)) == ["missing_session", "repeated"]
    assert "2024-06-05" in str(judged.document["findings"])
    assert judged.document["health"]["sessions"] == 4


def test_a_swapped_model_is_an_alarm_and_one_that_is_gone_a_warning(calm):
    for problem, level in (("model_changed", "act"), ("model_gone", "warn")):
        of = {"1": Model("1", "tree", problem=problem, text="version 1 is another")}
        judged = judge(replace(calm, models=of), WEEK, PARAMS)
        assert (kinds(judged), judged.document["verdict"]) == ([problem], level)


def test_too_little_is_not_judged_and_the_rest_of_the_report_is_made(calm):
    none = judge(replace(calm, forecasts=calm.forecasts.iloc[:0]), WEEK, PARAMS)
    assert (none.document["verdict"], kinds(none)) == ("ok", ["no_forecasts"])
    assert "not judged yet" in none.document["reason"]
    assert none.document["drift"]["features"]["judged"]
    early = judge(calm, Week.of(DAYS[40].date()), PARAMS)
    assert "fewer than 60" in early.document["drift"]["features"]["reason"]
    stopped = calm.forecasts[calm.forecasts["event_timestamp"] < WEEK.before().closes[0]]
    assert kinds(judge(replace(calm, forecasts=stopped), WEEK, PARAMS)) == ["no_forecasts"]
    for judged in (none, early):
        assert week_page(judged, None)


def test_the_worst_finding_is_the_verdict_and_the_page_escapes_it(quiet):
    judged = replace(quiet, document=dict(quiet.document), findings=[])
    again(judged, [Finding("warn", "other_windows", "b"), Finding("act", "not_of_the_model", "<i>a")])
    assert judged.document["verdict"] == "act"
    assert judged.document["reason"] == "2024-W23: <i>a; and 1 more below."
    page = week_page(judged, None)
    assert "&lt;i&gt;a" in page
    assert "<i>" not in page
    assert EXIT == {"ok": 0, "warn": 3, "act": 4}
    assert verdict("2024-W23", [Finding("note", "unread", "x")], True)["verdict"] == "ok"


class Hook(BaseHTTPRequestHandler):
    taken: list[dict] = []  # noqa: RUF012

    def do_POST(self):
        Hook.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(500 if self.path == "/down" else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_url_or_a_command_is_told_and_a_failure_says_so_without_the_url(quiet, tmp_path):
    document = quiet.document
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        alert(f"{url}/hook", document, "page.html")
        with pytest.raises(StoreError, match="nobody was told") as failed:
            alert(f"{url}/down", document, "page.html")
        server.shutdown()
    assert "http" not in str(failed.value)
    assert Hook.taken[0]["week"] == "2024-W23"
    assert Hook.taken[0]["page"] == "page.html"
    alert(f"tee {tmp_path}/told.json", document, "page.html")
    assert json.loads((tmp_path / "told.json").read_text()) == Hook.taken[0]
    with pytest.raises(StoreError, match="nobody was told"):
        alert(f"{sys.executable} -c 'import sys; sys.exit(3)'", document, "page.html")
