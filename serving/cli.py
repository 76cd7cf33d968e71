"""Commands of `pitwise`: forecasts, the service, replays, the registry and API keys.

`pitwise.cli` finds `app` by its entry point. What does the work is imported inside the commands:
MLflow and Feast take seconds, and `--help` must not.
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pitwise.errors import StoreError
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.settings import PredictParams, ServeParams

if TYPE_CHECKING:
    from pitwise.registry.model import RegistryParams

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
model_app = typer.Typer(no_args_is_help=True, help="See the registry's versions and move the champion.")
key_app = typer.Typer(no_args_is_help=True, help="API keys of the service; only their hashes are kept.")
app.add_typer(model_app, name="model")
app.add_typer(key_app, name="key")
bars_app = typer.Typer(no_args_is_help=True, help="What a person knows of bars and no source says.")
app.add_typer(bars_app, name="bars")
log_app = typer.Typer(no_args_is_help=True, help="The log of forecasts, and of who asked for them.")
app.add_typer(log_app, name="log")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

UNUSUAL = {True: "yes", False: "no", None: "unknown"}


def _here() -> Workspace:
    """The workspace that the shell stands in."""
    return Workspace(Path.cwd())


def _registry(workspace: Workspace) -> "RegistryParams":
    from pitwise.registry.model import RegistryParams

    return load_params(workspace, "registry", RegistryParams)


def _print(document: Any, as_json: bool, *shown: Any) -> None:
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        Console(highlight=False).print(*shown, sep="\n")


def _table(*columns: str, title: str | None = None) -> Table:
    """Text columns first by name; one that starts with `>` holds numbers."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column[0] == ">" else "left")
    return table


@app.command()
def predict(
    symbols: Annotated[list[str], typer.Argument(help="Tickers, as the data has them.")],
    as_json: Json = False,
) -> None:
    """Forecast from each symbol's newest session on, as far as the champion looks ahead.

    Runs the champion here, from the online store; no service is needed. Symbols without a window, or
    whose forecast is withheld, are named on stderr; the exit code is 1 if none is left. What is unusual
    or suspect is what the pipeline last knew of the newest bars.

    Example: pitwise predict AAPL MSFT
    """
    from feature_repo.store import open_store
    from pitwise.registry.prediction_log import session_after
    from pitwise.registry.versions import open_registry
    from serving.inference.check import CHECKED_SYMBOLS, as_store_error, check_predictor
    from serving.inference.latest import marked
    from serving.inference.marks import named, stored_marks
    from serving.inference.predictor import Predictor, load_champion

    workspace = _here()
    registry = _registry(workspace)
    policy = load_params(workspace, "predict", PredictParams).suspect
    with as_store_error("the champion"), open_registry(workspace, registry):
        champion = load_champion(workspace, registry)
        predictor = Predictor(champion, open_store(workspace))
        forecasts = predictor.forecast(list(dict.fromkeys(symbols)))
        if forecasts.symbols:
            check_predictor(predictor, forecasts.symbols[:CHECKED_SYMBOLS])
    rows = marked(forecasts, stored_marks(workspace)).assign(last_close=forecasts.last_close)
    ahead = champion.horizon
    rows["for_session"] = [f"{session_after(as_of, ahead)}" for as_of in rows["as_of"]]
    for name in ("unusual", "suspect", "scale"):
        rows[name] = rows[name].astype(object).where(rows[name].notna(), None)
    doubted = rows.loc[rows["suspect"].notna(), ["symbol", "suspect"]]
    withheld = dict(doubted.to_numpy().tolist()) if policy == "withhold" else {}
    rows = rows[~rows["symbol"].isin(withheld)]
    rows["as_of"] = rows["as_of"].map(lambda instant: instant.isoformat())
    table = _table("symbol", "as of", ">last close", ">forecast", ">log return", ">p(up)")
    for column in ("unusual", "suspect"):
        table.add_column(column)
    sessions = "one session" if ahead == 1 else f"{ahead} sessions"
    table.caption = f"version {forecasts.model_version} ({champion.kind}), {sessions} ahead"
    for row in rows.itertuples():
        figures = (f"{row.last_close:,.2f}", f"{row.price:,.2f}", f"{row.log_return:+.3%}")
        marks = (UNUSUAL[row.unusual], named(row.suspect) if row.suspect else "no")
        table.add_row(row.symbol, row.as_of[:10], *figures, f"{row.p_up:.1%}", *marks)
    document = {
        "model_version": forecasts.model_version,
        "forecasts": rows.drop(columns="model_version").to_dict("records"),
        "missing": forecasts.missing,
        "withheld": withheld,
    }
    _print(document, as_json, *([table] if len(rows) else []))
    messages = []
    if forecasts.missing:
        messages.append(f"the online store has no window of {', '.join(forecasts.missing)}.")
    if withheld:
        doubts = ", ".join(f"{symbol} ({named(kind)})" for symbol, kind in withheld.items())
        messages.append(f"withheld until later bars have settled a newest one: {doubts}.")
    if messages and rows.empty:
        raise StoreError(" ".join(messages))
    for message in messages:
        print(message, file=sys.stderr)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: serve.host of params.yaml.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: serve.port of params.yaml.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Processes that answer. Default: serve.workers of params.yaml."
        ),
    ] = None,
) -> None:
    """Start the HTTP service; Ctrl-C ends it after the requests in flight.

    Its documentation is at /docs of the address it prints. One more process
    takes bars and computes the forecasts; one that dies is started again.

    Example: pitwise serve --port 8601 --workers 2
    """
    from serving.http.server import run

    run(_here(), host, port, workers)


