import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from scipy.stats import spearmanr
from support import small_runs as small
from support.project import with_params

from pitwise.errors import ParamsError
from pitwise.features.indicators import BY_NAME, NAMES
from pitwise.features.windows import gather
from pitwise.stage import load_params
from pitwise.workspace import read_json
from training import select as stage
from training.models.scaler import Scaler
from training.select import (
    CLOSE,
    GROUPS,
    SelectParams,
    SessionIC,
    candidates_at_window_end,
    choose,
    seen_in_training,
    session_ics,
    standard_ranks,
    strength,
)


def select_params(**changed) -> SelectParams:
    settings = {"method": "correlation", "n": 8, "max_correlation": 0.95, "features": ("close",)}
    return SelectParams(**settings | changed)


def select(rows: pd.DataFrame, window: int, params: SelectParams) -> dict:
    return stage.select(*seen_in_training([(rows, rows[:0])], window), params)


def seen_at(rows: pd.DataFrame, ends: np.ndarray) -> np.ndarray:
    return candidates_at_window_end(rows, rows[:0], ends, small.WINDOW)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return small.dataset_rows(small.market(6, 160, seed=12))


@pytest.fixture(scope="module")
def ends(rows) -> np.ndarray:
    return np.flatnonzero(rows["split"] == "train")


def ranking(report: dict) -> pd.DataFrame:
    return pd.DataFrame(report["ranking"]).set_index("feature")


def test_candidates_enter_as_the_models_scaler_makes_them(rows, ends):
    scaler = Scaler(NAMES, small.WINDOW)
    windows = torch.from_numpy(gather(rows[NAMES].to_numpy("float32"), ends, small.WINDOW)).double()
    theirs = scaler.relative(windows)[:, -1].numpy()
    ours = seen_at(rows, ends)[:, scaler.order]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert np.isfinite(ours).all()


def test_ranks_share_ties_and_a_constant_has_none():
    ranks = standard_ranks(np.array([[5.0, 7.0], [9.0, 7.0], [5.0, 7.0], [1.0, 7.0]]))
    by_hand = (np.array([2.5, 4, 2.5, 1]) - 2.5) / math.sqrt((1.5**2 + 1.5**2) / 4)
    np.testing.assert_allclose(ranks[:, 0], by_hand)
    np.testing.assert_array_equal(ranks[:, 1], 0)


def test_strength_of_four_rows_in_two_sessions_by_hand():
    """Standard ranks are (-3, -1, 1, 3) / sqrt 5; the residuals' scores (9, -9, -9, 9) / 25."""
    ranks = standard_ranks(np.array([[1.0], [2.0], [3.0], [4.0]]))
    label_ranks = standard_ranks(np.array([1.0, 3.0, 2.0, 4.0]))
    correlation, t = strength(ranks, label_ranks, np.array([0, 1, 1, 0]))
    assert correlation == pytest.approx([0.8])
    assert t == pytest.approx([0.8 / (math.hypot(0.72, 0.72) / 4)])


@pytest.mark.parametrize("symbols", [1, 5, 60])
def test_strength_is_spearmans_with_errors_clustered_by_session(symbols):
    """Statsmodels' regression of rank on rank is the reference, for one stock as for many."""
    rng = np.random.default_rng(symbols)
    sessions = np.repeat(np.arange(80), symbols)
    common = rng.normal(size=80)[sessions]
    x = np.round(common + rng.normal(size=(4, len(sessions))), 1).T  # with ties
    label = 0.2 * x[:, 0] + rng.normal(size=80)[sessions] + rng.normal(size=len(sessions))
    ranks, label_ranks = standard_ranks(x), standard_ranks(label)
    correlation, t = strength(ranks, label_ranks, sessions)
    for i in range(4):
        clustered = {"groups": sessions, "use_correction": False}
        fitted = sm.OLS(label_ranks, ranks[:, i]).fit(cov_type="cluster", cov_kwds=clustered)
        assert correlation[i] == pytest.approx(spearmanr(x[:, i], label).statistic)
        assert t[i] == pytest.approx(fitted.tvalues[0])


