"""Weekly monitoring on the S&P 500's walk-forward: does it cry wolf, and does it see what breaks?

Wants a finished `runs/csv` with its walk-forward (`dvc repro walk_forward/dvc.yaml` in it). Forecasts of
one kind in the first year of the walk-forward are the record that the later weeks are held against; each
of those weeks is then judged as `pitwise report` would have judged it.

play: the weeks as they were, with their verdicts. With --retrain one fit serves in place of the
walk-forward's, made as the pipeline makes it of what was known before; where a week says retrain,
another one is made and the gate compares the two; where it refuses, there is no other one until a week
asks anew. With --turned the first one's ranking is upside down
from a day on.
break: each week broken in each of several ways, and whether the report names it.
alarms: drift alone. How often it alarms where nothing changed (years of resampled calm sessions), and
how often it sees a planted shift in its first week, beside PSI at 0.25 and Evidently's own default.
losses: how long the CUSUM takes to find a loss of rank IC.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from monitoring.families import FAMILIES
from monitoring.features import watched_sketch
from monitoring.findings import TODO
from monitoring.health import bar_health
from monitoring.judge import judge
from monitoring.material import Material, Model
from monitoring.matured import BAR, matured
from monitoring.sequential import SESSIONS_A_YEAR, charts, cusum, resampled
from monitoring.settings import MonitorParams
from monitoring.sketch import STANDARDISED, WITHIN, Sketch, sketch
from monitoring.thresholds import MONTH, OVER_A_MONTH, alpha_of, drift
from monitoring.weeks import Week
from pitwise.bars.calendar import session_close, session_date, session_days, session_number
from pitwise.bars.versions import read_versions
from pitwise.evaluation.sessions import SESSION, by_session, mean_of_seeds
from pitwise.evaluation.walk_forward import Fold
from pitwise.registry.findings import describe
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet
from training.dataset import DatasetParams
from training.folds import forecast_fold
from training.gate import Candidate, decide
from training.register import RegisterParams
from training.walk_forward import SeedParams, WalkForwardParams, tasks

RECORD = "2016-12-31"
"""The last day of the walk-forward's record, that later weeks are held against."""
SECTOR = 60
"""Symbols whose prices come ten times too large: about a sector."""
SEED = 7
SHIFTED = ["daily_return", "volume_ratio", "rsi_14", "volatility_20"]
CALM = pd.Timestamp("2016-03-01T00:00Z")
"""From then on the file has no crash: those of August 2015 and January 2016 are no false alarms."""
LASTS = 13
"""Weeks of a planted shift: a quarter."""
USUAL = 0.25
WASSERSTEIN = 0.1
"""Evidently's own threshold for columns of numbers, in standard deviations of the reference."""


def forecasts_of(workspace: Workspace, kind: str) -> pd.DataFrame:
    """The walk-forward's forecasts of a kind as the log would hold them, one version."""
    path = workspace.walk_forward_forecasts
    table = mean_of_seeds(pq.read_table(path, filters=[("kind", "=", kind)]).to_pandas())
    return as_logged(table.assign(scale=np.nan).drop(columns=["fold", "kind"]), "1")


def as_logged(said: pd.DataFrame, version: str) -> pd.DataFrame:
    days = session_date(session_number(session_days(said[SESSION])) + 1)
    return said.assign(for_session=days, model_version=version, role="champion", horizon=1)


class Market:
    """What the weeks are made of, so that some of it can be broken."""

    def __init__(self, workspace: Workspace, params: MonitorParams, kind: str, record: str = RECORD):
        versions = read_versions(workspace)
        self.delivered = versions.bars.drop_duplicates(["symbol", "date"])
        self.clean = read_parquet(workspace.clean_bars, BAR)
        self.seals = versions.seals
        self.features = watched_sketch(workspace, params, versions.seals)
        said = forecasts_of(workspace, kind)
        in_record = session_days(said[SESSION]) <= record
        self.record, self.said = said[in_record], said[~in_record].drop(columns=["label", "label_open"])

    def material(
        self,
        delivered: pd.DataFrame,
        said: pd.DataFrame,
        last: Week,
        tested: dict[str, pd.DataFrame] | None = None,
    ) -> Material:
        """What the weeks up to the last are judged by.

        Args:
            tested: by version, its own forecasts of test dates; by default the record.
        """
        tested = tested or {"1": self.record}
        health = bar_health(delivered)
        symbols = self.clean["date"].value_counts().sort_index()
        return Material(
            features=self.features,
            bars=health.set_axis(pd.DatetimeIndex(session_close(health.index.to_series())), axis=0),
            symbols=symbols.set_axis(pd.DatetimeIndex(session_close(symbols.index.to_series()))),
            forecasts=matured(said, self.clean, last.end),
            models={version: Model(version, kind="kind") for version in tested},
            expected={"kind": by_session(self.record, 1)},
            tested=tested,
            set_aside=pd.DataFrame({"date": [], "reason": [], "n": [], "share": []}),
            seals=self.seals,
        )


