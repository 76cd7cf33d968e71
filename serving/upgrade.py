"""A workspace of an older version as one of this: with all params, and standing on landings.

0.2 had one file of raw bars. Data, prediction log, registry and the service's keys stay where they are.
"""

import json

import pandas as pd
from ruamel.yaml import YAML

from pitwise.bars.landing import Basis, Landing, first_to_last, land, landing_files, newest_close
from pitwise.errors import StoreError
from pitwise.init import is_made, new_workspace, template
from pitwise.load import MADE
from pitwise.workspace import Workspace, read_parquet, replacing, sha256

GONE = (
    ("backtest", "sectors"),
    ("evaluate", "gradient_boosting"),
    ("monitor", "drifted_share"),
    ("monitor", "psi_threshold"),
    ("predict", "reference_windows"),
    ("predict", "recent_sessions"),
    ("predict", "seed"),
    ("walk_forward", "n_jobs"),
    ("walk_forward", "trees"),
    *(
        ("search", "space", "gradient_boosting", f"walk_forward.trees.{name}")
        for name in ("iterations", "learning_rate", "max_leaf_nodes", "rows_per_leaf", "l2", "columns")
    ),
)
"""Keys that nothing reads any more; those of trees are in section `gradient_boosting`."""


def upgrade(workspace: Workspace) -> bool:
    """Bring a workspace up; False where it is one of this version already.

    The params are changed last: what was interrupted before goes on from there.

    Raises:
        StoreError: it is no workspace, or when its bars were retrieved is not known.
    """
    from serving.live.journal import drain

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(
        type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    if not workspace.params.is_file():
        raise StoreError(f"{workspace.root}: is no workspace: it has no params.yaml.")
    params = yaml.load(workspace.params)
    dropped = drop_gone(params)
    if "ingest" not in params:
        if not add_missing(params, yaml.load(template() / "params.yaml")) and not dropped:
            return False
        with replacing(workspace.params) as temporary:
            yaml.dump(params, temporary)
        return True
    if workspace.root.joinpath("data/raw/bars.parquet").exists() and not landing_files(workspace):
        land(workspace, first_landing(workspace, params["ingest"]["source"]))
    drain(workspace)
    position = list(params).index("ingest")
    comments = params.ca.items.pop("ingest", None)
    params.insert(position, "load", params.pop("ingest"))
    if comments:
        params.ca.items["load"] = comments
    verdicts_at_an_instant(params["clean"])
    add_missing(params, yaml.load(template() / "params.yaml"))
    # What Feast holds has no factors yet, so nothing can go on from it.
    workspace.published.unlink(missing_ok=True)
    _let_git_see_landings(workspace)
    if is_made(workspace):
        new_workspace(workspace.root)
    with replacing(workspace.params) as temporary:
        yaml.dump(params, temporary)
    return True


def first_landing(workspace: Workspace, source: str) -> Landing:
    """The raw bars of 0.2 as a delivery, received when they were retrieved."""
    path = workspace.root / "data/raw/bars.parquet"
    rows = read_parquet(path)
    received = newest_close(rows) if source in MADE else retrieved_at(workspace, sha256(path))
    basis: Basis = "split_adjusted" if source == "yfinance" else "traded"
    return Landing(rows, source, received, basis, "assumed", first_to_last(rows))


def retrieved_at(workspace: Workspace, content: str) -> pd.Timestamp:
    """When the raw bars were retrieved first, by the list of retrievals."""
    path = workspace.root / "data/raw/retrievals.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    instants = [record["retrieved_at"] for record in records if record["sha256"] == content]
    if not instants:
        raise StoreError(
            f"{path}: does not say when data/raw/bars.parquet was retrieved, so what was known when "
            "cannot be kept. Move that file away, run `pitwise upgrade` again, then `pitwise load`."
        )
    return pd.Timestamp(instants[0])


def _let_git_see_landings(workspace: Workspace) -> None:
    """Have Git ignore the folders in data/ and not all of it: DVC tracks nothing that Git ignores."""
    path = workspace.root / ".gitignore"
    lines = path.read_text().splitlines() if path.exists() else []
    if "/data/" in lines:
        at = lines.index("/data/")
        lines[at : at + 1] = ["/data/[a-z]*/", "/data/*.lock"]
        with replacing(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n")


def verdicts_at_an_instant(clean: dict) -> None:
    """Bring section `clean` up: what is still counted in the same way goes over, thresholds do not."""
    glitches, actions = clean.pop("glitches", {}), clean.pop("actions", {})
    for section, old, names in (
        ("copies", glitches, ["stale_bars", "absurd_volume"]),
        ("absences", actions, ["reuse_sessions", "outage_share"]),
    ):
        if section not in clean:
            clean[section] = {name: old[name] for name in names if name in old}


def drop_gone(params: dict) -> bool:
    """Take out the keys of `GONE`; whether there were any."""
    found = False
    for *sections, name in GONE:
        section = params
        for key in sections:
            section = section.get(key) or {}
        found |= section.pop(name, None) is not None
    return found


def add_missing(params: dict, new: dict) -> bool:
    """Keys that the installed version has and the workspace's params lack, at any depth.

    Returns:
        whether there were any.
    """
    added = False
    for key, value in new.items():
        if key not in params:
            params[key] = value
            added = True
        elif isinstance(value, dict) and isinstance(params[key], dict) and key != "faults":
            added |= add_missing(params[key], value)
    return added