def test_a_day_counts_once_however_many_stocks_agree():
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(50, 1)), rng.normal(size=50)
    days = np.arange(50)
    one = strength(standard_ranks(x), standard_ranks(label), days)
    ten = strength(
        standard_ranks(np.tile(x, (10, 1))), standard_ranks(np.tile(label, 10)), np.tile(days, 10)
    )
    np.testing.assert_allclose(ten, one)


def alike(n: int, **pairs: float) -> np.ndarray:
    """Likeness 0 but for pairs: `alike(6, p01=0.9)`."""
    likeness = np.eye(n)
    for pair, value in pairs.items():
        i, j = int(pair[1]), int(pair[2])
        likeness[i, j] = likeness[j, i] = value
    return likeness


@pytest.mark.parametrize(
    ("t", "likeness", "n", "chosen"),
    [
        ([1, 2, 3, 0, 4, -5], alike(6), 3, [3, 4, 5]),
        ([1, 2, 3, 0, 4, -5], alike(6), 1, [3]),
        ([2, 2, 2, 0, 2, 2], alike(6), 4, [0, 1, 2, 3]),
        ([1, 2, 3, 0, 4, -5], alike(6, p45=0.96), 3, [2, 3, 5]),
        ([1, 2, 3, 0, 4, -5], alike(6, p45=0.95), 3, [3, 4, 5]),
        # 4 is too like 5, and 2 only too like 4, which is not taken
        ([1, 2, 3, 0, 4, -5], alike(6, p45=0.96, p24=0.99), 3, [2, 3, 5]),
        # every other is too like 5: the one least like it fills up, then the next
        ([1, 2, 3, 0, 4, -5], alike(6, p05=0.97, p15=0.98, p25=0.99, p45=1), 3, [0, 3, 5]),
        ([1, 2, 3, 0, 4, -5], alike(6, p05=0.97, p15=0.98, p25=0.99, p45=1), 4, [0, 1, 3, 5]),
        # ... unless the first that filled up makes it the most alike
        ([1, 2, 3, 0, 4, -5], alike(6, p05=0.97, p15=0.98, p25=0.99, p45=1, p01=1), 4, [0, 2, 3, 5]),
        # the last digits of equal sums do not break a tie
        ([1 + 1e-9, 1, 1 + 1e-9, 0, 1 + 2e-9, 1 + 3e-9], alike(6), 3, [0, 1, 3]),
    ],
)
def test_the_strongest_that_are_not_redundant_are_chosen(t, likeness, n, chosen):
    assert choose(np.array(t, float), likeness, n, 0.95) == chosen


@pytest.mark.parametrize("seed", range(30))
def test_the_choice_is_that_of_the_obvious_loop(seed):
    rng = np.random.default_rng(seed)
    k, limit = 12, 0.6
    n, t = int(rng.integers(1, k + 1)), rng.normal(size=k).round(1)
    likeness = np.triu(rng.random((k, k)).round(2), 1)
    likeness += likeness.T + np.eye(k)

    def nearest(i, taken):
        return max(likeness[i, j] for j in taken)

    left = sorted((i for i in range(k) if i != CLOSE), key=lambda i: (-abs(t[i]), i))
    taken = [CLOSE]
    for i in list(left):
        if len(taken) < n and nearest(i, taken) <= limit:
            taken.append(i)
            left.remove(i)
    while len(taken) < n:
        best = min(left, key=lambda i: (nearest(i, taken), left.index(i)))
        taken.append(best)
        left.remove(best)
    assert choose(t, likeness, n, limit) == sorted(taken)


def planted(rows: pd.DataFrame, name: str, share: float) -> pd.DataFrame:
    """The rows with labels of which one candidate, as the model sees it, explains a share."""
    train = np.flatnonzero(rows["split"] == "train")
    score = standard_ranks(seen_at(rows, train))[:, NAMES.index(name)]
    noise = np.random.default_rng(0).normal(size=len(train))
    label = rows["label"].copy()
    label.iloc[train] = 0.02 * (math.sqrt(share) * score + math.sqrt(1 - share) * noise)
    return rows.assign(label=label)


