"""A workspace holds params, data and results; its pipeline names the installed code."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pitwise import init
from pitwise.errors import DataError, ParamsError, StoreError
from pitwise.init import CODE, HEADER, MARK, new_workspace, run_below
from pitwise.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def made(tmp_path) -> Workspace:
    return new_workspace(tmp_path / "desk")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def stages(workspace: Workspace) -> dict:
    document = yaml.safe_load((workspace.root / "dvc.yaml").read_text())
    return {name: stage.get("do", stage) for name, stage in document["stages"].items()}


def params(workspace: Workspace) -> dict:
    return yaml.safe_load(workspace.params.read_text())


def test_a_workspace_has_settings_and_no_code(made):
    assert files(made.root) == [
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        "dvc.yaml",
        "feature_repo/definitions.py",
        "feature_repo/feature_store.redis.yaml",
        "feature_repo/feature_store.yaml",
        "params.yaml",
        "prices/.gitignore",
        "prices/README.md",
        "universe/README.md",
        "walk_forward/dvc.yaml",
    ]


@pytest.mark.parametrize(
    "name", ["params.yaml", "feature_repo/feature_store.yaml", "feature_repo/feature_store.redis.yaml"]
)
def test_settings_are_those_of_the_project(made, name):
    assert (made.root / name).read_text() == (ROOT / name).read_text()


def test_the_pipeline_is_the_project_s_with_the_code_where_it_is_installed(made):
    project = stages(Workspace(ROOT))
    for name, stage in stages(made).items():
        original = project[name]
        assert {**stage, "deps": None} == {**original, "deps": None}
        own = [dep for dep in stage["deps"] if not Path(dep).is_absolute()]
        folders = ("feature_repo", "universe")  # which are each workspace's own
        named = [dep for dep in original["deps"] if not (ROOT / dep).exists() or dep in folders]
        assert own == named
        assert all(Path(dep).is_file() for dep in set(stage["deps"]) - set(own))
    assert stages(made).keys() == project.keys()


def test_every_source_file_of_a_folder_is_a_dependency(made):
    deps = stages(made)["clean"]["deps"]
    for folder in ("pitwise/bars", "pitwise/cleaning"):
        assert {str(path) for path in (ROOT / folder).rglob("*.py")} <= set(deps)
    assert str(ROOT / "locks/core.lock") in deps


def test_a_page_s_template_is_a_dependency_and_compiled_code_is_none(made):
    deps = [dep for stage in stages(made).values() for dep in stage["deps"]]
    assert str(ROOT / "pitwise/reports/page.html") in deps
    assert [dep for dep in deps if "__pycache__" in dep or dep.endswith(".pyc")] == []


def test_the_store_s_settings_are_the_workspace_s_own(made):
    deps = stages(made)["publish"]["deps"]
    assert "feature_repo" in deps
    assert str(ROOT / "feature_repo/offline_store.py") in deps
    assert str(ROOT / "feature_repo/feature_store.yaml") not in deps


def test_the_pipeline_keeps_its_descriptions_and_comments(made):
    text = (made.root / "dvc.yaml").read_text()
    assert text.startswith(HEADER)
    assert "desc: bars that can be trusted; the rest to quarantine, each with its reason" in text
    assert "# The way begins at data/landing, where `pitwise load` and the service put" in text


@pytest.mark.component
def test_the_definitions_are_those_of_the_package(made):
    scope: dict = {}
    exec((made.feast_repo / "definitions.py").read_text(), scope)
    from feature_repo import definitions

    assert scope["OBJECTS"] is definitions.OBJECTS


@pytest.mark.component
def test_the_package_s_modules_win_over_the_workspace_s_folder_of_the_same_name(made):
    """`feature_repo/` of a workspace has no `__init__.py`, so Python goes on to the package."""
    program = "import feature_repo.publish as m; print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=made.root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(CODE / "feature_repo/publish.py")


def test_a_second_init_brings_the_pipeline_up_and_leaves_the_rest(made):
    made.params.write_text("load: {source: csv, path: mine.csv}\n")
    (made.feast_repo / "feature_store.yaml").write_text("mine")
    result = made.landing / "it.parquet"
    result.parent.mkdir(parents=True)
    result.write_bytes(b"bars")
    made.landing.with_suffix(".dvc").write_text("outs: []\n")
    (made.root / "dvc.lock").write_text("locked")
    pipeline = (made.root / "dvc.yaml").read_text()
    (made.root / "dvc.yaml").write_text(MARK + " of an older version")
    new_workspace(made.root)
    assert (made.root / "dvc.yaml").read_text() == pipeline
    assert made.params.read_text() == "load: {source: csv, path: mine.csv}\n"
    assert made.landing.with_suffix(".dvc").read_text() == "outs: []\n"
    assert (made.feast_repo / "feature_store.yaml").read_text() == "mine"
    assert result.read_bytes() == b"bars"
    assert (made.root / "dvc.lock").read_text() == "locked"


def test_a_second_init_restores_what_was_deleted(made):
    before = files(made.root)
    (made.root / ".dvcignore").unlink()
    shutil.rmtree(made.feast_repo)
    shutil.rmtree(made.root / "prices")
    new_workspace(made.root)
    assert files(made.root) == before


def test_init_goes_on_after_a_kill_at_any_file(tmp_path, monkeypatch):
    whole = files(new_workspace(tmp_path / "whole").root)
    real = init.replacing
    for kill_at in range(len(whole)):
        folder = tmp_path / str(kill_at)
        writes = 0

        def dying(path, kill_at=kill_at):
            nonlocal writes
            writes += 1
            if writes > kill_at:
                raise KeyboardInterrupt
            return real(path)

        monkeypatch.setattr(init, "replacing", dying)
        with pytest.raises(KeyboardInterrupt):
            new_workspace(folder)
        monkeypatch.setattr(init, "replacing", real)
        assert files(new_workspace(folder).root) == whole


@pytest.mark.parametrize("name", ["notes.txt", "dvc.yaml", "params.yaml"])
def test_a_folder_with_other_files_is_refused_and_left(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match=re.escape(f"{tmp_path}: holds files")):
        new_workspace(tmp_path)
    assert files(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_the_project_s_root_is_refused():
    before = (ROOT / "dvc.yaml").read_text()
    with pytest.raises(StoreError, match="holds files"):
        new_workspace(ROOT)
    assert (ROOT / "dvc.yaml").read_text() == before


def test_a_file_in_the_way_is_named(tmp_path):
    path = tmp_path / "desk"
    path.write_text("a file")
    with pytest.raises((StoreError, OSError), match=re.escape(str(path))):
        new_workspace(path)


def test_a_fresh_repository_with_its_environment_may_become_a_workspace(tmp_path):
    for name in (".git", ".venv"):
        (tmp_path / name).mkdir()
    made = new_workspace(tmp_path)
    assert "no_scm" not in (made.root / ".dvc/config").read_text()


def test_without_git_dvc_does_without(made):
    assert "no_scm = true" in (made.root / ".dvc/config").read_text()


def test_the_files_of_a_workspace_may_be_written(made):
    """Also where the package's own may not."""
    assert all(path.stat().st_mode & stat.S_IWUSR for path in made.root.rglob("*"))


