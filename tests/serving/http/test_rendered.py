"""Forecasts rendered once are kept, those of a whole market."""

import tracemalloc

import orjson
import pytest

from serving.http.rendered import kept_json

pytestmark = pytest.mark.unit


def test_json_that_is_kept_takes_its_own_size():
    documents = [{"symbol": f"S{i}", "price": i / 7} for i in range(100)]
    tracemalloc.start()
    kept = [kept_json(document) for document in documents]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 100 * 200  # orjson's own bytes: 400 kB and more
    assert [orjson.loads(each) for each in kept] == documents
