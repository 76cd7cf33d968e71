"""Stage `bars`: the versions of every bar, out of all that was delivered."""

from pydantic import Field

from pitwise.bars.by_shard import write_versions_by_shard
from pitwise.bars.landing import has_bars, landing_files
from pitwise.engine import engine_of
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
    counts = write_versions_by_shard(workspace, params.seal_coverage, engine_of(workspace))
    write_json([path.name for path in files], workspace.bar_landings)
    print(described(counts, len(files)))


def described(counts: dict[str, int], deliveries: int) -> str:
    """What there is, in one line."""
    told = f"; {counts['actions']:,} corporate actions" if counts["actions"] else ""
    return (
        f"{counts['versions']:,} versions of {counts['bars']:,} bars of {counts['symbols']:,} symbols "
        f"from {deliveries:,} deliveries; {counts['sessions']:,} sessions sealed{told}"
    )


if __name__ == "__main__":
    run_stage(main)
