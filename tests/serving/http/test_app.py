"""The app's lifespan opens the service and closes it; its routes are called as they should be."""

from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient
from support.fake_service import PARAMS, fake_service

from pitwise.errors import StoreError
from pitwise.workspace import Workspace
from serving.http.app import create_app
from serving.http.auth import Keys
from serving.settings import ServeParams

pytestmark = pytest.mark.unit


def app_of(tmp_path, build):
    keys = Keys(Workspace(tmp_path).path(PARAMS["keys"]))
    return create_app(ServeParams(**PARAMS), keys, build)


def test_the_service_is_open_while_it_answers_and_closed_in_the_end(tmp_path):
    happened = []

    @contextmanager
    def build():
        happened.append("open")
        yield fake_service()
        happened.append("closed")

    app = app_of(tmp_path, build)
    assert not happened
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
        assert happened == ["open"]
        assert not app.state.ending.is_set()
    assert happened == ["open", "closed"]
    assert app.state.ending.is_set()  # so streams end


def test_what_keeps_the_service_from_starting_is_raised_by_the_lifespan(tmp_path):
    def build():
        raise StoreError("the champion is not there.")

    with (
        pytest.raises(StoreError, match="the champion is not there"),
        TestClient(app_of(tmp_path, build)),
    ):
        pass


def test_a_part_that_cannot_be_closed_is_heard_of(tmp_path):
    @contextmanager
    def build():
        yield fake_service()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"), TestClient(app_of(tmp_path, build)):
        pass


@pytest.mark.parametrize(
    "address",
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/model",
        "/v1/forecasts",
        "/v1/forecasts/stream",
        "/v1/forecasts/AAPL/history",
        "/v1/features/AAPL",
        "/docs",
        "/openapi.json",
    ],
)
def test_head_is_answered_like_get_without_the_body(client, address):
    head = client.head(address)
    assert head.status_code == 200
    assert head.content == b""
    if address != "/v1/forecasts/stream":  # which has no end
        assert head.headers["content-type"] == client.get(address).headers["content-type"]


def test_head_of_what_is_only_posted_is_not_allowed(client):
    assert client.head("/v1/predict").status_code == 405