def weeks_of(said: pd.DataFrame) -> list[Week]:
    """The whole weeks in which there are forecasts, in order."""
    weeks = sorted({Week.of(day.date()) for day in session_days(said[SESSION]).unique()})
    return weeks[1:-1]


def play(market: Market, params: MonitorParams) -> None:
    weeks = weeks_of(market.said)
    begun = time.perf_counter()
    material = market.material(market.delivered, market.said, weeks[-1])
    read = time.perf_counter() - begun
    counted: Counter[str] = Counter()
    for week in weeks:
        document = judge(material, week, params).document
        counted[document["verdict"]] += 1
        if document["verdict"] != "ok":
            print(f"  {document['verdict']:5}{document['reason']}")
    seconds = time.perf_counter() - begun
    print(f"{len(weeks)} weeks: {dict(counted)}; {seconds:.0f} s, of which {read:.0f} s reading\n")


class Fit(NamedTuple):
    """A model, with its forecasts of all sessions that it has not seen."""

    version: str
    kind: str
    last: pd.Timestamp
    """Session that its training and validation end with."""
    said: pd.DataFrame

    def known(self, market: Market, end: pd.Timestamp) -> pd.DataFrame:
        """Its forecasts whose outcome was known at an instant, with it."""
        rows = matured(self.said[self.said[SESSION] <= end].reset_index(drop=True), market.clean, end)
        return rows[rows["label"].notna()]

    def candidate(self, market: Market, end: pd.Timestamp, since: pd.Timestamp) -> Candidate:
        """As the gate sees it at an instant, on the sessions from another one on."""
        known = self.known(market, end)
        ic = by_session(known[known[SESSION] >= since], 1)["rank_ic"]
        days = ic.set_axis(pd.DatetimeIndex(session_days(ic.index.to_series())))
        return Candidate(self.version, self.kind, "recipe", 0.0, 0.0, f"{self.last:%Y-%m-%d}", days)


class Trainer:
    """Fits of one kind as the pipeline makes them: its last share of what is known is for the gate."""

    def __init__(self, workspace: Workspace, kind: str):
        self.root = str(workspace.root)
        self.test_fraction = load_params(workspace, "dataset", DatasetParams).test_fraction
        self.seed = load_params(workspace, "train", SeedParams).seed
        made = tasks(workspace, load_params(workspace, "walk_forward", WalkForwardParams))
        self.recipe = next(task.recipe for task in made if task.recipe.kind == kind)
        folds = [task.fold for task in made if task.recipe.kind == kind]
        self.sessions = folds[0].train
        for fold in folds:
            self.sessions = self.sessions.union(fold.train).union(fold.test)

    def fit(self, version: str, end: pd.Timestamp) -> Fit:
        """On what was known at an instant."""
        known = int((self.sessions <= end).sum()) - self.recipe.horizon
        first = known - round(self.test_fraction * known)
        train = self.sessions[: first - self.recipe.embargo - self.recipe.horizon]
        fold = Fold(0, train, self.sessions[first:])
        said = forecast_fold(self.root, self.recipe, fold, self.seed)
        said = said[said["split"] == "test"].drop(columns="split")
        return Fit(version, self.recipe.kind, train[-1], as_logged(said.reset_index(drop=True), version))