@app.command()
def replay(
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="First session. Default: the last but four."),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="Last session. Default: the newest one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Play history through the path of live bars, session by session, as if it came in now.

    It happens in a scratch folder: the store, the registry and the log stay as they are.

    Example: pitwise replay --from 2013-09-02 --to 2013-09-13
    """
    from serving.replay import replay as play

    workspace = _here()
    figures = play(
        workspace,
        first=f"{first:%Y-%m-%d}" if first else None,
        last=f"{last:%Y-%m-%d}" if last else None,
        correction_sessions=load_params(workspace, "serve", ServeParams).correction_sessions,
        console=Console(stderr=True, quiet=as_json),
    )
    table = _table("figure", ">value")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), str(value))
    _print(figures, as_json, table)


@app.command()
def update(
    dvc: Annotated[
        bool, typer.Option("--dvc", help="Have DVC know the new files: `dvc repro` keeps them.")
    ] = False,
) -> None:
    """Bring features, the online store and the forecasts up to what has landed; train nothing.

    Bars that the service has taken land first.

    Example: pitwise update
    """
    from serving.evening import tell_dvc
    from serving.evening import update as bring_up

    workspace = _here()
    bring_up(workspace)
    if dvc:
        tell_dvc(workspace)


@app.command()
def evening() -> None:
    """Do what is due after the close: fetch, update, forecast, and write reports/tonight.html.

    Sessions that were missed come with the next fetch. Models are trained
    again every evening.retrain_every_sessions of params.yaml. The exit code
    is 0 if all is done, 1 if something failed, 2 if the bars are stale or
    the newest session is incomplete.

    Example: pitwise evening
    """
    from serving.evening import evening as spend

    raise typer.Exit(spend(_here()))


@app.command()
def upgrade() -> None:
    """Bring a workspace of version 0.2 up to this one; its prediction log and registry are kept.

    Example: pitwise upgrade
    """
    from serving.upgrade import upgrade as bring_up

    workspace = _here()
    changed = bring_up(workspace)
    print(
        f"workspace {workspace.root}: "
        + ("is upgraded; run `pitwise run`" if changed else "needs no upgrade")
    )


Day = Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="The session's day.")]


@bars_app.command()
def withdraw(
    symbol: Annotated[str, typer.Argument(help="Ticker, as the data has it.")], day: Day
) -> None:
    """Say that a bar was none; `pitwise update` then takes it out of what is known from now on.

    Example: pitwise bars withdraw AAPL 2013-02-28
    """
    import pandas as pd

    from serving.evening import withdraw as land_withdrawal

    land_withdrawal(_here(), symbol, pd.Timestamp(day), pd.Timestamp.now("UTC"))
    print(f"{symbol}, {day:%Y-%m-%d}: withdrawn")


@bars_app.command()
def seal(day: Day) -> None:
    """Say that a session is complete: no more of its bars will come.

    Example: pitwise bars seal 2013-03-01
    """
    import pandas as pd

    from serving.evening import seal as land_seal

    land_seal(_here(), pd.Timestamp(day), pd.Timestamp.now("UTC"))
    print(f"{day:%Y-%m-%d}: sealed")


@model_app.command()
def show(as_json: Json = False) -> None:
    """List the versions: who is champion, their test figures, the gate's decision.

    Figures are of the test dates at the time of registration. The JSON has all of them, the
    baselines' too, and when each version was champion.

    Example: pitwise model show
    """
    from pitwise.registry.versions import versions

    workspace = _here()
    registry = _registry(workspace)
    rows = versions(workspace, registry)
    table = _table("version", "kind", "alias", "created", ">skill", ">direction", ">always up")
    reasons = []
    table.caption = "skill: of the squared error, against persistence; direction: calls that were right"
    for row in rows:
        own = row["metrics"].get(row["kind"], {})
        up = row["metrics"].get("always_up", {})
        notes = [row["gate"]]
        notes += [f"{e['by']}: {e['reason']}" for e in row["terms"][-1:] if e["reason"] != row["gate"]]
        reasons += [f"{row['version']}: {escape(note)}" for note in notes if note]
        table.add_row(
            row["version"],
            row["kind"] or "unknown",
            ", ".join([*row["aliases"], *(["unproven"] if row["unproven"] else [])]),
            row["created"][:10],
            f"{own['skill_vs_persistence']:+.5f}" if "skill_vs_persistence" in own else "-",
            f"{own['direction_accuracy']:.1%}" if "direction_accuracy" in own else "-",
            f"{up['direction_accuracy']:.1%}" if "direction_accuracy" in up else "-",
        )
    _print({"model": registry.model, "versions": rows}, as_json, table, *reasons)


@model_app.command()
def card(
    version: Annotated[
        int | None, typer.Argument(min=1, help="Number of the version. Default: the champion.")
    ] = None,
) -> None:
    """Print a version's model card: what it is, what it was measured at, what it is for.

    Example: pitwise model card 3
    """
    from pitwise.registry import versions

    workspace = _here()
    named = None if version is None else str(version)
    typer.echo(versions.card(workspace, _registry(workspace), named))


@model_app.command()
def promote(
    version: Annotated[int, typer.Argument(min=1, help="Number of the version.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the registry.")] = "not given",
    as_json: Json = False,
) -> None:
    """Make a version champion, past the gate.

    A running service follows within serve.champion_seconds, unless the version fails its self-check.

    Example: pitwise model promote 3 --reason "retrained after the split of AAPL"
    """
    from pitwise.registry import versions

    workspace = _here()
    registry = _registry(workspace)
    moved = versions.promote(workspace, registry, str(version), reason)
    _print({"model": registry.model, **moved}, as_json, _described(moved))


@model_app.command()
def rollback(as_json: Json = False) -> None:
    """Make the version champion again that was before.

    Example: pitwise model rollback
    """
    from pitwise.registry import versions

    workspace = _here()
    registry = _registry(workspace)
    moved = versions.rollback(workspace, registry)
    _print({"model": registry.model, **moved}, as_json, _described(moved))


@key_app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it is for: predict, bars or model; may be given again. Default: predict."
        ),
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Its last day, UTC. Default: none.")
    ] = None,
    per_minute: Annotated[
        int | None, typer.Option(min=1, help="Requests. Default: serve.requests_per_minute.")
    ] = None,
    per_day: Annotated[int | None, typer.Option(min=1, help="Requests. Default: any number.")] = None,
    as_json: Json = False,
) -> None:
    """Make an API key and show it, this once; its hash goes to serve.keys of params.yaml.

    The scope predict is for forecasts and features, bars to send and withdraw bars, model for the
    champion's figures. Keys of a file of before there were scopes have all three.

    Example: pitwise key add desk --scope predict --scope bars --expires 2040-12-31 --per-day 100000
    """
    from serving.http.auth import DEFAULT_SCOPES, add_key

    last = expires.date() if expires else None
    key = add_key(_keys_file(), name, scope or DEFAULT_SCOPES, last, per_minute, per_day)
    _print({"name": name, "key": key}, as_json, key)


@key_app.command("list")
def list_names(as_json: Json = False) -> None:
    """List whose keys there are, what each is for, its last day and its limits.

    Example: pitwise key list
    """
    from serving.http.auth import list_keys

    keys = list_keys(_keys_file())
    table = _table("name", "scopes", "created", "expires", ">per minute", ">per day")
    for key in keys:
        limits = [f"{key[limit]:,}" if key[limit] else "-" for limit in ("per_minute", "per_day")]
        expires = key["expires"] or "never"
        scopes = ", ".join(key["scopes"])
        table.add_row(escape(key["name"]), scopes, key["created"], expires, *limits)
    _print({"keys": keys}, as_json, table)


@key_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose key.")],
    as_json: Json = False,
) -> None:
    """Take a key away.

    Example: pitwise key revoke desk
    """
    from serving.http.auth import revoke_key

    revoke_key(_keys_file(), name)
    _print({"revoked": name}, as_json, f"the key of {escape(name)} is revoked")


@log_app.command()
def compact(as_json: Json = False) -> None:
    """Move requests older than predict.retention_days out of the log, to monthly Parquet files.

    They are in data/predictions/archive/requests-YYYY-MM.parquet then, and their
    room in the database is free again. Forecasts stay: they are the record that
    monitoring reads. A service may run meanwhile. Run it every month or so.

    Example: pitwise log compact
    """
    from dataclasses import asdict
    from datetime import UTC

    from serving.log.compact import ARCHIVE
    from serving.log.compact import compact as move_old

    workspace = _here()
    params = load_params(workspace, "predict", PredictParams)
    url = workspace.database_url(params.log_url)
    done = move_old(workspace, url, params.retention_days, datetime.now(UTC))
    where = f" to {', '.join(f'{ARCHIVE}/{name}' for name in done.files)}" if done.files else ""
    text = f"{done.archived:,} requests moved{where}; {done.kept:,} are in the log"
    _print(asdict(done), as_json, text)


def _keys_file() -> Path:
    workspace = _here()
    return workspace.path(load_params(workspace, "serve", ServeParams).keys)


def _described(moved: dict[str, str | None]) -> str:
    if moved["before"] == moved["version"]:
        return f"version {moved['version']} is champion already"
    before = f"in place of version {moved['before']}" if moved["before"] else "the first one"
    return f"version {moved['version']} is champion now, {before}"
