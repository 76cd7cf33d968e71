"""The evening's forecasts in the log: the champion's, and beside them the challenger's."""

import shutil

import numpy as np
import pandas as pd
import pytest
from support.answered import logged
from support.models_by_hand import contract, make_champion, onnx_model, register, registry

from feature_repo import publish
from pitwise.bars.calendar import next_session, session_day
from pitwise.errors import StoreError
from pitwise.features.errors import NonFiniteWindowError
from pitwise.registry.model import RegistryParams
from pitwise.workspace import Workspace, read_parquet
from serving.inference.latest import latest_forecasts
from serving.inference.marks import Marks
from serving.inference.predictor import Predictor, load_champion

REGISTRY = RegistryParams(tracking_uri="sqlite:///mlflow.db", model="pitwise")
NO_MARKS = Marks({}, {})
SYMBOLS = [f"S{i:03d}" for i in range(5)]


@pytest.fixture
def workspace(published, tmp_path) -> Workspace:
    """Version 1 is champion; version 2 forecasts twice as much, version 3 a NaN, version 4 as version 2
    with a score and a scale, of five sessions."""
    workspace = Workspace(shutil.copytree(published.root, tmp_path / "workspace"))
    publish.main(workspace)  # Feast's registry knows absolute paths
    register(workspace, onnx_model(0.01), contract())
    register(workspace, onnx_model(0.02), contract())
    register(workspace, onnx_model(float("nan")), contract())
    register(workspace, onnx_model(0.02, spread=0.01), contract(horizon=5))
    make_champion(workspace, "1")
    return workspace


def challenger(workspace: Workspace, version: str) -> None:
    registry(workspace).set_registered_model_alias("pitwise", "challenger", version)


def evening(workspace: Workspace) -> pd.DataFrame:
    return latest_forecasts(workspace, load_champion(workspace, REGISTRY), NO_MARKS)


def log_of(workspace: Workspace) -> pd.DataFrame:
    return logged(f"sqlite:///{workspace.root}/data/predictions/log.db")


def test_the_challengers_forecasts_stand_beside_the_champions(workspace, capsys):
    challenger(workspace, "2")
    shown = evening(workspace)
    assert set(shown["model_version"]) == {"1"}
    assert set(read_parquet(workspace.latest_predictions)["model_version"]) == {"1"}
    rows = log_of(workspace)
    sides = {role: part.reset_index(drop=True) for role, part in rows.groupby("role")}
    assert {role: set(part["model_version"]) for role, part in sides.items()} == {
        "champion": {"1"},
        "shadow": {"2"},
    }
    champion, shadow = sides["champion"], sides["shadow"]
    assert champion["symbol"].tolist() == SYMBOLS
    same = ["symbol", "as_of", "window_hash", "for_session", "served_at"]
    pd.testing.assert_frame_equal(champion[same], shadow[same])
    assert shadow["log_return"].to_numpy() == pytest.approx(2 * champion["log_return"], rel=1e-5)
    assert "5 forecasts by version 2, the challenger, logged beside them" in capsys.readouterr().out
    evening(workspace)
    assert len(log_of(workspace)) == 10


def test_each_forecast_is_for_the_session_that_its_model_looks_ahead_to(workspace):
    make_champion(workspace, "4")
    challenger(workspace, "1")
    shown = evening(workspace)
    last = session_day(shown["as_of"].iloc[0])
    assert set(shown["for_session"]) == {next_session(last, 5).date()}
    assert set(shown["horizon"]) == {5}
    p_up = 1 / (1 + np.exp(-shown["log_return"] / 0.01))
    np.testing.assert_allclose(shown["p_up"], p_up, rtol=1e-6)
    np.testing.assert_allclose(0.02 * np.tanh(shown["score"]), shown["log_return"], rtol=1e-6)
    rows = log_of(workspace)
    sides = {role: part.set_index("symbol") for role, part in rows.groupby("role")}
    ours, theirs = sides["champion"], sides["shadow"]
    assert set(theirs["for_session"]) == {next_session(last).date()}
    assert ours["horizon"].tolist() == [5] * 5
    assert theirs["horizon"].tolist() == [1] * 5
    assert ours["scale"].to_numpy() == pytest.approx(0.01)
    assert theirs["scale"].isna().all()
    assert theirs["score"].tolist() == theirs["log_return"].tolist()


@pytest.mark.parametrize("alias", [None, "1"])
def test_without_a_challenger_there_is_no_shadow(workspace, capsys, alias):
    if alias:
        challenger(workspace, alias)
    evening(workspace)
    assert log_of(workspace)["role"].tolist() == ["champion"] * 5
    assert "challenger" not in capsys.readouterr().out


def test_a_challenger_that_fails_its_check_is_named_and_the_evening_goes_on(workspace, capsys):
    challenger(workspace, "3")
    assert evening(workspace)["symbol"].tolist() == SYMBOLS
    assert log_of(workspace)["role"].tolist() == ["champion"] * 5
    assert "the challenger is skipped: model version 3 forecasts a NaN" in capsys.readouterr().out


def test_a_challenger_whose_file_is_gone_is_named_and_the_evening_goes_on(workspace, capsys):
    challenger(workspace, "2")
    uri = registry(workspace).get_model_version_download_uri("pitwise", "2")
    shutil.rmtree(uri.removeprefix("file://"))
    assert len(evening(workspace)) == 5
    assert "the challenger is skipped: version 2 cannot be fetched or run" in capsys.readouterr().out


def test_a_shadow_stands_on_the_champions_windows_alone(workspace, monkeypatch):
    """A live bar comes in between the two: its symbol has no forecast to compare with."""
    challenger(workspace, "2")
    real = Predictor.forecast

    def forecast(self, symbols, *rest):
        found = real(self, symbols, *rest)
        if self.model.version == "2":
            found.window_hash[found.symbols.index("S001")] = "another"
        return found

    monkeypatch.setattr(Predictor, "forecast", forecast)
    monkeypatch.setattr("serving.inference.check.check_predictor", lambda *_: None)
    evening(workspace)
    rows = log_of(workspace)
    assert rows.loc[rows["role"] == "shadow", "symbol"].tolist() == ["S000", "S002", "S003", "S004"]


def test_a_symbol_whose_window_is_not_finite_is_named_and_left_out(workspace, monkeypatch, capsys):
    real = Predictor.forecast

    def forecast(self, symbols, *rest):
        if broken := [symbol for symbol in symbols if symbol in ("S001", "S003")]:
            raise NonFiniteWindowError("a NaN", broken[:1])
        return real(self, symbols, *rest)

    monkeypatch.setattr(Predictor, "forecast", forecast)
    assert evening(workspace)["symbol"].tolist() == ["S000", "S002", "S004"]
    out = capsys.readouterr().out
    assert "no forecast of S001, S003: their windows have a NaN or an infinity" in out
    assert "0 symbols no longer trade" in out


def test_where_no_window_is_finite_the_evening_fails(workspace, monkeypatch):
    def forecast(self, symbols, *rest):
        raise NonFiniteWindowError("a NaN", symbols)

    monkeypatch.setattr(Predictor, "forecast", forecast)
    with pytest.raises(StoreError, match="a NaN"):
        evening(workspace)
