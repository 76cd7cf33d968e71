"""The pages over a market whose figures can be worked out by hand."""

from dataclasses import replace

import pytest
from starlette.testclient import TestClient
from support.fake_service import fake_app, fake_service
from support.once import once
from support.web_files import web_workspace

from pitwise.workspace import Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Workspace:
    """Files of the dashboard; to be read only."""
    return Workspace(once(tmp_path_factory, "web", web_workspace))


@pytest.fixture
def service(workspace):
    return replace(fake_service(), workspace=workspace)


@pytest.fixture
def client(service, tmp_path):
    with TestClient(fake_app(tmp_path, service), raise_server_exceptions=False) as client:
        yield client
