"""A workspace of an older version gets the params that it lacks; what it has stays."""

import re
import shutil

import pytest
from support.project import PROJECT

from monitoring.settings import MonitorParams
from pitwise.errors import ParamsError
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.settings import ServeParams
from serving.upgrade import upgrade


def test_params_that_are_missing_are_added_and_the_others_stay(tmp_path):
    workspace = Workspace(tmp_path)
    lines = PROJECT.params.read_text().splitlines(keepends=True)
    left_out = ("  seed: 7\n", "  correction_sessions:")
    old = "".join(line for line in lines if not line.startswith(left_out))
    workspace.params.write_text(old.replace("  port: 8600", "  port: 8700   # ours"))
    with pytest.raises(ParamsError, match=r"serve\.correction_sessions is missing"):
        load_params(workspace, "serve", ServeParams)
    assert upgrade(workspace)
    serve = load_params(workspace, "serve", ServeParams)
    assert (serve.port, serve.correction_sessions) == (8700, 10)
    assert load_params(workspace, "monitor", MonitorParams).seed == 7
    assert "# ours" in workspace.params.read_text()
    assert not upgrade(workspace)


def test_params_that_are_gone_are_taken_out(tmp_path):
    workspace = Workspace(tmp_path)
    text = PROJECT.params.read_text()
    monitor = re.search(r"^monitor:.*\n", text, flags=re.MULTILINE).group()
    workspace.params.write_text(text.replace(monitor, monitor + "  psi_threshold: 0.25\n"))
    with pytest.raises(ParamsError, match="psi_threshold"):
        load_params(workspace, "monitor", MonitorParams)
    assert upgrade(workspace)
    load_params(workspace, "monitor", MonitorParams)
    assert not upgrade(workspace)


def test_a_workspace_of_this_version_is_left_as_it_is(tmp_path):
    workspace = Workspace(tmp_path)
    shutil.copyfile(PROJECT.params, workspace.params)
    assert not upgrade(workspace)
    assert workspace.params.read_bytes() == PROJECT.params.read_bytes()
