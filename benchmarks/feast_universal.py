"""Feast's universal offline-store tests, on ours and on Feast's own DuckDB store beside it.

They are not in Feast's package, so a checkout of its sources at the installed version is needed, and
what its tests import beyond our own lock, though no test here speaks to a cloud or starts a container:

    git clone --depth 1 --branch v0.67.0 https://github.com/feast-dev/feast
    pip install --target extras --no-deps testcontainers wrapt minio pycryptodome argon2-cffi \\
        argon2-cffi-bindings assertpy python-keycloak jwcrypto aiofiles requests-toolbelt boto3 \\
        botocore jmespath s3transfer google-api-core google-cloud-core google-cloud-bigquery \\
        google-cloud-storage google-resumable-media googleapis-common-protos
    python benchmarks/feast_universal.py feast --extras extras

Both stores read parquet files; Feast's tests on Delta tables and with containers are left out, and so is
the one of Great Expectations' profiles, whose releases that have them want an older numpy.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
TESTS = "tests/integration/offline_store"
LEFT_OUT = f"{TESTS}/test_dqm_validation.py"
RAN = (0, 1)
"""Exit codes of pytest after all tests have run, passed or failed."""
NOT_PASSED = ("failure", "error", "skipped")
"""Of what pytest's XML report has beside a test."""
CONFIGURATION = """
from feast.infra.offline_stores.duckdb import DuckDBOfflineStoreConfig
from feature_repo.offline_store import AsofDuckDBOfflineStoreConfig
from tests.universal.feature_repos.universal.data_sources.file import FileDataSourceCreator


class Source(FileDataSourceCreator):
    def create_offline_store_config(self):
        return {config}()


AVAILABLE_OFFLINE_STORES = [("local", Source)]
AVAILABLE_ONLINE_STORES = {{"sqlite": ({{"type": "sqlite"}}, None)}}
"""
STORES = {"ours": "AsofDuckDBOfflineStoreConfig", "stock": "DuckDBOfflineStoreConfig"}


def outcomes(feast: Path, extras: Path, name: str, seconds: int) -> dict[str, str]:
    """Each test's outcome, by its name, on one of the stores.

    Raises:
        SystemExit: the tests could not be collected or set up, so that there is nothing to count.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(feast / "sdk/python/tests", folder / "tests")
        (folder / "store_under_test.py").write_text(CONFIGURATION.format(config=STORES[name]))
        (folder / "pytest.ini").write_text("[pytest]\n")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", TESTS, f"--ignore={LEFT_OUT}", "--integration"),
                *("-m", "universal_offline_stores", "-q", "--tb=line", "-p", "no:cacheprovider"),
                *(f"--timeout={seconds}", "--junitxml=results.xml"),
            ],
            cwd=folder,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT, extras))),
                "FULL_REPO_CONFIGS_MODULE": "store_under_test",
                "IS_TEST": "True",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"{name}: the tests did not run\n{done.stdout[-5000:]}{done.stderr[-5000:]}"
        if done.returncode not in RAN:
            raise SystemExit(said)
        found = {
            case.attrib["name"]: next((c.tag for c in case if c.tag in NOT_PASSED), "passed")
            for case in ElementTree.parse(folder / "results.xml").iter("testcase")
        }
    ran = {test: outcome for test, outcome in found.items() if outcome != "skipped"}
    if not ran or "error" in ran.values():
        raise SystemExit(said)
    return ran


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("feast", type=Path, help="a checkout of Feast's sources")
    parser.add_argument("--extras", type=Path, required=True, help="folder of what its tests import")
    parser.add_argument("--seconds", type=int, default=300, help="of one test at most")
    arguments = parser.parse_args()
    results = {
        name: outcomes(arguments.feast.resolve(), arguments.extras.resolve(), name, arguments.seconds)
        for name in STORES
    }
    for name, result in results.items():
        print(f"{name}: {sum(o == 'passed' for o in result.values())} of {len(result)} pass")
    for test in sorted(set().union(*results.values())):
        answers = [result.get(test, "absent") for result in results.values()]
        if set(answers) != {"passed"}:
            print(f"  {test}: " + ", ".join(f"{n} {a}" for n, a in zip(results, answers, strict=True)))
