"""What all tests share: the finished default run, PostgreSQL, and the marker of each test."""

import gc
import os
import re
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core each for pytest's workers; torch would take all

import prometheus_client  # noqa: F401  # before Feast, which would have its values kept in files
import pytest
from support.once import once
from support.servers import Postgres, postgres
from support.workspaces import Run, new_run

LADDER = ("unit", "property", "component", "end_to_end")
"""The markers, cheapest first; each test has one."""
FOLDERS = {"pipeline": "end_to_end", "benchmarks": "end_to_end"} | dict.fromkeys(
    ("feature_repo", "registry", "serving", "monitoring", "point_in_time"), "component"
)
"""The marker of a folder's tests, if neither they nor their fixtures say another; else `unit`."""
INNER_LOOP = "unit or property"
"""The expression of `make test-fast`."""
FIXTURES = {"default_run": "end_to_end", "server": "component"}
"""A test that uses one of these has at least this marker."""


def marker(item: pytest.Item) -> str:
    """The marker of a test: its own, or what its fixtures, its folder and hypothesis make of it."""
    own = {mark.name for mark in item.iter_markers() if mark.name in LADDER}
    if len(own) > 1:
        raise pytest.UsageError(f"{item.nodeid}: has the markers {', '.join(sorted(own))}; one is right")
    if own:
        return own.pop()
    folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
    names = [FOLDERS.get(folder, "unit"), *(FIXTURES.get(name, "unit") for name in item.fixturenames)]
    given = max(names, key=LADDER.index)
    return "property" if given == "unit" and hasattr(item.obj, "hypothesis") else given


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For the inner loop, do not import files that have nothing for it: Feast alone takes seconds."""
    if config.option.markexpr != INNER_LOOP or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text()
    folder = collection_path.relative_to(config.rootpath / "tests").parts[0]
    dear = folder in FOLDERS or "\npytestmark = pytest.mark.component\n" in text
    return True if dear and not re.search(r"mark\.(unit|property)\b", text) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep garbage collection off what this makes: it is large, and needed to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files: dict[Path, list[int]] = defaultdict(list)
    for item in items:
        name = marker(item)
        if not item.get_closest_marker(name):
            item.add_marker(name)
        files[item.path].append(LADDER.index(name))
    if hasattr(config, "workerinput"):
        # Dear files first, and of those the ones with few tests, which are long: at the end short tests
        # are left to share.
        items.sort(key=lambda item: (-max(files[item.path]), len(files[item.path]), item.path))


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """For `-n auto`, one more than cores: a test that waits for others leaves its core idle."""
    return (yield) + 1


@pytest.fixture(scope="session")
def default_run(tmp_path_factory) -> Run:
    """`pitwise run` of the default source, finished; shared by all workers, so copy it to write."""
    return Run(once(tmp_path_factory, "default", lambda folder: new_run(folder).run("pitwise", "run")))


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """Of an empty database, of each kind that the prediction log may be in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return request.getfixturevalue("server").new_database()
