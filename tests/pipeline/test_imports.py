"""What the packages import at any depth, beside the contracts of pyproject.toml."""

import grimp
import pytest

PACKAGES = ("pitwise", "feature_repo", "training", "serving", "monitoring")

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "training"])
def test_no_module_of_a_package_imports_torch(graph, package):
    """A serving install has none; that it works is shown in one by `.ci/run`."""
    imported = graph.find_upstream_modules(package, as_package=True)
    assert "torch" not in imported
    assert not {name for name in imported if name.split(".")[0] == "training"}


def test_training_imports_torch(graph):
    assert "torch" in graph.find_upstream_modules("training", as_package=True)