@pytest.fixture
def prices(tmp_path) -> Path:
    path = tmp_path / "my prices.csv"
    path.write_text("symbol,date,close\n")
    return path


def test_a_run_below_has_the_params_of_this_one_and_its_prices(made, prices):
    made.params.write_text(made.params.read_text().replace("min_history: 80", "min_history: 99"))
    below = run_below(made, "mine", "csv", prices)
    assert below.root == made.root / "runs/mine"
    changed = {"load": {"source": "csv", "path": str(prices), "actions": None, "basis": None}}
    assert params(below) == params(made) | changed
    assert params(below)["clean"]["min_history"] == 99
    comment = "# share of the symbols missing a session that makes it the source's loss"
    assert comment in below.params.read_text()


def test_a_run_below_can_be_made_again_and_follows_the_params(made, prices):
    below = run_below(made, "csv", "csv", prices)
    result = below.landing / "it.parquet"
    result.parent.mkdir(parents=True)
    result.write_bytes(b"bars")
    made.params.write_text(made.params.read_text().replace("min_history: 80", "min_history: 99"))
    run_below(made, "csv", "csv", prices)
    assert params(below)["clean"]["min_history"] == 99
    assert result.read_bytes() == b"bars"


def test_the_params_of_this_workspace_stay(made, prices):
    before = made.params.read_bytes()
    run_below(made, "csv", "csv", prices)
    assert made.params.read_bytes() == before


