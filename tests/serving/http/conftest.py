"""The API over a market whose answers can be worked out by hand."""

import pytest
from starlette.testclient import TestClient
from support.fake_service import fake_app, fake_service

from serving.http.auth import SCOPES, add_key


@pytest.fixture
def service():
    return fake_service()


@pytest.fixture
def client(service, tmp_path):
    with TestClient(fake_app(tmp_path, service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def locked(tmp_path):
    """A client of a service that needs a key; a key for everything; the file of the keys."""
    key = add_key(tmp_path / "keys.json", "desk", SCOPES)
    with TestClient(fake_app(tmp_path)) as client:
        yield client, key, tmp_path / "keys.json"
