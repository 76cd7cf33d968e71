"""The command of `pitwise` that says what a score is made of.

`pitwise.cli` finds `app` by its entry point. What does the work is imported inside the command.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pitwise.extras import require
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet

if TYPE_CHECKING:
    from serving.explain import Explanation

METHODS = {
    "shapley": "Shapley values, exact",
    "integrated_gradients": "integrated gradients",
    "shapley, integrated_gradients": "Shapley values of its trees, integrated gradients of the rest",
}
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _here() -> Workspace:
    """The workspace that the shell stands in."""
    return Workspace(Path.cwd())


@app.command()
def explain(
    symbol: Annotated[str, typer.Argument(help="A ticker, as the data has it.")],
    top: Annotated[int, typer.Option(min=1, help="How many features, the largest first.")] = 15,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, with the window the model saw.")
    ] = False,
) -> None:
    """What a symbol's newest score is made of: a contribution of each feature.

    Runs the champion here, from the online store; no service is needed. The
    contributions add up to the score less that of the session's median symbol.
    Of boosted trees they are Shapley values, exact; of other kinds integrated
    gradients. docs/explain.md says more.

    Example: pitwise explain AAPL
    """
    require("serving", "pitwise explain")
    from feature_repo.store import open_store
    from pitwise.registry.model import RegistryParams
    from pitwise.registry.versions import open_registry
    from serving.explain import explained
    from serving.inference.check import as_store_error
    from serving.inference.predictor import Predictor, load_champion

    workspace = _here()
    registry = load_params(workspace, "registry", RegistryParams)
    symbols = read_parquet(workspace.window_features, ["symbol"])["symbol"].unique().tolist()
    with as_store_error("the champion"), open_registry(workspace, registry):
        predictor = Predictor(load_champion(workspace, registry), open_store(workspace))
        found = explained(registry.model, predictor, symbol, symbols)
    if as_json:
        print(json.dumps(_document(found, predictor.model.features), indent=2, allow_nan=False))
    else:
        _show(found, top)


def _document(found: "Explanation", features: tuple[str, ...]) -> dict:
    scalars = {name: value for name, value in vars(found).items() if name not in ("features", "window")}
    window = {name: found.window[:, i].tolist() for i, name in enumerate(features)}
    shares = [one._asdict() for one in found.features]
    return scalars | {"as_of": f"{found.as_of}Z", "features": shares, "window": window}


def _show(found: "Explanation", top: int) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"{found.symbol}, {str(found.as_of)[:10]}, version {found.model_version} ({found.kind}): score "
        f"{found.score:+.4f}, rank {found.rank} of {found.symbols}; the median symbol's is "
        f"{found.baseline:+.4f}\n{METHODS[found.method]}"
    )
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("feature", no_wrap=True)
    for heading in ("value", "rank", "contribution"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found.features[:top]:
        table.add_row(one.feature, f"{one.value:,.4g}", str(one.rank), f"{one.contribution:+.4f}")
    if rest := found.features[top:]:
        table.add_row(f"{len(rest)} others", "", "", f"{sum(one.contribution for one in rest):+.4f}")
    table.add_row("unexplained", "", "", f"{found.unexplained:+.4f}")
    console.print(table)
