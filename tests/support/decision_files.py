"""What the pages of a portfolio and of the backtest read, small enough to work out by hand."""

import pandas as pd

from pitwise.workspace import Workspace, append_lines, write_json, write_parquet

COSTS = {
    "commission_bp": 0.5,
    "half_spread_bp": 2.0,
    "impact": 0.5,
    "borrow_bp": 50.0,
    "delisting_haircut": 0.0,
}
SETUP = {
    "kind": "lstm",
    "k": 2,
    "trade_at": "open",
    "capital": 1e6,
    "costs": COSTS,
    "horizon": 1,
    "rebalance_sessions": 1,
    "random_signals": 10,
    "trials": 3,
    "trials_on_record": 1,
    "expected_max_sharpe": 1.5,
    "first_session": "2013-09-23",
    "last_session": "2013-11-01",
    "n_sessions": 30,
}
PERCENTILES = {"p2.5": -0.1, "p25": -0.05, "p50": 0.0, "p75": 0.05, "p97.5": 0.1}


def track_of(portfolio: str, days: pd.DatetimeIndex, ret: float, cost: float = 0.0) -> pd.DataFrame:
    """Rows of `data/evaluation/backtest.parquet`: the same return and cost in each session."""
    rows = {"portfolio": portfolio, "date": days, "ret": ret, "cost": cost, "impact": 0.0}
    return pd.DataFrame(rows | {"traded": 0.5, "gross": 1.0, "net": 1.0})


def write_decisions(workspace: Workspace, days: pd.DatetimeIndex) -> None:
    """Equal weight gains 0.1% a session for nothing; the LSTM's loses 0.2%, of which costs are 0.3%."""
    tracks = [track_of("equal_weight", days, 0.001), track_of("lstm_top", days, -0.002, 0.003)]
    write_parquet(pd.concat(tracks), workspace.path("data/evaluation/backtest.parquet"))
    figure = {"value": 0.25, "ci95": [0.1, 0.4]}
    portfolio = dict.fromkeys(("annual_return", "sharpe", "dsr", "break_even_bp"), figure)
    claim = {"claimed": 0.15, "means": "a ratio, - 1", "beside": {"ours": 0.5}, "short_by": 0.4}
    document = {
        "equal_weight": portfolio,
        "lstm_top": portfolio | {"above_random": {"mean_return": 0.9}},
        "random": {"top": {"mean_return": PERCENTILES}},
        "claims": {
            "sharpe": claim | {"value": -0.25, "ci95": [-0.5, 0.1]},
            "net_better": claim | {"value": None, "ci95": None, "why": "no ann"},
        },
        "setup": SETUP,
    }
    write_json(document, workspace.path("metrics/backtest.json"))
    trial = {
        "at": "2013-10-30T22:00:00+00:00",
        "source": "walk_forward",
        "kind": "lstm",
        "recipe": "0123456789abcdef",
        "first_session": "2013-09-23",
        "last_session": "2013-10-30",
        "n_sessions": 28,
        "rank_ic_mean": 0.0123,
        "rank_ic_t": 1.5,
        "sharpe": 0.1,
    }
    path = workspace.path("ledger/trials.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    append_lines([trial], path)