def play_retraining(
    workspace: Workspace, market: Market, params: MonitorParams, kind: str, turned: str | None
) -> None:
    """The weeks with one fit, and another in its place where a week asks for it and the gate agrees.

    Weeks in a row that ask are one request, until a new model answers it.

    Args:
        turned: day from which the first fit ranks the symbols upside down.
    """
    trainer = Trainer(workspace, kind)
    rules = load_params(workspace, "register", RegisterParams).rules()
    weeks = weeks_of(market.said)
    begin, last = market.said[SESSION].min(), weeks[-1]
    champion = trainer.fit("1", begin - pd.Timedelta(days=1))
    if turned:
        wrong = champion.said[SESSION] >= pd.Timestamp(turned, tz="UTC")
        score = champion.said["score"].where(~wrong, -champion.said["score"])
        champion = champion._replace(said=champion.said.assign(score=score))
    log = champion.said[champion.said[SESSION] >= begin]
    tested = {champion.version: champion.known(market, begin)}
    material = market.material(market.delivered, log.reset_index(drop=True), last, tested)
    print(f"version 1 was fitted up to {champion.last:%Y-%m-%d}\n")
    print("| week | verdict | version | what happened |\n|---|---|---|---|")
    counted: Counter[str] = Counter()
    refused = False
    for week in weeks:
        document = judge(material, week, params).document
        counted[document["verdict"]] += 1
        happened, asks = document["reason"], document["todo"] == TODO["retrain"]
        refused &= asks
        if asks and not refused:
            other = trainer.fit(str(int(champion.version) + 1), week.end)
            since = other.said[SESSION].min()
            decision = decide(
                [other.candidate(market, week.end, since)],
                champion.candidate(market, week.end, since),
                None,
                rules,
            )
            happened += f" Fitted anew up to {other.last:%Y-%m-%d}: {describe(decision.findings[0])}"
            refused = not decision.promoted
            if decision.promoted:
                champion = other
                later = other.said[other.said[SESSION] > week.end]
                log = pd.concat([log[log[SESSION] <= week.end], later])
                tested |= {other.version: other.known(market, week.end)}
                material = market.material(market.delivered, log.reset_index(drop=True), last, tested)
        if document["verdict"] != "ok":
            print(f"| {week} | {document['verdict']} | {document['model_version']} | {happened} |")
    print(f"\n{len(weeks)} weeks: {dict(counted)}\n")


