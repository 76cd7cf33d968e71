"""Stage `leakcheck`: does anything that training sees, or was fitted on, look ahead?

Four checks, from raw bars on. Each figure is made from the definition, out of data that ends where it
should, and held against what the pipeline made of the whole. A check that fails ends the stage, so no
model of that data is registered.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.bars.calendar import session_close, session_days, session_number
from pitwise.bars.schema import COLUMNS
from pitwise.bars.versions import KNOWN, BarVersions, known_actions, read_versions
from pitwise.cleaning.as_of import judged_bars
from pitwise.cleaning.clean import CleanParams, cleaned_or_nothing
from pitwise.cleaning.cross_section import cross_section, tape
from pitwise.errors import PitwiseError
from pitwise.evaluation import metrics
from pitwise.evaluation.ranking import BoostedTrees, TreesParams
from pitwise.features.daily import FACTORS, daily_features
from pitwise.features.history import CREATED, KEYS
from pitwise.features.indicators import BY_NAME, NAMES, SCALE_FREE
from pitwise.features.scale_free import scale_free
from pitwise.features.served import ENDS, ServedWindows, last_sessions
from pitwise.features.windows import WindowRows, window_ends
from pitwise.stage import Params, load_params, run_stage
from pitwise.universe import members, read_universe
from pitwise.workspace import Workspace, read_json, read_parquet, write_json
from training import KINDS
from training.dataset import DatasetParams
from training.groups import symbol_filters
from training.select import GROUP_ROWS, SelectParams, seen_in_training, select

PARTS = ("train", "validation", "test")
BATCH = 4096
"""Windows in memory at a time."""
GATHERED = 1e-5
"""Relative and absolute difference of a window's values that is rounding: float32, and averages that
never quite forget."""
CONSTANT = 1e-6
"""What varies by less, beside 1 or its mean, is rounding: a model takes its deviation for 1."""
SCALED = 1e-4
"""Standard deviations by which a mean or a deviation may differ: rounding of float32."""
STRONG = 4.0
"""|t| that a rank IC of shuffled labels has once in 16,000 runs."""
EAGER = TreesParams(
    iterations=30, learning_rate=0.1, max_leaf_nodes=31, rows_per_leaf=20, l2=0, columns=1
)
"""Trees that learn by heart what they can, which is what is looked for."""


class LeakError(PitwiseError):
    """Something looks ahead; the message says what, by how much and where."""


class LeakcheckParams(Params):
    instants: int = Field(ge=1)
    """Sessions whose windows are made again out of what was known then."""
    symbols: int = Field(ge=1)
    """Symbols of each; and all whose window there was served otherwise than it is known now."""
    seed: int = Field(ge=0)


Figures = dict[str, Any]
"""Of one check: `passed`, `says` (a sentence) and what it measured."""


def truncated(versions: BarVersions, absent: pd.DataFrame, at: pd.Timestamp) -> BarVersions:
    """Only what had been delivered by an instant (UTC); what came later is gone.

    Args:
        absent: bars that were not known at any instant, as stage `clean` tells them.
    """
    bars, factors, seals, actions = versions
    bars = bars[bars[KNOWN] <= at]
    if len(absent):
        never = pd.MultiIndex.from_frame(bars[COLUMNS]).isin(pd.MultiIndex.from_frame(absent[COLUMNS]))
        bars = bars[~never]
    return BarVersions(
        bars,
        factors[factors[KNOWN] <= at],
        seals[seals["sealed_at"] <= at],
        actions[actions[KNOWN] <= at],
    )


def windows_then(
    versions: BarVersions, symbols: set[str], session: pd.Timestamp, length: int, params: CleanParams
) -> dict[str, np.ndarray]:
    """Windows that end in a session, from the bars alone: cleaned, features, window.

    Args:
        versions: what there was, see `truncated`.
        session: instant of the session's close.

    Returns:
        by symbol, (length, n_candidates) float32; symbols without a whole window are left out.
    """
    market = cross_section(tape(versions)) if params.verdicts == "all" else None
    raw = judged_bars(versions, None, symbols)
    cleaned = cleaned_or_nothing(raw, params, market=market, actions=known_actions(versions))
    daily = daily_features(cleaned.bars)
    rows = WindowRows(daily, NAMES)
    ends = window_ends(daily["symbol"].to_numpy(object), rows.base, length)
    ends = ends[(daily["event_timestamp"].iloc[ends] == session).to_numpy()]
    return dict(zip(daily["symbol"].iloc[ends], rows.gather(ends, length), strict=True))


def check_prefix(
    rows: pd.DataFrame,
    served: pd.DataFrame,
    versions: BarVersions,
    absent: pd.DataFrame,
    first_known: pd.Series,
    length: int,
    clean: CleanParams,
    params: LeakcheckParams,
    universe: pd.DataFrame | None = None,
) -> Figures:
    """The windows of sampled sessions are those that the bars delivered by then make.

    Args:
        rows: the data set; `served`: its rows as served.
        first_known: by symbol and event_timestamp, when a row was first known (UTC).
        universe: who was a member when, see `read_universe`; the set has windows of members alone.

    Returns:
        `windows` compared, `differ` (how many) and `first`: symbol, session, feature, and the values
        that the set has and that were known.
    """
    rng = np.random.default_rng(params.seed)
    sealed = versions.seals.set_axis(session_close(versions.seals["date"]))["sealed_at"]
    sessions = rows.loc[rows[ENDS], "event_timestamp"].drop_duplicates()
    sessions = sessions[sessions.isin(sealed.index)].sort_values()
    chosen = sorted(rng.permutation(sessions.to_numpy())[: params.instants])
    windows = ServedWindows(rows, served, NAMES)
    names = rows["symbol"].unique()
    compared, wrong = 0, []
    for session in pd.DatetimeIndex(chosen):
        at = sealed[session]
        here = np.flatnonzero(rows["event_timestamp"] == session)
        if universe is not None:
            here = here[members(universe, rows.iloc[here])]
        otherwise = served.loc[served[ENDS] & (served["event_timestamp"] == session), "symbol"]
        sample = {*rng.permutation(names)[: params.symbols], *otherwise}
        known_then = first_known.xs(session, level=1)
        sample &= set(known_then.index[known_then <= at])
        here = here[rows["symbol"].iloc[here].isin(sample).to_numpy()]
        ends = here[rows[ENDS].to_numpy()[here]]
        has = dict(zip(rows["symbol"].iloc[ends], windows.gather(ends, length), strict=True))
        # A row that has been withdrawn since is no row of the set, whatever was known of it.
        standing = set(rows["symbol"].iloc[here])
        then = windows_then(truncated(versions, absent, at), standing, session, length, clean)
        compared += len(has.keys() | then.keys())
        for symbol in sorted(has.keys() | then.keys()):
            found = _difference(has.get(symbol), then.get(symbol))
            if found:
                wrong.append({"symbol": symbol, "session": f"{session:%Y-%m-%d}", **found})
    first = wrong[0] if wrong else None
    says = f"{compared:,} windows of {len(chosen)} sessions made again from the bars known by then"
    if first:
        says = (
            f"{len(wrong):,} of {compared:,} windows are not what was known in their session. The "
            f"first: {first['symbol']}, {first['session']}, {first['feature']}: the set has "
            f"{first['has']}, known was {first['known']}"
        )
    figures = {"windows": compared, "differ": len(wrong), "first": first}
    return {"passed": not wrong and compared > 0, "says": says, **figures}


def _difference(has: np.ndarray | None, then: np.ndarray | None) -> Figures | None:
    """The first value of two windows that differs; a window that only one of them has differs too."""
    if has is None or then is None:
        there = [None if window is None else "a window" for window in (has, then)]
        return {"feature": "window", "has": there[0], "known": there[1]}
    near = np.isclose(has, then, rtol=GATHERED, atol=GATHERED, equal_nan=True)
    if near.all():
        return None
    at = tuple(np.argwhere(~near)[0])
    return {"feature": NAMES[at[1]], "has": float(has[at]), "known": float(then[at])}


def check_selection(
    groups: Iterable[tuple[pd.DataFrame, pd.DataFrame]],
    window: int,
    horizon: int,
    params: SelectParams,
    report: Figures,
) -> Figures:
    """The choice of inputs is the one made of the training rows where nothing else exists.

    Args:
        groups: the set up to the last training session, some symbols at a time.
        horizon: sessions that the label looks ahead.
        report: as stage `select` left it.
    """
    again = select(*seen_in_training(groups, window), params, horizon)
    differ = sorted(set(again["features"]) ^ set(report["features"]))
    was, now = ({one["feature"]: one for one in r["ranking"]} for r in (report, again))
    off = max(
        (abs(was[name]["strength"] - now[name]["strength"]) for name in was if name in now), default=0
    )
    says = "the inputs are those that the training rows alone choose"
    if differ or off > SCALED:
        says = (
            "the training rows alone choose other inputs (differing: "
            f"{', '.join(differ) or 'none'}), or other strengths of them (by up to {off:.1e}) than "
            "metrics/selection.json has"
        )
    return {
        "passed": not differ and off <= SCALED,
        "says": says,
        "differ": differ,
        "strength_difference": off,
    }


def scale_of(
    windows: ServedWindows, ends: np.ndarray, length: int, features: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each input, free of price level, over all windows.

    Returns:
        (length, n_features) each, in the models' order: prices, price changes, share counts, the others.
    """
    units = [BY_NAME[name].unit for name in features]
    kinds = [["price"], ["price_change"], ["shares"], SCALE_FREE]
    order = [i for kind in kinds for i, unit in enumerate(units) if unit in kind]
    close = features.index("close")
    total, squares = np.zeros((length, len(features))), np.zeros((length, len(features)))
    for start in range(0, len(ends), BATCH):
        raw = windows.gather(ends[start : start + BATCH], length).astype("float64")
        last = raw[:, -1:, close]
        for place, i in enumerate(order):
            values = scale_free(raw[..., i], units[i], last)
            if units[i] == "shares":
                values = values - values.mean(axis=1, keepdims=True)
            total[:, place] += values.sum(axis=0)
            squares[:, place] += np.square(values).sum(axis=0)
    mean = total / len(ends)
    std = np.sqrt(np.maximum(squares / len(ends) - mean**2, 0))
    return mean, np.where(std > CONSTANT * (1 + np.abs(mean)), std, 1.0)


