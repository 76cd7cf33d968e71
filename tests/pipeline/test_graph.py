"""`dvc.yaml` against the code: what a stage imports, reads and computes with makes it run again."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
import yaml

from pitwise.workspace import Artifact, Workspace
from training import KINDS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pitwise", "feature_repo", "training", "serving", "monitoring")
DVC = {
    name: stage
    for path in ("dvc.yaml", "walk_forward/dvc.yaml")
    for name, stage in yaml.safe_load((ROOT / path).read_text())["stages"].items()
}
STAGES = {
    f"{name}@{item}" if item else name: (stage.get("do", stage), item)
    for name, stage in DVC.items()
    for item in stage.get("foreach", [None])
}
BASE = {"pitwise/errors.py", "pitwise/stage.py", "pitwise/workspace.py"}
"""What every stage stands on, file by file, since folder `pitwise` is the whole library."""

DYNAMIC = {
    "feature_repo.publish": "feature_repo.offline_store",
    "feature_repo.store": "feature_repo.offline_store",
}
"""Feast loads the offline store by the name in feature_store.yaml."""


def paths(stage: dict, key: str) -> list[str]:
    names = [next(iter(x)) if isinstance(x, dict) else x for x in stage.get(key, [])]
    return [str(name) for name in names]


def code(stage: dict) -> set[str]:
    """A page's template and its colours are not imported, so they are left out."""
    ours = {path for path in paths(stage, "deps") if path.split("/")[0] in PACKAGES}
    return {path for path in ours if not path.endswith((".html", ".css"))}


def locks(stage: dict) -> set[str]:
    return {path for path in paths(stage, "deps") if path.startswith("locks/")}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    made = grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)
    for importer, imported in DYNAMIC.items():
        made.add_import(importer=importer, imported=imported)
    return made


def is_ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES


@cache
def file_of(module: str) -> str:
    """Path of a module's file, relative to the project."""
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


def modules(stage: dict, graph: grimp.ImportGraph) -> set[str]:
    """What a stage's command runs and imports of ours, at any depth."""
    module = stage["cmd"].split()[2]
    if f"{module}.__main__" in graph.modules:
        module += ".__main__"
    assert module in graph.modules, f"{stage['cmd']}: no such module"
    return {module, *(m for m in graph.find_upstream_modules(module) if is_ours(m))}


def covers(dep: str, module: str) -> bool:
    file = file_of(module)
    return file == dep or file.startswith(dep + "/")


def is_marker(module: str) -> bool:
    """A package's `__init__.py`; those hold words, not work (`test_packages_export_nothing`)."""
    return file_of(module).endswith("__init__.py")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_every_module_it_imports(name, graph):
    stage, _ = STAGES[name]
    imported = {m for m in modules(stage, graph) if not is_marker(m)}
    assert {m for m in imported if not any(covers(dep, m) for dep in code(stage))} == set()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_no_code_it_does_not_use(name, graph):
    stage, _ = STAGES[name]
    imported = modules(stage, graph)
    assert {dep for dep in code(stage) if not any(covers(dep, m) for m in imported)} == set()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_base(name):
    stage, _ = STAGES[name]
    assert code(stage) >= BASE


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_depends_on_is_there(name):
    stage, _ = STAGES[name]
    assert {path for path in code(stage) | locks(stage) if not (ROOT / path).exists()} == set()


ENGINE = "engine"
"""Says where a result is computed, not what it is; so does Ray."""


def sections_read(path: Path) -> set[str]:
    """Sections of `params.yaml` that a module loads: literals, or the name of a variable."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "load_params"
    ]
    sections = [call.args[1] for call in calls]
    return {s.value if isinstance(s, ast.Constant) else ast.unparse(s) for s in sections}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_params_sections_it_reads(name, graph):
    stage, _ = STAGES[name]
    read = set().union(*(sections_read(ROOT / file_of(m)) for m in modules(stage, graph))) - {ENGINE}
    # A stage may depend on one key of a section: `evaluate.vault`.
    sections = [path.split(".")[0] for path in paths(stage, "params")]
    declared = {"kind" if name == "${item}" else name for name in sections}
    if "kind" in read and "kind" not in declared:  # a stage of all models
        declared = {"kind" if path in KINDS else path for path in declared}
    assert declared == read


STATE = {
    "params.yaml",
    "feature_repo",
    "mlruns",  # the files of MLflow's versions
    "data/landing",  # what was delivered: tracked by data/landing.dvc, made by no stage
    "data/raw/truth.parquet",  # of the synthetic source alone
    "data/raw/yfinance",  # what was fetched, so that a retrieval resumes
    "data/feast/online.lock",
    "data/bars/shards",  # what a stage that was stopped goes on from
    "data/clean/market_shards",
    "data/clean/shards",
    "data/features/shards",
    "data/dataset/shards",
    "data/evaluation/folds",  # what a walk-forward that was stopped goes on from
    "data/live/bars.db",
    "data/serving/log",
}


def test_every_artifact_has_one_stage_that_makes_it():
    made = [
        path
        for stage, item in STAGES.values()
        for key in ("outs", "metrics", "plots")
        for path in (p.replace("${item}", item or "") for p in paths(stage, key))
    ]
    assert len(made) == len(set(made))
    named = {a.path for a in vars(Workspace).values() if isinstance(a, Artifact)}
    for path in named - STATE:
        assert any(m == path or m.startswith(path + "/") for m in made), path
    assert STATE - named == set()


# A stage's lock names every distribution that its modules import, and no lock is there for nothing.


def pinned(lock: str) -> set[str]:
    lines = (ROOT / lock).read_text().splitlines()
    return {normalised(re.split(r"[=\s;\[]", line)[0]) for line in lines if line}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def distributions() -> dict[str, set[str]]:
    return {
        package: {normalised(name) for name in names}
        for package, names in packages_distributions().items()
    }


def libraries(stage: dict, graph: grimp.ImportGraph) -> set[str]:
    """The packages of others that a stage's modules import."""
    imported = {
        m
        for ours in modules(stage, graph)
        for m in graph.find_modules_directly_imported_by(ours)
        if not is_ours(m)
    }
    return {m.split(".")[0] for m in imported} - sys.stdlib_module_names - {"ray"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_lock_of_what_it_computes_with(name, graph):
    stage, _ = STAGES[name]
    locked = set().union(*(pinned(lock) for lock in locks(stage)))
    assert {m for m in libraries(stage, graph) if not distributions()[m] & locked} == set()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_no_lock_it_does_not_compute_with(name, graph):
    stage, _ = STAGES[name]
    imported = set().union(*(distributions()[m] for m in libraries(stage, graph)))
    for lock in locks(stage):
        assert imported & direct(Path(lock).stem), lock


def direct(extra: str) -> set[str]:
    """What an extra names itself; `core` for the dependencies of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = project["dependencies"] if extra == "core" else project["optional-dependencies"][extra]
    return {normalised(re.match(r"[\w.-]+", requirement)[0]) for requirement in named}


WEB = {"fastapi", "starlette", "uvicorn", "flask", "litestar"}


@pytest.mark.parametrize("lock", ["core", "sources", "models"])
def test_the_bump_of_a_web_framework_retrains_nothing(lock):
    assert pinned(f"locks/{lock}.lock") & WEB == set()


@pytest.mark.parametrize("lock", ["core", "sources", "store", "registry", "serving", "monitoring"])
def test_torch_is_in_the_locks_of_training_alone(lock):
    assert pinned(f"locks/{lock}.lock") & {"torch"} == set()


@pytest.mark.parametrize("lock", sorted((ROOT / "locks").glob("*.lock")), ids=lambda path: path.stem)
def test_every_lock_has_the_versions_of_the_tests(lock):
    def pins(path: Path) -> dict[str, set[str]]:
        versions: dict[str, set[str]] = {}
        for line in path.read_text().splitlines():
            name, version = line.split(";")[0].strip().split("==")
            versions.setdefault(normalised(name), set()).add(version)
        return versions

    tested = pins(ROOT / "locks/dev.lock")
    assert {n: v for n, v in pins(lock).items() if not v <= tested.get(n, set())} == {}


def test_no_module_imports_itself_by_way_of_others(graph):
    ours = [m for m in graph.modules if is_ours(m)]
    edges = {m: {i for i in graph.find_modules_directly_imported_by(m) if is_ours(i)} for m in ours}
    assert [group for group in components(edges) if len(group) > 1] == []


def components(edges: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components: the modules that reach one another."""

    def reached(module: str) -> set[str]:
        found, todo = set(), [module]
        while todo:
            for nxt in edges[todo.pop()] - found:
                found.add(nxt)
                todo.append(nxt)
        return found

    reach = {module: reached(module) for module in edges}
    groups = {frozenset({m, *(o for o in reach[m] if m in reach[o])}) for m in edges}
    return [set(group) for group in groups]


def test_components_find_a_circle():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert sorted(map(sorted, components(edges))) == [["a"], ["b", "c"], ["d"]]


def test_packages_export_nothing(graph):
    """Else whoever imports one module of a package depends on all of them. The client is for people, and
    no stage imports it."""
    markers = [m for m in graph.modules if is_ours(m) and is_marker(m) and m != "pitwise.client"]
    imports = {m: {i for i in graph.find_modules_directly_imported_by(m) if is_ours(i)} for m in markers}
    assert {m: found for m, found in imports.items() if found - {"pitwise"}} == {}


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_feast_imports_no_module_of_the_store_but_its_definitions():
    folder = ROOT / "feature_repo"
    ignored = (folder / ".feastignore").read_text().splitlines()
    names = {path.name for path in folder.glob("*.py")}
    assert names - set(ignored) == {"definitions.py"}
    assert {name for name in ignored if not name.startswith("#")} - names == set()