def scale_ten(bars: pd.DataFrame, hit: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    symbols = rng.choice(bars.loc[hit, "symbol"].unique(), SECTOR, replace=False)
    at = hit & bars["symbol"].isin(symbols)
    return bars.assign(close=bars["close"].where(~at, bars["close"] * 10))


def frozen_volume(bars: pd.DataFrame, hit: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    before = bars[bars["date"] < bars.loc[hit, "date"].min()].groupby("symbol")["volume"].last()
    return bars.assign(volume=bars["volume"].where(~hit, bars["symbol"].map(before)))


def shuffled(bars: pd.DataFrame, hit: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    changed = bars.copy()
    for _, rows in bars[hit].groupby("date"):
        changed.loc[rows.index, ["close", "volume"]] = rng.permutation(
            rows[["close", "volume"]].to_numpy()
        )
    return changed


def missing_day(bars: pd.DataFrame, hit: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    return bars[bars["date"] != rng.choice(bars.loc[hit, "date"].unique())]


def stale(said: pd.DataFrame, hit: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    parts = ["score", "log_return", "p_up"]
    before = said[said[SESSION] < said.loc[hit, SESSION].min()].groupby("symbol")[parts].last()
    held = before.reindex(said.loc[hit, "symbol"]).set_axis(said.index[hit])
    return said.assign(
        **{part: said[part].where(~hit, held[part].reindex(said.index)) for part in parts}
    )


BARS = {
    "prices x 10, 60 symbols": (scale_ten, "bars"),
    "frozen volume": (frozen_volume, "bars"),
    "shuffled symbols": (shuffled, "bars"),
    "a day missing": (missing_day, "missing_session"),
}


def breaking(market: Market, params: MonitorParams, n: int, worse: pd.DataFrame) -> None:
    """In each of `n` weeks."""
    rng = np.random.default_rng(SEED)
    weeks = weeks_of(market.said)
    chosen = [weeks[at] for at in np.sort(rng.choice(np.arange(8, len(weeks)), n, replace=False))]
    bars = market.delivered
    worse = worse.set_index(["symbol", SESSION])[["score", "log_return", "p_up"]]
    named: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for week in chosen:
        near = bars[bars["date"].between(pd.Timestamp(week.before(8).monday), week.days.max())]
        hit = near["date"].isin(week.days)
        cases = {
            name: (change(near, hit, rng), market.said, kind) for name, (change, kind) in BARS.items()
        }
        of_week = market.said[SESSION].isin(week.closes)
        cases["stale predictions"] = (near, stale(market.said, of_week, rng), "repeated")
        swapped = market.said.set_index(["symbol", SESSION])
        swapped.update(worse[worse.index.get_level_values(1).isin(week.closes)])
        cases["model swapped"] = (near, swapped.reset_index(), "forecast_drift")
        cases["nothing"] = (near, market.said, "none")
        for name, (delivered, said, kind) in cases.items():
            said = said[said[SESSION] <= week.end].reset_index(drop=True)
            document = judge(market.material(delivered, said, week), week, params).document
            kinds = {found["kind"] for found in document["findings"] if found["level"] != "note"}
            named[name] += kind in kinds if kind != "none" else bool(kinds)
            shown.setdefault(name, document["reason"])
    print(
        f"| broken, {n} weeks | named in that week's report | its first sentence, once |\n|---|---|---|"
    )
    for name, reason in shown.items():
        print(f"| {name} | {named[name]} of {n} | {reason} |")
    print()


def calm_year(made: Sketch, rng: np.random.Generator, length: int, block: int = 21) -> np.ndarray:
    """Positions of sessions since `CALM`: blocks of consecutive ones, drawn with replacement."""
    first = int(made.sessions.searchsorted(CALM))
    starts = rng.integers(first, len(made.sessions) - block, -(-length // block))
    return (starts[:, None] + np.arange(block)).ravel()[:length]


def alarms(workspace: Workspace, market: Market, params: MonitorParams, years: int) -> None:
    made = market.features
    n, alpha = params.reference_sessions, alpha_of(params.false_alarms_per_year) / FAMILIES
    for reference in (n, n // 2):
        starts = range(reference + 2 * MONTH + 4, len(made.sessions) - 5, 5)
        told = [
            f"{made.sessions[last]:%Y-%m-%d}"
            for last in starts
            if drift(made.counts[: last + 5], 5, reference, alpha, made.columns).drifted
        ]
        print(f"{reference} sessions before: {len(told)} of {len(starts)} real weeks alarm {told}")
    rng = np.random.default_rng(SEED)
    ours = usual = begun = 0
    for _ in range(years):
        at = calm_year(made, rng, n + MONTH + 250)
        counts, before = made.counts[at], False
        for last in range(n + MONTH, n + MONTH + 250, 5):
            found = drift(counts[max(0, last - n - MONTH) : last + 5], 5, n, alpha, made.columns)
            ours += bool(found.drifted)
            begun += bool(found.drifted) and not before
            before = bool(found.drifted)
            plain = [not name.endswith((WITHIN, OVER_A_MONTH)) for name in found.columns]
            usual += bool((found.psi[plain] > USUAL).any())
    print(
        f"false alarms a year of calm, resampled sessions ({years} years): ours {begun / years:.1f}, "
        f"{ours / years:.1f} weeks long in all "
        f"(asked for {params.false_alarms_per_year / FAMILIES:.2f}), PSI > {USUAL} {usual / years:.1f}"
    )
    _shifts(workspace, made, n, alpha, rng)


def _shifts(workspace: Workspace, made: Sketch, n: int, alpha: float, rng: np.random.Generator) -> None:
    """Shifts of one feature at a time that begin in a real week and last."""
    starts = rng.choice(np.arange(n + 80, len(made.sessions) - 5 * LASTS, 5), 12, replace=False)
    cases = {
        "nothing": lambda x, half: x,
        "all symbols + 0.5 deviations": lambda x, half: x + 0.5 * x.std(),
        "all symbols + 1": lambda x, half: x + x.std(),
        "half of the symbols + 0.5": lambda x, half: x + 0.5 * x.std() * half,
        "half of the symbols + 1": lambda x, half: x + x.std() * half,
        "spread x 1.5": lambda x, half: x.mean() + 1.5 * (x - x.mean()),
        "in another unit, x 100": lambda x, half: 100 * x,
    }
    rows = read_parquet(workspace.daily_features, ["symbol", SESSION, *SHIFTED])
    seen: dict[str, Counter[str]] = {name: Counter() for name in cases}
    delays: dict[str, list[float]] = {name: [] for name in cases}
    for column in SHIFTED:
        ways = [column, column + WITHIN, column + STANDARDISED]
        at = [made.columns.index(name) for name in ways]
        edges = {name: made.edges[name] for name in ways}
        for start in starts:
            since, until = made.sessions[start], made.sessions[start + 5 * LASTS - 1]
            before = rows[(rows[SESSION] >= made.sessions[start - n]) & (rows[SESSION] < since)]
            after = rows[(rows[SESSION] >= since) & (rows[SESSION] <= until)].reset_index(drop=True)
            half = pd.factorize(after["symbol"])[0] % 2
            for name, change in cases.items():
                changed = after.assign(**{column: change(after[column], half)})
                counts = made.counts[start - n : start + 5 * LASTS].copy()
                counts[n:, at] = sketch(changed, edges).counts
                delay = np.inf
                for week in range(LASTS):
                    last = n + 5 * week
                    part = counts[max(0, last - n - MONTH) : last + 5]
                    found = drift(part, 5, n, alpha, made.columns)
                    if week == 0:
                        seen[name]["psi"] += found.psi[at[0]] > USUAL
                    if any(drifted.startswith(column) for drifted in found.drifted):
                        delay = week + 1
                        break
                delays[name].append(delay)
                seen[name]["ours"] += delay == 1
                first = changed.loc[changed[SESSION] <= made.sessions[start + 4], column]
                seen[name]["evidently"] += _wasserstein(before[column], first) > WASSERSTEIN
    total = len(starts) * len(SHIFTED)
    print(f"\nplanted in one of {', '.join(SHIFTED)}, {total} times:\n")
    print(f"| shift | ours, within {LASTS} weeks | in the first | PSI > {USUAL} | Evidently |")
    print("|---|---|---|---|---|")
    for name, counted in seen.items():
        weeks = np.array(delays[name])
        median = np.median(weeks)
        told = f"median week {median:.0f}" if np.isfinite(median) else "mostly not"
        shares = " | ".join(f"{counted[who] / total:.0%}" for who in ("ours", "psi", "evidently"))
        print(f"| {name} | {np.isfinite(weeks).mean():.0%}, {told} | {shares} |")


def _wasserstein(reference: pd.Series, recent: pd.Series) -> float:
    """As Evidently has it for more than 1,000 rows: the distance in deviations of the reference."""
    from scipy.stats import wasserstein_distance

    reference, recent = reference.dropna(), recent.dropna()
    return float(wasserstein_distance(reference, recent) / max(reference.std(), 0.001))


def losses(market: Market, params: MonitorParams) -> None:
    """Median sessions until the CUSUM of the rank IC alarms, in years resampled from all there are."""
    came = matured(market.said, market.clean, market.said[SESSION].max() + pd.Timedelta(days=9))
    ic = pd.concat([by_session(market.record, 1), by_session(came[came["label"].notna()], 1)])["rank_ic"]
    values = ic.dropna().to_numpy()
    years = resampled(values, 2 * SESSIONS_A_YEAR, 1, 200, SEED)
    print(f"rank IC {values.mean():+.4f}, {values.std():.3f} a session")
    print("| false alarms a year | loss 0.03 | loss 0.06 |\n|---|---|---|")
    for rate in (0.25, 0.5, 1.0):
        limit = charts(values, values, params.loss, rate, 2000, SEED)[0].limit
        found = []
        for loss in (0.03, 0.06):
            off = (years - loss - values.mean()) / values.std(ddof=1)
            above = cusum(off, params.loss / values.std(ddof=1) / 2) > limit
            found.append(np.median(np.where(above.any(axis=1), above.argmax(axis=1) + 1, np.inf)))
        print(f"| {rate:g} | {found[0]:.0f} sessions | {found[1]:.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("what", nargs="+", choices=["play", "break", "alarms", "losses"])
    parser.add_argument("--kind", default="gradient_boosting")
    parser.add_argument("--record", default=RECORD, help="the last day of the record")
    parser.add_argument("--retrain", action="store_true", help="play one fit, not the walk-forward")
    parser.add_argument("--turned", help="day from which the one fit's ranking is upside down")
    parser.add_argument("--swap", default="ridge", help="kind that takes the other's place")
    parser.add_argument("--weeks", type=int, default=10, help="to break")
    parser.add_argument("--years", type=int, default=20, help="of calm sessions")
    arguments = parser.parse_args()
    of = Workspace(arguments.workspace)
    settings = load_params(of, "monitor", MonitorParams)
    whole = Market(of, settings, arguments.kind, arguments.record)
    if "play" in arguments.what and arguments.retrain:
        play_retraining(of, whole, settings, arguments.kind, arguments.turned)
    elif "play" in arguments.what:
        play(whole, settings)
    if "break" in arguments.what:
        breaking(whole, settings, arguments.weeks, forecasts_of(of, arguments.swap))
    if "losses" in arguments.what:
        losses(whole, settings)
    if "alarms" in arguments.what:
        alarms(of, whole, settings, arguments.years)
