"""Stage `features`: daily features of every symbol and session, every version that was known."""

import sys

from pitwise.cleaning.clean import CleanParams
from pitwise.features.versions import write_feature_versions
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "clean", CleanParams)
    print(write_feature_versions(workspace, params, progress=sys.stderr.isatty()))


if __name__ == "__main__":
    run_stage(main)