def check_scaling(rows: pd.DataFrame, served: pd.DataFrame, workspace: Workspace) -> Figures:
    """Means and deviations inside each model are those of the training windows alone."""
    import onnx
    from onnx import numpy_helper

    ends = np.flatnonzero(rows["split"] == "train")

    @cache  # the kinds share their inputs
    def wanted(features: tuple[str, ...], length: int) -> tuple[np.ndarray, np.ndarray]:
        return scale_of(ServedWindows(rows, served, features), ends, length, list(features))

    off: dict[str, float] = {}
    for kind in KINDS:
        fitted = read_json(workspace.models / kind / "training.json")
        mean, std = wanted(tuple(fitted["features"]), fitted["window"])
        graph = onnx.load(str(workspace.models / kind / "model.onnx")).graph
        has = {part.name: numpy_helper.to_array(part) for part in graph.initializer}
        # One a seed; of trees there is none, for nothing is scaled.
        for at in (name.removesuffix("mean") for name in has if name.endswith("scaler.mean")):
            own_mean, own_std = has[f"{at}mean"], has[f"{at}std"]
            seen = len(own_mean)  # of the window's sessions, the last ones
            scale = std[-seen:]
            parts = [np.abs(own_mean - mean[-seen:]) / scale, np.abs(own_std - scale) / scale]
            off[kind] = max(off.get(kind, 0.0), *(float(np.max(part)) for part in parts))
    passed = all(value <= SCALED for value in off.values())
    told = ", ".join(f"{kind} by {value:.1e}" for kind, value in off.items())
    says = f"scaling differs from that of the training windows: {told} standard deviations"
    return {"passed": passed, "says": says, "difference": off}


