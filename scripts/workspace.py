"""A workspace of its own for a person's own prices: `runs/<name>`, beside the default run.

It is a copy of the project's files, refreshed at every call, with its own params, lock, store,
registry and reports, so that nothing in it can be mistaken for the default run's results. In it,
`dvc repro` and every other command work as they do in the project's root.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

OWN = {"dvc.lock", "params.yaml"}
"""Files of the root that a workspace does not take over as they are."""


def project_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := Path(name)).exists()]


def make_workspace(workspace: Path, source: str, data: Path | None) -> None:
    """Copy the project's files to `workspace` and point its ingest at `data`.

    Args:
        data: of source `csv` the file or folder, of `yfinance` a file of tickers; None leaves what
            `params.yaml` says.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    for room in ("feature_repo", "training", "serving", "monitoring"):  # forget removed modules
        shutil.rmtree(workspace / room, ignore_errors=True)
    for path in project_files():
        if str(path) not in OWN:
            target = workspace / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["ingest"]["source"] = source
    if data:
        section, key = ("yfinance", "tickers") if source == "yfinance" else ("ingest", "path")
        params[section][key] = str(data.resolve())
    yaml.dump(params, workspace / "params.yaml")
    no_git = ["dvc", "config", "core.no_scm", "true"]
    subprocess.run(no_git, cwd=workspace, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the workspace is runs/NAME")
    parser.add_argument("source", help="a source of params.yaml's ingest.source, such as csv")
    parser.add_argument("data", help="file or folder of prices; yfinance: file of tickers, or empty")
    arguments = parser.parse_args()
    if not arguments.data and arguments.source == "csv":
        sys.exit("error: say which prices: make run SOURCE=csv DATA=<file or folder>")
    data = Path(arguments.data).expanduser() if arguments.data else None
    if data and not data.exists():
        sys.exit(f"error: {data}: there is no such file or folder. Set DATA to your prices.")
    workspace = Path("runs") / arguments.name
    make_workspace(workspace, arguments.source, data)
    print(f"workspace {workspace}: params, store, registry and reports of its own")


if __name__ == "__main__":
    main()