@pytest.mark.parametrize("name", ["volatility_20", "volume", "price_change", "momentum_10", "rsi_14"])
def test_a_planted_signal_is_ranked_first_and_chosen(rows, name):
    report = select(planted(rows, name, 0.2), small.WINDOW, select_params(n=2))
    table = ranking(report)
    # its twins have the same information: 'price_change' is the open's, seen from the other side
    twins = {"open", "price_change_pct"} if name == "price_change" else set()
    assert table.index[0] in {name, *twins}
    assert table.loc[name, "strength"] == pytest.approx(math.sqrt(0.2), abs=0.1)
    assert table.loc[name, "t"] > 5
    assert set(report["features"]) == {"close", table.index[0]}


def test_of_two_with_the_same_information_the_first_in_the_table_is_chosen(rows):
    """price_to_sma_5 is close / sma_5, and sma_5 enters relative to the close."""
    report = select(planted(rows, "sma_5", 0.3), small.WINDOW, select_params(n=8))
    table = ranking(report)
    assert table.index[:2].tolist() == ["sma_5", "price_to_sma_5"]
    assert table["chosen"].iloc[:2].tolist() == [True, False]
    assert table.loc["price_to_sma_5", "nearest"] == "sma_5"
    assert table.loc["price_to_sma_5", "nearest_correlation"] == pytest.approx(-1)
    every = select(rows, small.WINDOW, select_params(n=len(NAMES)))
    assert every["features"] == NAMES


def test_the_report_is_that_of_a_slow_reference(rows, ends):
    seen = pd.DataFrame(seen_at(rows, ends), columns=NAMES)
    label = rows["label"].iloc[ends].to_numpy()
    report = select(rows, small.WINDOW, select_params())
    table = ranking(report)
    others = [name for name in NAMES if name != "close"]
    for name in others:
        expected = spearmanr(seen[name], label).statistic
        assert table.loc[name, "strength"] == pytest.approx(expected)
        likeness = {
            other: spearmanr(seen[name], seen[other]).statistic
            for other in report["features"]
            if other not in (name, "close")
        }
        strongest = max(abs(value) for value in likeness.values())
        reported = table.loc[name, "nearest_correlation"]
        assert likeness[table.loc[name, "nearest"]] == pytest.approx(reported)
        assert abs(reported) == pytest.approx(strongest, abs=1e-4)
    assert table["t"].abs().round(4).is_monotonic_decreasing
    assert table.loc["close", ["strength", "t", "nearest"]].tolist() == [0, 0, None]
    assert sorted(table.index) == sorted(NAMES)
    assert report["features"] == [name for name in NAMES if table.loc[name, "chosen"]]
    assert len(report["features"]) == 8
    train = rows.iloc[ends]
    assert report["train"] == {
        "windows": len(train),
        "symbols": 6,
        "sessions": train["event_timestamp"].nunique(),
        "first_session": f"{train['event_timestamp'].min():%Y-%m-%d}",
        "last_session": f"{train['event_timestamp'].max():%Y-%m-%d}",
    }


def test_nothing_after_the_training_dates_changes_anything(rows, ends):
    later = rows["event_timestamp"] > rows["event_timestamp"].iloc[ends].max()
    assert {"validation", "test"} <= set(rows.loc[later, "split"])
    changed = rows.copy()
    noise = np.random.default_rng(1)
    columns = [*NAMES, "label"]
    changed.loc[later, columns] = noise.lognormal(size=(later.sum(), len(columns)))
    params = select_params()
    before = select(rows, small.WINDOW, params)
    assert select(changed, small.WINDOW, params) == before
    changed.loc[later, columns] = np.nan
    assert select(changed, small.WINDOW, params) == before

    relabelled = rows.assign(label=rows["label"].where(later, -rows["label"]))
    turned = ranking(select(relabelled, small.WINDOW, params))["strength"]
    assert turned["high"] == pytest.approx(-ranking(before).loc["high", "strength"])


