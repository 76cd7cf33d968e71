"""Stage `features`: daily features of every symbol and session, every version that was known."""

from pitwise.cleaning.clean import CleanParams
from pitwise.engine import engine_of
from pitwise.features.versions import write_feature_versions
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "clean", CleanParams)
    print(write_feature_versions(workspace, params, engine_of(workspace)))


if __name__ == "__main__":
    run_stage(main)