def check_purge(rows: pd.DataFrame, horizon: int, embargo: int, fits: dict[str, Figures]) -> Figures:
    """No label of a part is known only when a later part has begun, by the exchange's calendar.

    Args:
        rows: `event_timestamp` and `split`.
        embargo: sessions left out beyond those that the label looks ahead.
        fits: by kind, `train_last_session` and `fitted_last_session` (`YYYY-MM-DD`).

    Returns:
        `gap`: sessions between the end of the last label of a part and the next part's first window.
    """
    number = session_number(session_days(rows["event_timestamp"]))
    at = {part: number[(rows["split"] == part).to_numpy()] for part in PARTS}
    gap = {
        f"{before} to {after}": int(at[after].min() - at[before].max()) - horizon
        for before, after in pairwise(PARTS)
    }
    for kind, fit in fits.items():
        days = pd.Series(pd.to_datetime([fit["train_last_session"], fit["fitted_last_session"]]))
        trained, fitted = session_number(days)
        gap[f"{kind}'s training to validation"] = int(at["validation"].min() - trained) - horizon
        gap[f"{kind}'s fit to test"] = int(at["test"].min() - fitted) - horizon
    short = {name: sessions for name, sessions in gap.items() if sessions <= embargo}
    told = ", ".join(f"{name} {sessions}" for name, sessions in (short or gap).items())
    says = f"sessions from the end of the last label to the next part: {told}"
    return {"passed": not short, "says": f"{says}; more than {embargo} are left out", "gap": gap}


