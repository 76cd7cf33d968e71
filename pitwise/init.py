"""Make a workspace: a folder with the params, data and results of one run.

The code stays where it is installed; the workspace's `dvc.yaml` names its files there, so that a newer
`pitwise` makes the stages that it changes run again.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pitwise.errors import DataError, ParamsError, StoreError
from pitwise.workspace import Workspace, replacing

CODE = Path(__file__).absolute().parent.parent
"""Where the packages lie: a checkout, or the environment's site-packages."""
PACKAGES = ("pitwise", "feature_repo", "training", "serving", "monitoring")
PIPELINES = ("dvc.yaml", "walk_forward/dvc.yaml")
LOCKS = "locks"
ITEM = re.compile(r"(?P<dash> +- )(?P<path>[\w./-]+)")
MARK = "# Made by `pitwise init`"
HEADER = f"""\
{MARK} from the pipeline of the installed package. `pitwise init` and `pitwise run` make it
# anew, so put stages of your own into a dvc.yaml in a folder below.
# Code stands here file by file, with its place on this machine: DVC would count the compiled files in a
# folder outside the workspace as changes.
"""
OWN = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "params.yaml",
    "prices/.gitignore",  # `load.path` of the params
    "prices/README.md",
    "universe/README.md",
)
"""Files that a workspace gets once: from then on they are the person's."""
STORE = ("feature_store.yaml", "feature_store.redis.yaml")
DEFINITIONS = '''\
"""What `feast apply` and `feast ui` read here: the definitions of the installed package."""

from feature_repo.definitions import *  # noqa: F403
'''


def template() -> Path:
    """The folder with the files that workspaces start from: in a checkout, its root."""
    packed = CODE / "pitwise/template"
    return packed if packed.is_dir() else CODE


def is_made(workspace: Workspace) -> bool:
    """Whether `new_workspace` made it, so that its `dvc.yaml` may be made anew."""
    path = workspace.root / "dvc.yaml"
    return path.is_file() and path.read_text().startswith(MARK)


def new_workspace(folder: str | Path) -> Workspace:
    """Make `folder` a workspace, or bring an older one's `dvc.yaml` up to the installed code.

    Params and settings that are there stay, and so do data and results.

    Raises:
        StoreError: the folder has files and `pitwise init` did not make it.
    """
    workspace = Workspace(folder)
    root = workspace.root
    if root.exists() and not is_made(workspace):
        # A fresh repository or virtual environment is no obstacle.
        names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
        if names:
            raise StoreError(
                f"{root}: holds files that `pitwise init` did not make ({', '.join(names[:3])}, ...). "
                "Name a new or empty folder."
            )
    for name in PIPELINES:
        _write(pipeline(template() / name), root / name)
    for name in OWN:
        _copy(template() / name, root / name)
    for name in STORE:
        _copy(CODE / "feature_repo" / name, workspace.feast_repo / name)
    _write(DEFINITIONS, workspace.feast_repo / "definitions.py")
    _without_git(root)
    return workspace


def run_below(workspace: Workspace, name: str, source: str, data: str | Path | None = None) -> Workspace:
    """Make or refresh the workspace `runs/<name>` of a workspace: its params, with another source.

    Args:
        source: a source of `params.yaml`'s load.source.
        data: of source `csv` the file or folder of prices, of `yfinance` a file of tickers.

    Raises:
        ParamsError: the name is none of a folder, or the source needs data, or takes none.
        DataError: there is no such data.
        StoreError: `runs/<name>` has files and `pitwise init` did not make it.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise ParamsError(f"--name: '{name}' is not the name of a folder below runs.")
    if source == "csv" and data is None:
        raise ParamsError("--data: say which prices: a file or a folder of files.")
    if source not in ("csv", "yfinance") and data is not None:
        raise ParamsError(f"--data: source {source} takes none; csv takes prices, yfinance tickers.")
    path = None if data is None else Path(data).expanduser().absolute()
    if path and not path.exists():
        raise DataError(f"{path}: there is no such file or folder. Name the one with your data.")
    workspace.require_landings()
    yaml = _yaml()
    params = yaml.load(workspace.params)
    _point_at(params, source, path, workspace)
    made = new_workspace(workspace.root / "runs" / name)
    for table in (workspace.root / "universe").glob("*.csv"):
        shutil.copyfile(table, made.root / "universe" / table.name)
    with replacing(made.params) as temporary:
        yaml.dump(params, temporary)
    return made


def pipeline(original: Path) -> str:
    """A `dvc.yaml` with the code of its dependencies named where it is installed."""
    lines: list[str] = []
    for line in original.read_text().splitlines():
        item = ITEM.fullmatch(line)
        lines += [item["dash"] + path for path in _located(item["path"])] if item else [line]
    return HEADER + "\n".join(lines) + "\n"


def _located(dep: str) -> list[str]:
    """A path of `dvc.yaml` as a workspace names it: code by its files, the rest as it is."""
    first = dep.split("/")[0]
    if first == LOCKS:
        return [_quoted(template() / dep)]
    if first not in PACKAGES:
        return [dep]
    own = [dep] if dep == "feature_repo" else []  # the store's settings, which are the workspace's
    return own + [_quoted(path) for path in _sources(CODE / dep)]


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def _sources(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        hidden = file.name.startswith(".") or "__pycache__" in file.parts
        if file.is_file() and not hidden and file.name not in STORE:
            yield file


def _point_at(params: Any, source: str, data: Path | None, workspace: Workspace) -> None:
    """Change a document of `params.yaml`; paths relative to its workspace become absolute."""
    params["load"]["source"] = source
    if source == "csv":
        params["load"]["path"] = str(data)
    for section, name in (("load", "actions"), ("clean", "reference")):
        if params[section][name]:
            params[section][name] = str(workspace.path(params[section][name]))
    tickers = params["yfinance"]["tickers"]
    if source == "yfinance" and data:
        params["yfinance"]["tickers"] = str(data)
    elif isinstance(tickers, str):
        params["yfinance"]["tickers"] = str(workspace.path(tickers))


def _without_git(root: Path) -> None:
    """Tell DVC where the folder is no Git repository of its own."""
    if (root / ".git").exists():
        return
    path = root / ".dvc/config"
    text = path.read_text()
    if "no_scm" not in text:
        _write(text.replace("[core]\n", "[core]\n    no_scm = true\n", 1), path)


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def _write(text: str, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml
