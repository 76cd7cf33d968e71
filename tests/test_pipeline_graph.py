"""`dvc.yaml` against the code: what a stage imports and reads is what makes it run again."""

import re
from pathlib import Path

import grimp
import pytest
import yaml

ROOMS = ("feature_repo", "training", "serving", "monitoring")
DVC = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
STAGES = {
    f"{name}@{item}" if item else name: (stage.get("do", stage), item)
    for name, stage in DVC.items()
    for item in stage.get("foreach", [None])
}


def _paths(stage, key):
    names = [next(iter(x)) if isinstance(x, dict) else x for x in stage.get(key, [])]
    return [str(name) for name in names]


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph(*ROOMS)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_every_module_it_imports(name, imports):
    stage, _ = STAGES[name]
    module = stage["cmd"].split()[2]
    needed = {m for m in (module, *imports.find_upstream_modules(module)) if m not in ROOMS}
    modules = {p for p in _paths(stage, "deps") if p.endswith(".py")}
    assert {m.replace(".", "/") + ".py" for m in needed} - modules == set()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_no_module_it_does_not_use(name, imports):
    stage, _ = STAGES[name]
    module = stage["cmd"].split()[2]
    used = {module, *imports.find_upstream_modules(module), "feature_repo.asof_store"}
    modules = {p[:-3].replace("/", ".") for p in _paths(stage, "deps") if p.endswith(".py")}
    assert modules - used == set()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_params_sections_it_reads(name):
    stage, _ = STAGES[name]
    source = Path(stage["cmd"].split()[2].replace(".", "/") + ".py").read_text()
    read = {s.strip('"') for s in re.findall(r"load_params\((\"\w+\"|kind)", source)}
    declared = {"kind" if p == "${item}" else p for p in _paths(stage, "params")}
    assert declared == read


STATE = {
    "feature_repo",
    "data/raw/retrievals.jsonl",  # grows with every retrieval
    "data/raw/truth.parquet",  # of the synthetic source alone
    "data/feast/online.lock",
    "data/live/bars.db",
}


def test_every_artifact_has_one_stage_that_makes_it():
    from feature_repo import artifacts

    made = [
        p for s, _ in STAGES.values() for key in ("outs", "metrics", "plots") for p in _paths(s, key)
    ]
    named = [str(v) for k, v in vars(artifacts).items() if k.isupper() and isinstance(v, Path)]
    for path in named:
        if path not in STATE:
            assert any(m == path or m.startswith(path + "/") for m in made), path
    assert len(made) - 3 == len(set(made))  # the two models' three files are written once in dvc.yaml


def test_the_features_page_says_what_the_table_says():
    import runpy

    page = runpy.run_path("scripts/features_page.py")["page"]
    assert Path("docs/features.md").read_text() == page()
