"""Stage `clean`: bars that can be trusted, and the rest to quarantine, each with its reason."""

from pitwise.cleaning.by_shard import write_clean
from pitwise.cleaning.clean import CleanParams
from pitwise.engine import engine_of
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, write_json


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "clean", CleanParams)
    report = write_clean(workspace, params, engine_of(workspace))
    write_json(report, workspace.clean_report)
    rows, clean, refused = (report[f"rows_{name}"] for name in ("in", "clean", "quarantined"))
    print(f"{rows:,} rows in = {clean:,} clean + {refused:,} quarantined")


if __name__ == "__main__":
    run_stage(main)
