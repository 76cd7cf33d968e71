"""schemathesis against a real running service, with every check on: without keys and with."""

import shutil

import pytest
from support import small_runs as small

from benchmarks.serving.fuzz import found, new_key
from benchmarks.serving.service import pitwise_serve
from pitwise.workspace import Workspace, read_parquet

EXAMPLES = 8


@pytest.fixture(scope="module")
def service(published, tmp_path_factory):
    """A running service of two readers, and its workspace."""
    folder = tmp_path_factory.mktemp("fuzz") / "workspace"
    workspace = Workspace(shutil.copytree(published.root, folder))
    small.register_champion(workspace, read_parquet(workspace.dataset_rows))
    small.change_params(workspace, serve={"workers": 2, "requests_per_minute": 10_000_000})
    with pitwise_serve(workspace) as running:
        yield running, workspace


def test_a_running_service_keeps_to_its_openapi_document(service):
    running, _ = service
    assert found(running.url, EXAMPLES, quiet=True) == ""


def test_a_running_service_with_keys_keeps_to_its_openapi_document(service):
    running, workspace = service
    assert found(running.url, EXAMPLES, new_key(workspace), quiet=True) == ""
