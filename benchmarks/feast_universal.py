"""Feast's universal offline-store tests, on ours and on Feast's own DuckDB store beside it.

They are not in Feast's package, so a checkout of its sources at the installed version is needed, and
what its tests import beyond our own lock:

    git clone --depth 1 --branch v0.67.0 https://github.com/feast-dev/feast
    pip install --target extras --no-deps testcontainers minio assertpy docker wrapt pycryptodome \\
        argon2-cffi argon2-cffi-bindings
    python benchmarks/feast_universal.py feast --extras extras

Both stores read parquet files; Feast's tests on Delta tables and with containers are left out.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = "tests/integration/offline_store"
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
    """Each test's outcome, by its name, on one of the stores."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(feast / "sdk/python/tests", folder / "tests")
        (folder / "store_under_test.py").write_text(CONFIGURATION.format(config=STORES[name]))
        (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pytest",
                    TESTS,
                    "--integration",
                    "-m",
                    "universal_offline_stores",
                ),
                *("-q", "-rA", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist"),
                f"--timeout={seconds}",
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
    found = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL) (\S+)", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    return {test.split("/")[-1]: outcome for outcome, test in found if outcome != "SKIPPED"}


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
        print(f"{name}: {sum(o == 'PASSED' for o in result.values())} of {len(result)} pass")
    for test in sorted(set().union(*results.values())):
        answers = [result.get(test, "absent") for result in results.values()]
        if set(answers) != {"PASSED"}:
            print(f"  {test}: " + ", ".join(f"{n} {a}" for n, a in zip(results, answers, strict=True)))
