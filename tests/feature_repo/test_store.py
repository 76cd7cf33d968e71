"""What opening the store loads, and what it leaves as it was."""

import shutil

import pytest
from support import small_runs as small
from support.once import once

from pitwise.workspace import Workspace

OPEN = """
import sys, weakref
from pathlib import Path
from feature_repo.store import open_store
from pitwise.workspace import Workspace

class Table: pass

def opened():
    table = Table()  # a worker's, which opens its first store beside its shard
    return open_store(Workspace(Path.cwd())), weakref.ref(table)

store, table = opened()
assert table() is None
row = [{"symbol": "S000"}]
answer = store.get_online_features(features=["daily:close"], entity_rows=row).to_dict()
assert answer["close"][0] > 0
assert not [name for name in sys.modules if name.partition(".")[0] == "torch"]
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Published files whose registry and online store are still to be made."""
    made = once(tmp_path_factory, "published", small.published_workspace)
    workspace = Workspace(shutil.copytree(made, tmp_path_factory.mktemp("store") / "workspace"))
    workspace.published.with_name("materialized.json").unlink()
    return workspace


def test_a_store_that_is_made_and_read_loads_no_torch_and_leaves_it_to_be_imported(workspace):
    small.run_python(workspace, OPEN + "import torch; assert torch.ones(2).sum() == 2")


def test_a_torch_that_is_there_already_stays(workspace):
    program = (
        "import sys, torch; from pathlib import Path\n"
        "from feature_repo.store import open_store; from pitwise.workspace import Workspace\n"
        "open_store(Workspace(Path.cwd())); assert sys.modules['torch'] is torch\n"
        "from feast.torch_wrapper import get_torch; assert get_torch() is torch"
    )
    small.run_python(workspace, program)
