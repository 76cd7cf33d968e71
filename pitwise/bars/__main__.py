"""Stage `bars`: the versions of every bar, out of all that was delivered."""

from pydantic import Field

from pitwise.bars.actions import ACTION_KEY
from pitwise.bars.landing import each_landing, has_bars, landing_files
from pitwise.bars.versions import BarVersions, bar_versions, write_versions
from pitwise.errors import DataError
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, write_json


class BarParams(Params):
    seal_coverage: float = Field(gt=0, le=1)
    """Share of the symbols of the session before whose bars make a session complete."""


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "bars", BarParams)
    files = landing_files(workspace)
    if not has_bars(workspace):
        raise DataError(f"{workspace.landing}: no bars have landed there. Run `pitwise load` first.")
    versions = bar_versions(each_landing(workspace), params.seal_coverage)
    write_versions(workspace, versions)
    write_json([path.name for path in files], workspace.bar_landings)
    print(described(versions, len(files)))


def described(versions: BarVersions, deliveries: int) -> str:
    """What there is, in one line."""
    bars = versions.bars
    keys = bars.drop_duplicates(["symbol", "date"])
    actions = len(versions.actions.drop_duplicates(ACTION_KEY))
    told = f"; {actions:,} corporate actions" if actions else ""
    return (
        f"{len(bars):,} versions of {len(keys):,} bars of {keys['symbol'].nunique():,} symbols from "
        f"{deliveries:,} deliveries; {len(versions.seals):,} sessions sealed{told}"
    )


if __name__ == "__main__":
    run_stage(main)
