"""What the instrument says of markets without a signal, and of markets with one of known size.

Each seed is a synthetic market of its own (`pitwise.simulation.market`), from whose bars features,
labels and a walk-forward are made as from real ones. On a null market every forecast's rank IC has to be
within noise, and a new recipe must not take office; on a planted one the signal has to be found, in the
size that it has, and who finds it takes office.

    python benchmarks/null_market.py --seeds 40
    python benchmarks/null_market.py --seeds 40 --signal 0.1
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from market import PROJECT

from pitwise.evaluation.baselines import baselines
from pitwise.evaluation.labels import labels
from pitwise.evaluation.metrics import mean_and_t
from pitwise.evaluation.ranking import BoostedTrees, Ridge, TreesParams
from pitwise.evaluation.sessions import by_session
from pitwise.evaluation.walk_forward import first_test_session, folds
from pitwise.features.daily import daily_features
from pitwise.features.indicators import NAMES
from pitwise.simulation.market import MOMENTUM_SESSIONS, SyntheticParams, synthetic_market
from pitwise.stage import load_params
from training.gate import Candidate, WalkForward, decide
from training.register import RegisterParams
from training.walk_forward import WalkForwardParams

CHALLENGER, BASELINE, IN_OFFICE = "gradient_boosting", "reversal", "volume_ridge"
VOLUME = ("volume_ratio", "volatility_20")
"""What the champion in office looks at, neither of which says where a made market goes."""
PLANTED = "planted predictor"
NOISE = 1.96
WITHIN = 35 / 40
"""Share of the null markets on which a kind has to be within noise."""


class Judged(NamedTuple):
    """What the walk-forward says of one market."""

    rank_ic: dict[str, float]
    t: dict[str, float]
    promoted: bool
    """Whether the gate lets the challenger take over."""


def market(seed: int, symbols: int, sessions: int, signal: float) -> pd.DataFrame:
    """The windows' last sessions of a made market: features, `label`, `label_open`, `planted`."""
    params = SyntheticParams(
        symbols=symbols, start="2014-01-02", sessions=sessions, seed=seed, signal=signal, faults={}
    )
    bars = synthetic_market(params).bars
    bars = bars.assign(price_factor=1.0, share_factor=1.0, segment=np.int32(0))
    daily = daily_features(bars)
    moved = daily.groupby("symbol")["close"].pct_change(MOMENTUM_SESSIONS, fill_method=None)
    rows = pd.concat([daily, labels(daily, 1)], axis=1).assign(planted=-np.sign(moved.to_numpy()))
    whole = rows[NAMES].notna().all(axis=1) & rows["label"].notna()
    return rows[whole].reset_index(drop=True)


def rank_ics(seed: int, symbols: int, sessions: int, signal: float) -> pd.DataFrame:
    """Rank IC of each kind, and of the planted predictor itself, in each session of a walk-forward."""
    params = load_params(PROJECT, "walk_forward", WalkForwardParams)
    rows = market(seed, symbols, sessions, signal)
    instants = pd.DatetimeIndex(rows["event_timestamp"].unique()).sort_values()
    first = first_test_session(instants, params.first_test, params.step)
    said: dict[str, list[pd.DataFrame]] = {}
    for fold in folds(instants, first, params.step, params.embargo_sessions, 1):
        train, test = (rows[rows["event_timestamp"].isin(part)] for part in (fold.train, fold.test))
        known = baselines(1) | {CHALLENGER: BoostedTrees(1, TreesParams(seed=seed))}
        kinds = {name: known[name] for name in (BASELINE, "ridge", CHALLENGER)}
        kinds[IN_OFFICE] = Ridge(1, VOLUME)
        for name, kind in kinds.items():
            score = kind.fit(train).predict(test)["score"]
            said.setdefault(name, []).append(test.assign(score=score))
        said.setdefault(PLANTED, []).append(test.assign(score=test["planted"]))
    return pd.DataFrame(
        {name: by_session(pd.concat(parts), 1)["rank_ic"] for name, parts in said.items()}
    )


def judged(ics: pd.DataFrame) -> Judged:
    found = {name: mean_and_t(values.to_numpy()) for name, values in ics.items()}
    none = pd.Series(dtype=float)
    new, champion = (
        Candidate(name, name, name, 0.0, 1.0, "2000-01-03", none) for name in (CHALLENGER, IN_OFFICE)
    )
    evidence = WalkForward(
        {name: ics[name] for name in (CHALLENGER, IN_OFFICE)}, {BASELINE: ics[BASELINE]}
    )
    rules = load_params(PROJECT, "register", RegisterParams).rules()
    return Judged(
        {name: mean for name, (mean, _) in found.items()},
        {name: t for name, (_, t) in found.items()},
        decide([new], champion, evidence, rules).promoted,
    )


def of_market(seed: int, symbols: int, sessions: int, signal: float) -> Judged:
    return judged(rank_ics(seed, symbols, sessions, signal))


def main(seeds: int, symbols: int, sessions: int, signal: float, jobs: int) -> None:
    start = time.perf_counter()
    results = Parallel(n_jobs=jobs)(
        delayed(of_market)(seed, symbols, sessions, signal) for seed in range(seeds)
    )
    print(f"{seeds} markets of {symbols} symbols and {sessions} sessions, signal {signal}")
    good = True
    for name in results[0].t:
        ic = np.array([one.rank_ic[name] for one in results])
        t = np.array([one.t[name] for one in results])
        within = int((np.abs(t) < NOISE).sum())
        error = ic.std(ddof=1) / np.sqrt(seeds)
        print(
            f"{name}: rank IC {ic.mean():+.4f} (standard error {error:.4f}), |t| < {NOISE} on {within} "
            f"of {seeds}, t from {t.min():+.1f} to {t.max():+.1f}"
        )
        good &= signal > 0 or within >= WITHIN * seeds
    promoted = sum(one.promoted for one in results)
    print(f"{CHALLENGER} takes over from {IN_OFFICE}: on {promoted} of {seeds}")
    print(f"{time.perf_counter() - start:.0f} s")
    if not good:
        raise SystemExit(f"error: a kind is beyond noise on more than {1 - WITHIN:.0%} of null markets")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--symbols", type=int, default=60)
    parser.add_argument("--sessions", type=int, default=700)
    parser.add_argument("--signal", type=float, default=0.0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    main(given.seeds, given.symbols, given.sessions, given.signal, given.jobs)