def test_a_stocks_price_level_and_share_count_carry_no_information(rows):
    """One stock after a 1-for-64 reverse split: prices times 64, share counts through it."""
    units = {"price": 64.0, "price_change": 64.0, "shares": 1 / 64}
    factor = pd.Series([units.get(BY_NAME[name].unit, 1.0) for name in NAMES], index=NAMES)
    one = rows["symbol"] == "S002"
    split = rows.copy()
    split.loc[one, NAMES] = rows.loc[one, NAMES] * factor
    before = ranking(select(rows, small.WINDOW, select_params()))
    after = ranking(select(split, small.WINDOW, select_params())).loc[before.index]
    np.testing.assert_allclose(after["strength"], before["strength"], atol=1e-3)


def test_one_stock_is_enough(rows):
    one = rows[rows["symbol"] == "S001"].reset_index(drop=True)
    report = select(planted(one, "volatility_20", 0.5), small.WINDOW, select_params(n=3))
    assert report["ranking"][0]["feature"] == "volatility_20"
    assert len(report["features"]) == 3
    assert report["groups"][0]["rank_ic"] is None, "one stock has no others to rank it by"


def test_a_fixed_list_stands_and_the_ranking_is_reported_all_the_same(rows):
    fixed = select_params(method="fixed", n=2, features=("volume", "close", "open"))
    report = select(rows, small.WINDOW, fixed)
    assert report["features"] == ["open", "close", "volume"]
    table = ranking(report)
    assert set(table.index[table["chosen"]]) == {"open", "close", "volume"}
    chosen_by_code = ranking(select(rows, small.WINDOW, select_params()))
    pd.testing.assert_frame_equal(table[["strength", "t"]], chosen_by_code[["strength", "t"]])
    assert table.loc["price_change_pct", "nearest"] == "open"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": ["close", "sma_7"]}, "select.features.*unknown sma_7"),
        ({"features": ["close", "open", "close"]}, "select.features.*twice"),
        ({"features": ["open", "volume"]}, "select.features.*'close'"),
        ({"features": []}, "select.features"),
        ({"n": len(NAMES) + 1}, rf"select.n.*only {len(NAMES)} candidates"),
        ({"n": 0}, "select.n"),
        ({"max_correlation": 1.01}, "select.max_correlation"),
        ({"max_correlation": 0}, "select.max_correlation"),
        ({"method": "mutual_information"}, "select.method"),
        ({"top": 3}, "select.top is not a known key"),
    ],
)
def test_impossible_params_are_refused_by_name(tmp_path, changed, message):
    section = {"method": "correlation", "n": 2, "max_correlation": 0.95, "features": ["close"]}
    workspace = with_params(tmp_path, select=section | changed)
    with pytest.raises(ParamsError, match=message):
        load_params(workspace, "select", SelectParams)


@pytest.mark.parametrize("horizon", [1, 3])
def test_session_ics_are_spearmans_with_errors_that_know_the_overlap(horizon):
    """Statsmodels' HAC errors of the mean are the reference."""
    rng = np.random.default_rng(horizon)
    sessions = np.repeat(np.arange(60), 7)
    x = np.round(rng.normal(size=(len(sessions), 3)), 1)  # with ties
    x[:, 2] = rng.normal(size=60)[sessions]  # the same for all symbols: nothing to rank
    label = 0.2 * x[:, 0] + rng.normal(size=len(sessions))
    shuffled = rng.permutation(len(sessions))
    found = session_ics(x[shuffled], label[shuffled], sessions[shuffled], horizon, 4)
    for i in range(2):
        by_hand = np.array(
            [spearmanr(x[sessions == day, i], label[sessions == day]).statistic for day in range(60)]
        )
        hac = {"maxlags": horizon - 1, "use_correction": True}
        fitted = sm.OLS(by_hand, np.ones(60)).fit(cov_type="HAC", cov_kwds=hac)
        assert found[i].mean == pytest.approx(by_hand.mean())
        assert found[i].t == pytest.approx(fitted.tvalues[0])
        assert found[i].by_period == pytest.approx(by_hand.reshape(4, 15).mean(axis=1).tolist())
    assert found[2] == SessionIC(None, None, [None] * 4)


