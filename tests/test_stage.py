import sqlite3
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError, ValidationInfo, field_validator
from support.project import PROJECT

from feature_repo.publish import PublishParams
from pitwise.bars.__main__ import BarParams
from pitwise.cleaning.clean import CleanParams
from pitwise.errors import DataError, ParamsError
from pitwise.load import LoadParams
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace

GOOD = {
    "load": {"source": "csv", "path": "prices", "basis": None},
    "bars": {"seal_coverage": 0.95},
    "clean": {
        "verdicts": "all",
        "min_history": 60,
        "split_step": 1.25,
        "copies": {"stale_bars": 3, "absurd_volume": 100},
        "moves": {
            "min_move": 0.06,
            "min_noise": 6,
            "max_volume_ratio": 2.5,
            "longest_scale_error": 5,
        },
        "absences": {"reuse_sessions": 60, "outage_share": 0.2},
        "reference": None,
    },
    "publish": {"window": 30, "window_sessions": 21},
}


def load(folder: Path, text: str, section: str = "clean", kind=CleanParams):
    (folder / "params.yaml").write_text(text)
    return load_params(Workspace(folder), section, kind)


def refusal(folder: Path, text: str, *section) -> str:
    with pytest.raises(ParamsError) as caught:
        load(folder, text, *section)
    message = str(caught.value)
    assert message.startswith(str(folder / "params.yaml"))
    return message


def test_a_section_becomes_frozen_params(tmp_path):
    params = load(tmp_path, yaml.safe_dump(GOOD))
    assert (params.min_history, params.split_step) == (60, 1.25)
    with pytest.raises(ValidationError):
        params.min_history = 5


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("load", LoadParams),
        ("bars", BarParams),
        ("clean", CleanParams),
        ("publish", PublishParams),
    ],
)
def test_the_projects_own_params_are_accepted(section, kind):
    load_params(PROJECT, section, kind)


def test_an_unknown_key_is_named_with_those_known(tmp_path):
    message = refusal(tmp_path, "clean: {min_history: 60, split_step: 1.25, min_histori: 5}")
    assert "clean.min_histori is not a known key" in message
    assert "min_history, split_step" in message


def test_a_missing_key_is_named(tmp_path):
    message = refusal(tmp_path, "clean: {split_step: 1.25}")
    assert "clean.min_history is missing" in message
    assert "split_step" not in message


def test_an_empty_section_lacks_each_key(tmp_path):
    message = refusal(tmp_path, "clean:\n")
    assert "clean.min_history is missing" in message
    assert "clean.split_step is missing" in message


@pytest.mark.parametrize("text", ["", "clean", "[clean]", "cleen: {min_history: 60}"])
def test_a_missing_section_is_named(tmp_path, text):
    assert "no section 'clean'" in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["clean: 5", "clean: [60, 1.25]", "clean: sixty"])
def test_a_section_that_holds_no_keys_is_named(tmp_path, text):
    assert ": clean: " in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("kind", "section", "key", "value"),
    [
        (CleanParams, "clean", "min_history", 0),
        (CleanParams, "clean", "min_history", 2.5),
        (CleanParams, "clean", "min_history", "many"),
        (CleanParams, "clean", "min_history", None),
        (CleanParams, "clean", "split_step", 1),
        (CleanParams, "clean", "split_step", float("nan")),
        (PublishParams, "publish", "window", 0),
        (PublishParams, "publish", "window", -30),
        (PublishParams, "publish", "window_sessions", 0),
        (CleanParams, "clean", "verdicts", "some"),
        (BarParams, "bars", "seal_coverage", 0),
        (BarParams, "bars", "seal_coverage", 1.01),
        (LoadParams, "load", "source", "excel"),
        (LoadParams, "load", "path", 7),
        (LoadParams, "load", "basis", "adjusted"),
    ],
)
def test_an_impossible_value_is_named_with_its_key(tmp_path, kind, section, key, value):
    text = yaml.safe_dump({section: GOOD[section] | {key: value}})
    assert f": {section}.{key}: " in refusal(tmp_path, text, section, kind)


def test_every_wrong_key_is_named_at_once(tmp_path):
    message = refusal(tmp_path, "clean: {min_history: 0, step: 2}")
    assert all(f"clean.{key}" in message for key in ("min_history", "step", "split_step"))


def test_invalid_yaml_is_refused_with_its_line(tmp_path):
    message = refusal(tmp_path, "load: {}\nclean: {min_history: [}")
    assert "not valid YAML" in message
    assert "line 2" in message


def test_a_params_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00clean")
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        load_params(Workspace(tmp_path), "clean", CleanParams)


def test_a_missing_params_file_names_it_and_where_to_run(tmp_path):
    with pytest.raises(ParamsError) as caught:
        load_params(Workspace(tmp_path), "clean", CleanParams)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'params.yaml'}: cannot be read (No such file")
    assert "project's root" in message
    assert "`pitwise init`" in message


class Placed(Params):
    """A section with a file of the workspace in it."""

    file: Path

    @field_validator("file")
    @classmethod
    def _of_the_workspace(cls, file: Path, info: ValidationInfo) -> Path:
        return info.context.path(file)


def test_a_validator_finds_the_workspace_the_params_are_of(tmp_path):
    params = load(tmp_path, "placed: {file: prices/bars.csv}", "placed", Placed)
    assert params.file == tmp_path / "prices/bars.csv"


@pytest.mark.parametrize(
    "error",
    [
        DataError("bars.csv: is empty."),
        ParamsError("bars.csv: is empty."),
        PermissionError("bars.csv: is empty."),
        sqlite3.OperationalError("bars.csv: is empty."),
    ],
)
def test_an_error_a_person_can_mend_is_one_line_and_exit_code_1(error, capsys):
    def main(_: Workspace):
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_stage(main)
    assert stopped.value.code == 1
    assert capsys.readouterr() == ("", "error: bars.csv: is empty.\n")


def test_a_fault_of_ours_keeps_its_traceback(capsys):
    def main(_: Workspace):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stage(main)
    assert capsys.readouterr().err == ""


def test_a_stage_runs_in_the_workspace_the_shell_stands_in(capsys):
    run_stage(lambda workspace: print(workspace.root))
    assert capsys.readouterr() == (f"{Path.cwd()}\n", "")
