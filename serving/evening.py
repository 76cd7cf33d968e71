"""The evening: what came after the close, through to new forecasts and `reports/tonight.html`.

The stages' own functions run here in one process, so their files are the ones that `dvc repro` would
make. No model is trained, except by `evening` when `evening.retrain_every_sessions` have passed.
"""

import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.errors import DataError, StoreError
from pitwise.stage import Params, load_params
from pitwise.workspace import Artifact, Workspace, read_json, read_parquet, replacing

if TYPE_CHECKING:
    from pitwise.reports.decisions import Decisions
    from serving.inference.marks import Marks

STAGES = ("bars", "clean", "features", "publish")
"""What `update` brings up to date, as `dvc.yaml` names it."""
PAGE = Artifact("reports/tonight.html")
EXIT = {"done": 0, "stale": 2, "incomplete": 2}


class EveningParams(Params):
    retrain_every_sessions: int = Field(ge=1)
    """Sessions after the models' newest one at which `evening` trains again."""


def update(workspace: Workspace) -> pd.DataFrame:
    """Bring the online store, the forecasts, and then the files up to what has landed.

    The newest bars go online first, computed from the last ones of each symbol as live bars are, so that
    the forecasts need not wait for the stages. What lies further back has its forecasts after them.

    Returns:
        the forecasts, see `serving.inference.latest.latest_forecasts`; empty where there is no champion.

    Raises:
        DataError, StoreError: nothing has landed, or a store does not answer.
    """
    from feature_repo import publish
    from pitwise.bars import __main__ as bars
    from pitwise.cleaning import __main__ as cleaning
    from pitwise.features import __main__ as features
    from serving.live.journal import drain

    workspace.require_landings()
    drain(workspace)
    marks = caught_up(workspace)
    forecasts = forecast(workspace, marks) if marks else None
    for stage in (bars, cleaning, features, publish):
        stage.main(workspace)
    return forecast(workspace) if forecasts is None else forecasts


def caught_up(workspace: Workspace) -> "Marks | None":
    """Put online what has landed since the last run of the stages, as far as live bars reach.

    Where a service runs, it does so itself.

    Returns:
        what is known of the newest bars; None where not all that has landed is online now.

    Raises:
        StoreError: the store takes no rows.
    """
    from feature_repo.store import open_store
    from serving.live.live_bars import LiveBars
    from serving.lock import HeldError
    from serving.settings import ServeParams

    if not workspace.published.exists():
        return None
    params = load_params(workspace, "serve", ServeParams)
    try:
        live = LiveBars(workspace, open_store(workspace), params.correction_sessions)
    except HeldError:
        return None
    left, marks = live.left_to_the_pipeline, live.marks
    live.close()
    if left:
        print(f"{left:,} versions of bars lie too far back to go online before the stages have run")
    return None if left else marks


def forecast(workspace: Workspace, marks: "Marks | None" = None) -> pd.DataFrame:
    """The champion's newest forecasts, written and logged; empty where there is no champion.

    Args:
        marks: of the newest bars; by default those of the workspace's files.
    """
    from pitwise.registry.model import RegistryParams
    from pitwise.registry.versions import open_registry
    from serving.inference.latest import latest_forecasts
    from serving.inference.predictor import load_champion

    if not workspace.registration_report.exists():
        columns = ["symbol", "as_of", "horizon", "log_return", "price", "p_up", "model_version"]
        columns += ["unusual", "suspect"]
        return pd.DataFrame(columns=columns)
    registry = load_params(workspace, "registry", RegistryParams)
    with open_registry(workspace, registry):
        return latest_forecasts(workspace, load_champion(workspace, registry), marks)


def tell_dvc(workspace: Workspace) -> None:
    """Have DVC keep what landed and know the stages' files; `dvc repro` keeps them then.

    Raises:
        StoreError: DVC refused.
    """
    from pitwise.pipeline import track_landings

    track_landings(workspace)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "commit", "--quiet", "--force", *STAGES],
        cwd=workspace.root,
        check=False,
    )
    if done.returncode:
        raise StoreError(
            f"{workspace.root}: DVC did not take the evening's files; its message stands above. The "
            "files are right: `dvc repro` makes them again."
        )