def test_tickers_come_from_the_params_or_from_a_file(made, prices):
    assert params(run_below(made, "a", "yfinance"))["yfinance"] == params(made)["yfinance"]
    below = run_below(made, "b", "yfinance", prices)
    assert params(below)["yfinance"]["tickers"] == str(prices)
    load = {"source": "yfinance", "path": "prices", "actions": None, "basis": None}
    assert params(below)["load"] == load


def test_paths_in_the_params_that_are_relative_to_this_workspace_lead_there_from_below(made):
    text = made.params.read_text().replace("tickers: [AAPL, MSFT, BRK.B]", "tickers: mine.txt")
    made.params.write_text(text)
    below = run_below(made, "y", "yfinance")
    assert params(below)["yfinance"]["tickers"] == str(made.root / "mine.txt")


def test_data_may_be_relative_to_the_shell_or_in_the_person_s_home(made, prices, monkeypatch):
    monkeypatch.setenv("HOME", str(prices.parent))
    below = run_below(made, "csv", "csv", "~/my prices.csv")
    assert params(below)["load"]["path"] == str(prices)


@pytest.mark.parametrize(
    ("name", "source", "data", "error", "message"),
    [
        ("csv", "csv", None, ParamsError, "--data: say which prices"),
        ("csv", "csv", "/nowhere/prices.csv", DataError, "/nowhere/prices.csv: there is no such file"),
        ("sample", "sample", "/", ParamsError, "--data: source sample takes none"),
        ("s", "synthetic", "/", ParamsError, "--data: source synthetic takes none"),
        ("../out", "sample", None, ParamsError, "--name: '../out' is not the name of a folder"),
        ("", "sample", None, ParamsError, "--name: ''"),
        ("..", "sample", None, ParamsError, "--name: '..'"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_is_made(
    made, name, source, data, error, message
):
    with pytest.raises(error, match=re.escape(message)):
        run_below(made, name, source, data)
    assert not (made.root / "runs").exists()


def test_no_run_is_made_below_a_workspace_of_an_older_version(made, prices):
    made.params.write_text(made.params.read_text().replace("\nload:", "\ningest:"))
    with pytest.raises(StoreError, match="`pitwise upgrade` in it brings it up"):
        run_below(made, "csv", "csv", prices)
    assert not (made.root / "runs").exists()


def test_a_run_s_name_that_holds_other_files_is_refused(made, prices):
    (made.root / "runs/csv").mkdir(parents=True)
    (made.root / "runs/csv/notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds files"):
        run_below(made, "csv", "csv", prices)
    assert files(made.root / "runs") == ["csv/notes.txt"]


def test_the_wheel_has_every_file_that_a_workspace_is_made_of():
    import runpy

    named = runpy.run_path(str(ROOT / "hatch_build.py"))["TEMPLATE"]
    assert all((ROOT / name).exists() for name in named)
    needed = {*init.OWN, *init.PIPELINES, "locks"}
    assert needed == set(named)