def check_shuffled(rows: pd.DataFrame, seed: int) -> Figures:
    """Trees that are fitted on labels dealt out anew within each session forecast none of them.

    A label that was dealt out anew has nothing to do with its features, so what rank IC there is on
    the test sessions comes of rows that were fitted on as well.

    Args:
        rows: the windows' last sessions: `event_timestamp`, `split`, `label`, the features.
    """
    rng = np.random.default_rng(seed)
    rows = rows[rows["split"].isin(["train", "test"])]
    labels = rows.drop_duplicates(KEYS)[[*KEYS, "label"]].sort_values("event_timestamp", kind="stable")
    order = np.lexsort((rng.random(len(labels)), labels["event_timestamp"]))
    dealt = labels.assign(label=labels["label"].to_numpy()[order])
    rows = rows.drop(columns="label").merge(dealt, on=KEYS)
    train, test = (rows[rows["split"] == part] for part in ("train", "test"))
    trees = BoostedTrees(1, EAGER.model_copy(update={"seed": seed})).fit(train)
    scores = trees.predict(test)["score"].to_numpy()
    sessions = pd.factorize(test["event_timestamp"], sort=True)[0]
    mean, t = metrics.mean_and_t(metrics.rank_ic(scores, test["label"].to_numpy(), sessions))
    passed = t is None or abs(t) < STRONG
    told = "none" if mean is None or t is None else f"{mean:+.4f} (t {t:+.1f})"
    says = f"rank IC on the test sessions, of labels shuffled within each session: {told}"
    return {"passed": passed, "says": says, "rank_ic_mean": mean, "rank_ic_t": t}


def _training_groups(
    workspace: Workspace, last: pd.Timestamp
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """The set as if it ended with the last training session, some symbols at a time."""
    columns = [*KEYS, *NAMES, *FACTORS, ENDS, "split", "label"]
    for symbols in symbol_filters(workspace.dataset_rows, GROUP_ROWS):
        past = [*(symbols or []), ("event_timestamp", "<=", last)]
        rows = read_parquet(workspace.dataset_rows, columns=columns, filters=past)
        served = read_parquet(workspace.served_rows, filters=past)
        yield rows.assign(label=rows["label"].where(rows["split"] == "train")), served


def checks(workspace: Workspace, params: LeakcheckParams) -> dict[str, Figures]:
    """Every check by its name."""
    dataset = load_params(workspace, "dataset", DatasetParams)
    made = read_json(workspace.dataset_report)
    window, horizon = made["window"], made["horizon"]
    rows, served = read_parquet(workspace.dataset_rows), read_parquet(workspace.served_rows)
    fits = {kind: read_json(workspace.models / kind / "training.json") for kind in KINDS}
    found = {"purge": check_purge(rows, horizon, dataset.embargo_sessions, fits)}
    if dataset.view == "as_served":
        versions = read_versions(workspace)
        if dataset.known_at is not None:
            versions = truncated(versions, read_parquet(workspace.absent_bars)[:0], dataset.known_at)
        history = read_parquet(workspace.daily_features, [*KEYS, CREATED])
        found["prefix"] = check_prefix(
            rows,
            served,
            versions,
            read_parquet(workspace.absent_bars),
            history.drop_duplicates(KEYS).set_index(KEYS)[CREATED],
            window,
            load_params(workspace, "clean", CleanParams),
            params,
            read_universe(workspace),
        )
    else:
        says = "not made: dataset.view is `corrected`, which shows corrections before they came"
        found["prefix"] = {"passed": True, "says": says}
    last = rows.loc[rows["split"] == "train", "event_timestamp"].max()
    found["selection"] = check_selection(
        _training_groups(workspace, last),
        window,
        horizon,
        load_params(workspace, "select", SelectParams),
        read_json(workspace.selection_report),
    )
    found["scaling"] = check_scaling(rows, served, workspace)
    ends = np.flatnonzero(rows["split"].isin(["train", "test"]))
    found["shuffled"] = check_shuffled(last_sessions(rows, served, ends), params.seed)
    return found


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "leakcheck", LeakcheckParams)
    found = checks(workspace, params)
    write_json(found, workspace.leakcheck_report)
    failed = {name: figures["says"] for name, figures in found.items() if not figures["passed"]}
    if failed:
        told = ". ".join(f"{name}: {says}" for name, says in failed.items())
        raise LeakError(
            f"{workspace.leakcheck_report}: {len(failed)} of {len(found)} checks failed. {told}. "
            "Nothing is registered until this is mended; docs/leaks.md says what each check looks for."
        )
    for name, figures in found.items():
        print(f"{name}: {figures['says']}")


if __name__ == "__main__":
    run_stage(main)
