"""The app's lifespan builds the service and closes it."""

import pytest
from starlette.testclient import TestClient
from support.fake_service import PARAMS, fake_app

from pitwise.errors import StoreError
from pitwise.workspace import Workspace
from serving.http.app import create_app
from serving.http.auth import Keys
from serving.settings import ServeParams

pytestmark = pytest.mark.unit


def closed(service) -> tuple[bool, bool, bool]:
    return service.champion.stopped, service.live.closed, service.served.closed


def test_every_part_is_closed_at_the_end_and_none_before(service, tmp_path):
    with TestClient(fake_app(tmp_path, service)) as client:
        assert client.get("/readyz").status_code == 200
        assert closed(service) == (False, False, False)
    assert closed(service) == (True, True, True)


def test_a_part_that_cannot_be_closed_keeps_no_other_open(service, tmp_path):
    def fail():
        raise OSError("the disk is full")

    service.live.close = fail
    with pytest.raises(OSError, match="the disk is full"), TestClient(fake_app(tmp_path, service)):
        pass
    assert closed(service) == (True, False, True)


def test_what_keeps_the_service_from_starting_is_raised_by_the_lifespan(tmp_path):
    def build():
        raise StoreError("the champion is not there.")

    keys = Keys(Workspace(tmp_path).path(PARAMS["keys"]))
    app = create_app(ServeParams(**PARAMS), keys, build)
    with pytest.raises(StoreError, match="the champion is not there"), TestClient(app):
        pass