def mature(workspace: Workspace) -> None:
    """Join the forecasts in the log with what came of them; where that fails, the evening goes on."""
    done = subprocess.run([sys.executable, "-m", "monitoring.matured"], cwd=workspace.root, check=False)
    if done.returncode:
        print("the accuracy of what was served is as old as before; the message stands above")


def is_retraining_due(workspace: Workspace) -> bool:
    """Whether the models' test dates end `evening.retrain_every_sessions` before the newest session."""
    from pitwise.bars.calendar import session_number

    if not workspace.evaluation_report.exists():
        return True
    params = load_params(workspace, "evening", EveningParams)
    days = [
        read_json(workspace.evaluation_report)["last_session"],
        read_json(workspace.clean_report)["last_session"],
    ]
    measured, newest = session_number(pd.Series(pd.to_datetime(days)))
    return bool(newest - measured > params.retrain_every_sessions)  # the newest session has no label


def evening(workspace: Workspace) -> int:
    """Fetch, catch up, update, forecast, mature earlier forecasts, and write the page.

    Returns:
        the exit code: 0 done, 2 stale or incomplete. What fails raises, which is 1.
    """
    from pitwise.load import MADE, LoadParams, described, load
    from pitwise.pipeline import run_pipeline

    workspace.require_landings()
    if load_params(workspace, "load", LoadParams).source not in MADE:
        print(described(load(workspace)), flush=True)
    forecasts = update(workspace)
    tell_dvc(workspace)
    mature(workspace)
    if is_retraining_due(workspace):
        run_pipeline(workspace)
        forecasts = forecast(workspace)
    decide(workspace)
    state = write_page(workspace, forecasts, datetime.now(UTC))
    print(f"{state}: {workspace.root / PAGE.path}")
    return EXIT[state]


def decide(workspace: Workspace) -> None:
    """Make signals and risk of the newest forecasts, as their stages do; risk if arch is there."""
    from pitwise.decisions import risk_stage, signals_stage
    from pitwise.extras import missing

    if not workspace.latest_predictions.exists():
        return
    print(signals_stage.described(signals_stage.main(workspace)), flush=True)
    if missing("evaluation"):
        print("risk is left out: it needs pip install 'pitwise[evaluation]'", flush=True)
    else:
        risk_stage.main(workspace)


def write_page(workspace: Workspace, forecasts: pd.DataFrame, now: datetime) -> str:
    """Write `reports/tonight.html`; returns done, stale or incomplete."""
    from pitwise.reports.tonight import tonight, verdict

    found = evening_of(workspace, forecasts, pd.Timestamp(now))
    with replacing(workspace.root / PAGE.path) as temporary:
        temporary.write_text(tonight(found))
    return verdict(found).state


