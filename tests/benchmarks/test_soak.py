"""Mixed load on a real service, every answer checked against the batch path."""

import pytest
from support import small_runs as small
from support.markets import raw_market
from support.models_by_hand import contract, make_champion, onnx_model, register

from benchmarks.serving import soak
from pitwise.bars.landing import Landing, first_to_last, land, newest_close
from pitwise.workspace import Workspace

WINDOW = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Workspace:
    """What a soak needs of a run: a landing of six symbols, and two versions of a model."""
    workspace = small.new_workspace(tmp_path_factory.mktemp("run"), publish={"window": WINDOW})
    for path in (
        workspace.bar_versions,
        workspace.clean_bars,
        workspace.daily_features,
        workspace.published,
    ):
        path.parent.mkdir(parents=True)
    raw = raw_market(5, symbols=6, sessions=160)
    covers = first_to_last(raw)
    land(workspace, Landing(raw, "csv", newest_close(raw), history="assumed", covers=covers))
    for scale in (0.01, 0.02):
        version = register(workspace, onnx_model(scale, window=WINDOW), contract(window=WINDOW))
    make_champion(workspace, version)
    return workspace


def test_no_answer_of_a_service_under_mixed_load_is_wrong(run, tmp_path):
    figures = soak.soak(
        run, tmp_path / "soak", seconds=25, sessions=4, without=["writer hangs", "kill reader-1"]
    )
    assert figures["wrong"] == []
    happened = ["forecasts_checked", "features_checked", "past_forecasts_checked", "requests_logged"]
    happened += ["swaps", "kill reader-0", "kill writer", "kill supervisor", "streamed forecasts"]
    happened += ["bars new", "bars repeated"]
    assert [name for name in happened if not figures.get(name)] == []
    # Which of these come is for the draw, and for how far a slow machine gets.
    assert sum(f"bars {outcome}" in figures for outcome in ("late", "corrected", "refused")) >= 1
