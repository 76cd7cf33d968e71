"""Prove that a serving install can forecast and has no torch.

    python scripts/check_serving_install.py dist/pitwise-0.2.0-py3-none-any.whl

A champion is made here, with all that this environment has. The wheel goes into a virtual environment
of its own, with the extra `serving` alone and the versions of its lock; from there that champion is
asked on the command line and over HTTP.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from urllib.error import URLError

from ruamel.yaml import YAML

from pitwise.init import new_workspace
from pitwise.load import load
from training import KINDS

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "locks/serving.lock"
TRAINERS = {"dvc", "evidently", "onnxscript", "torch"}
"""What a service has no use for."""
STAGES = (
    "pitwise.bars.__main__",
    "pitwise.cleaning.__main__",
    "pitwise.reports.data_quality",
    "pitwise.features.__main__",
    "feature_repo.publish",
    "training.dataset",
    "training.select",
    *(f"training.train {kind}" for kind in KINDS),
    "training.ensemble",
    "training.evaluate",
    "training.leakcheck",
    "training.register",
)
"""What makes a champion, and the forest that marks odd bars; a service does without the rest."""
SYMBOL = "SYN2"
"""Of those that trade to the end."""
START_SECONDS = 90


def small_run(folder: Path) -> None:
    """A workspace with a champion: of a small made market, its models fitted for a moment only.

    The stages run in this process: to start a Python for each takes longer than most of them.
    """
    workspace = new_workspace(folder)
    yaml = YAML()
    params = yaml.load(workspace.params)
    params["load"]["source"] = "synthetic"
    params["synthetic"] |= {"symbols": 5, "sessions": 300}
    params["train"] |= {"max_batches": 20, "batches_per_check": 10}
    params["quality"] |= {"event_pictures": 0, "adjusted_pictures": 0, "trees": 10}
    yaml.dump(params, workspace.params)
    load(workspace)
    for stage in STAGES:
        module, *arguments = stage.split()
        import_module(module).main(workspace, *arguments)


def install(wheel: Path, folder: Path) -> Path:
    """The `bin` of a new virtual environment with `pitwise[serving]`."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--constraint", LOCK, f"{wheel}[serving]"], check=True)
    size = sum(path.lstat().st_size for path in folder.rglob("*"))
    print(f"installed in {time.monotonic() - began:.0f} s: {size / 1e6:,.0f} MB")
    return folder / "bin"


def output(command: list, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_packages(binaries: Path, folder: Path) -> None:
    listed = output([binaries / "python", "-m", "pip", "list", "--format=json"], folder)
    names = {package["name"].lower().replace("_", "-") for package in json.loads(listed)}
    if unwanted := names & TRAINERS:
        sys.exit(f"a serving install has {', '.join(sorted(unwanted))}")
    absent = "import importlib.util; assert importlib.util.find_spec('torch') is None"
    output([binaries / "python", "-c", absent], folder)
    print(f"{len(names)} packages, none of {', '.join(sorted(TRAINERS))}")


def check_command(binaries: Path, run: Path) -> dict:
    """What the installed command answers: the forecast of one symbol."""
    print(output([binaries / "pitwise", "--version"], run).strip())
    print(output([binaries / "pitwise", "init", "desk"], run.parent).strip())
    for line in ("run", "serve", "predict"):
        assert f" {line} " in output([binaries / "pitwise", "--help"], run)
    answer = json.loads(output([binaries / "pitwise", "predict", SYMBOL, "--json"], run))
    forecast = answer["forecasts"][0]
    assert forecast["symbol"] == SYMBOL
    assert 0 < forecast["p_up"] < 1
    print(f"pitwise predict: {forecast}")
    return forecast


def check_service(binaries: Path, run: Path, expected: dict) -> None:
    """The same forecast over HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binaries / "pitwise", "serve", "--port", str(port), "--workers", "2"]
    with subprocess.Popen(command, cwd=run, env=os.environ | {"PYTHONPATH": ""}) as service:
        try:
            answer = ask(f"http://127.0.0.1:{port}/v1/predict", service)
        finally:
            service.terminate()
    if service.returncode:
        sys.exit(f"the service ended with exit code {service.returncode}")
    forecast = answer["forecasts"][0]
    assert forecast["symbol"] == SYMBOL
    assert forecast["p_up"] == expected["p_up"]
    print("pitwise serve: the same over HTTP")


def ask(address: str, service: subprocess.Popen) -> dict:
    body = json.dumps({"symbols": [SYMBOL]}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and service.poll() is None:
        with suppress(URLError, ConnectionError), urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
        time.sleep(0.2)
    sys.exit(f"{address} did not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="the package, as `make wheel` puts it into dist/")
    wheel = parser.parse_args().wheel.resolve(strict=True)
    with tempfile.TemporaryDirectory(prefix="pitwise-install-") as scratch:
        folder = Path(scratch).resolve()
        run = folder / "run"
        with ThreadPoolExecutor() as pool:  # pip waits for the disk, the fits for the processor
            installed = pool.submit(install, wheel, folder / "environment")
            small_run(run)
            binaries = installed.result()
        check_packages(binaries, folder)
        check_service(binaries, run, check_command(binaries, run))


if __name__ == "__main__":
    main()
