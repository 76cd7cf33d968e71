from datetime import UTC, date

import pandas as pd
import pytest
import sqlalchemy as sa
import yaml

from feature_repo.errors import PitwiseError
from feature_repo.stage import load_params
from serving.predict import PredictParams
from serving.prediction_log import PREDICTIONS, append, open_log

COLUMNS = ["symbol", "as_of", "for_session", "log_return", "price", "p_up", "model_version"]


def predictions(version: str = "1", p_up: float = 0.5, day: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "symbol": ["A", "B"],
            "as_of": pd.to_datetime([f"2024-01-{day:02d} 21:00"] * 2, utc=True),
            "for_session": [date(2024, 1, day + 1)] * 2,
            "log_return": [0.01, -0.01],
            "price": [101.0, 99.0],
            "p_up": [p_up] * 2,
            "model_version": version,
            "not_logged": "x",
        }
    )


@pytest.fixture
def log(tmp_path) -> sa.Engine:
    return open_log(f"sqlite:///{tmp_path}/log.db")


def logged(engine: sa.Engine) -> pd.DataFrame:
    keys = ["model_version", "as_of", "symbol"]
    return pd.read_sql(sa.select(PREDICTIONS), engine).sort_values(keys, ignore_index=True)


def test_the_file_is_made_with_its_folders(tmp_path):
    engine = open_log(f"sqlite:///{tmp_path}/not/yet/there/log.db")
    assert (tmp_path / "not/yet/there/log.db").is_file()
    assert logged(engine).empty


def test_predictions_are_logged_as_they_were_made(log):
    assert append(log, predictions()) == 2
    table = logged(log)
    assert set(table) == set(COLUMNS)
    first = table.iloc[0]
    assert (first["symbol"], first["model_version"], first["log_return"]) == ("A", "1", 0.01)
    assert (first["price"], first["p_up"]) == (101.0, 0.5)
    assert pd.Timestamp(first["for_session"]) == pd.Timestamp(2024, 1, 3)
    assert pd.Timestamp(first["as_of"]).tz_localize(UTC) == predictions()["as_of"].iloc[0]


def test_a_rerun_adds_nothing_and_the_first_made_stands(log):
    append(log, predictions(p_up=0.5))
    assert append(log, predictions(p_up=0.9)) == 0
    assert logged(log)["p_up"].tolist() == [0.5, 0.5]


def test_what_is_new_is_added_beside_what_is_there(log):
    append(log, predictions().head(1))
    assert append(log, predictions()) == 1
    assert append(log, predictions(day=3)) == 2
    assert len(logged(log)) == 4


def test_two_versions_stand_side_by_side(log):
    append(log, predictions("1", p_up=0.5))
    assert append(log, predictions("2", p_up=0.6)) == 2
    assert logged(log)["p_up"].tolist() == [0.5, 0.5, 0.6, 0.6]


def test_nothing_to_log_is_no_error(log):
    assert append(log, predictions().head(0)) == 0


def test_a_log_is_opened_again_as_it_was(tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    append(open_log(url), predictions())
    assert len(logged(open_log(url))) == 2


@pytest.mark.parametrize("url", ["", "not a url", "oracle://host/db"])
def test_a_url_that_opens_no_log_is_one_clear_message(tmp_path, url):
    section = {"log_url": url, "reference_windows": 1, "recent_sessions": 1, "seed": 1}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"predict": section}))
    with pytest.raises(PitwiseError, match="log_url"):
        open_log(load_params("predict", PredictParams, path).log_url)