@pytest.mark.parametrize(
    ("ic", "stable"),
    [
        (SessionIC(0.02, 3.0, [0.01, 0.03]), True),
        (SessionIC(-0.02, -3.5, [-0.01, -0.03]), True),
        (SessionIC(0.02, 2.9, [0.01, 0.03]), False),
        (SessionIC(0.02, 5.0, [0.05, -0.01]), False),
        (SessionIC(0.02, 5.0, [0.04, 0.0]), False),
        (SessionIC(0.02, 5.0, [0.02, None]), False),
        (SessionIC(0.02, None, [0.02, 0.02]), False),
        (SessionIC(None, None, [None, None]), False),
    ],
)
def test_stable_is_sure_and_of_one_sign_throughout(ic, stable):
    assert ic.stable(3.0) is stable


def test_only_the_stable_are_chosen_however_many_are_asked_for(rows):
    params = select_params(method="stable", n=8)
    report = select(planted(rows, "rsi_14", 0.5), small.WINDOW, params)
    table = ranking(report)
    assert report["chosen_by"] == "stable"
    assert "rsi_14" in report["features"]
    assert set(report["features"]) <= {"close", *report["stable"]}
    assert table.index[table["stable"]].sort_values().tolist() == sorted(report["stable"])
    assert set(report["stable"]) < set(NAMES)


def test_what_turned_against_itself_is_not_stable(rows):
    """Sure on the whole, and the other way round in the last quarter of the training sessions."""
    signal = planted(rows, "volume", 0.9)
    train = signal["split"] == "train"
    sessions = np.sort(signal.loc[train, "event_timestamp"].unique())
    late = train & (signal["event_timestamp"] >= sessions[int(0.8 * len(sessions))])
    turned = signal.assign(label=signal["label"].where(~late, -signal["label"]))
    before, after = (
        ranking(select(labels, small.WINDOW, select_params(method="stable")))
        for labels in (signal, turned)
    )
    assert before.loc["volume", "stable"]
    assert after.loc["volume", "rank_ic_t"] > 3
    assert not after.loc["volume", "stable"]


def test_where_nothing_is_stable_the_report_says_so_and_correlation_chooses(rows):
    report = select(rows, small.WINDOW, select_params(method="stable"))
    assert report["stable"] == []
    assert (report["method"], report["chosen_by"]) == ("stable", "correlation")
    assert report["features"] == select(rows, small.WINDOW, select_params())["features"]


def test_groups_sum_up_their_candidates(rows):
    report = select(planted(rows, "volume", 0.5), small.WINDOW, select_params(method="stable"))
    table = ranking(report)
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(NAMES)
    volume = next(group for group in report["groups"] if group["group"] == "volume")
    of_group = table.loc[list(GROUPS["volume"])]
    assert volume == {
        "group": "volume",
        "candidates": 7,
        "stable": of_group["stable"].sum(),
        "chosen": of_group["chosen"].sum(),
        "strength": pytest.approx(of_group["strength"].abs().mean()),
        "rank_ic": pytest.approx(of_group["rank_ic_mean"].abs().mean()),
        "surest": "volume",
        "rank_ic_t": of_group["rank_ic_t"].max(),
    }


@pytest.mark.parametrize("method", ["stable", "fixed"])
def test_the_stage_leaves_the_list_its_reasons_and_a_picture(tmp_path, capsys, method):
    bars = small.market(4, 160, seed=3)
    workspace = small.make_workspace(tmp_path, bars, select={"method": method, "n": 5})
    stage.main(workspace)
    rows = small.dataset_rows(bars)
    expected = select(rows, small.WINDOW, load_params(workspace, "select", SelectParams))
    report = read_json(workspace.selection_report)
    assert report["features"] == expected["features"]
    assert len(report["features"]) == (len(small.FEATURES) if method == "fixed" else 5)
    assert ranking(report)["t"].to_dict() == pytest.approx(ranking(expected)["t"].to_dict())
    assert workspace.selection_plot.read_bytes().startswith(b"\x89PNG")
    left_out = len(NAMES) - len(report["features"])
    *said, printed = capsys.readouterr().out.splitlines()
    assert [line[:22] for line in said] == (["no candidate is stable"] if method == "stable" else [])
    chosen_by = "correlation" if method == "stable" else method
    assert printed.startswith(f"{len(report['features'])} of {len(NAMES)} candidates, {chosen_by}")
    assert len(printed.split("left out: ")[1].split(", ")) == left_out