def evening_of(workspace: Workspace, forecasts: pd.DataFrame, now: pd.Timestamp):
    """What the page says, from the files of a workspace; see `pitwise.reports.tonight.Evening`."""
    from pitwise.bars.calendar import session_date
    from pitwise.bars.versions import known_bars, read_versions
    from pitwise.load import MADE, LoadParams
    from pitwise.quality_flags import FOREST, load, newest_two
    from pitwise.reports.tonight import Evening
    from serving.inference.freshness import newest_closed
    from serving.inference.marks import BAR, NEWEST, stored_suspects
    from serving.settings import PredictParams

    clean = read_parquet(workspace.clean_bars, BAR)
    days = clean["date"].value_counts().sort_index()
    as_of = days.index[-1]
    forest = load(workspace.root / FOREST.path)
    unusual = None
    if forest is not None:
        flags = forest.flags(newest_two(clean))
        unusual = flags[(flags["date"] == as_of) & flags["flagged"].fillna(False)]
    suspects = stored_suspects(workspace, clean)
    # Nothing settles the last bars of a symbol that has stopped trading.
    suspects = suspects[suspects["date"] >= days.index[-NEWEST:][0]]
    quarantine = read_parquet(workspace.quarantine)
    versions = read_versions(workspace)
    sealed = versions.seals["date"].max() if len(versions.seals) else None
    bars = known_bars(versions)[["symbol", "date"]]
    unsealed = bars["date"] > (sealed if sealed is not None else pd.Timestamp.min)
    source = load_params(workspace, "load", LoadParams).source
    expected = None
    if source not in MADE:
        expected = session_date(np.array([newest_closed(now.to_pydatetime())]))[0]
    has_models = workspace.evaluation_report.exists()
    registration: dict[str, Any] = {}
    if workspace.registration_report.exists():
        registration = read_json(workspace.registration_report)
    return Evening(
        now=now,
        as_of=as_of,
        expected=expected,
        sealed=sealed,
        symbols=int(days.iloc[-1]),
        symbols_before=int(days.iloc[-2]) if len(days) > 1 else 0,
        forecasts=forecasts,
        quarantine=quarantine[quarantine["date"] == as_of],
        provisional=bars[unsealed].drop_duplicates(),
        evaluation=read_json(workspace.evaluation_report) if has_models else {},
        champion_kind=registration.get("champion_kind"),
        unproven=registration.get("unproven", False),
        unusual=unusual,
        suspects=suspects,
        withholds=load_params(workspace, "predict", PredictParams).suspect == "withhold",
        decisions=decisions_of(workspace, as_of),
    )


def decisions_of(workspace: Workspace, as_of: pd.Timestamp) -> "Decisions | None":
    """What stages `signals` and `risk` left; None where the signals are not of the session `as_of`."""
    from pitwise.bars.calendar import session_day
    from pitwise.decisions import risk_stage, signals_stage
    from pitwise.reports.decisions import Decisions

    path = workspace.root / signals_stage.SIGNALS.path
    if not path.exists():
        return None
    signals = read_parquet(path)
    if signals.empty or session_day(signals["as_of"].max()) != as_of:
        return None
    mood = read_parquet(workspace.root / signals_stage.SENTIMENT.path)
    path = workspace.root / risk_stage.REPORT.path
    risk = read_json(path) if path.exists() else {}
    day = f"{as_of:%Y-%m-%d}"
    return Decisions(
        signals=signals,
        report=read_json(workspace.root / signals_stage.REPORT.path),
        sentiment=mood.set_index("date")["sentiment"],
        risk={name: one for name, one in risk.items() if one and one.get("as_of", day) == day},
    )


def withdraw(workspace: Workspace, symbol: str, day: pd.Timestamp, now: pd.Timestamp) -> None:
    """Land that a bar was none.

    Raises:
        DataError: no such bar is known.
    """
    from pitwise.bars.landing import Landing, each_landing, land
    from pitwise.bars.schema import COLUMNS, NUMBERS

    if not any(
        ((landing.rows["symbol"] == symbol) & (landing.rows["date"] == day)).any()
        for landing in each_landing(workspace)
    ):
        raise DataError(f"{symbol}, {day:%Y-%m-%d}: no such bar has landed.")
    bar = pd.DataFrame({"symbol": [symbol], "date": [day]}).reindex(columns=COLUMNS)
    bar = bar.astype({"date": "datetime64[us]", **dict.fromkeys(NUMBERS, "float64")})
    land(workspace, Landing(bar.assign(withdrawn=True), "withdrawal", now))


def seal(workspace: Workspace, day: pd.Timestamp, now: pd.Timestamp) -> None:
    """Land that no more bars of a session will come.

    Raises:
        DataError: the exchange was closed that day, or the session is not over.
    """
    from pitwise.bars.calendar import has_closed
    from pitwise.bars.landing import land, sealing

    if not has_closed(pd.Series([day]), now)[0]:
        raise DataError(f"{day:%Y-%m-%d}: is no session that is over.")
    land(workspace, sealing(day.date(), now))
