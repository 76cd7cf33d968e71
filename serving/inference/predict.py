"""Stage `predict`: the champion's forecast for each symbol, from the online store, logged."""

from pitwise.registry.model import RegistryParams
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace
from serving.inference.latest import latest_forecasts
from serving.settings import PredictParams


def main(workspace: Workspace) -> None:
    from serving.inference.predictor import load_champion

    load_params(workspace, "predict", PredictParams)  # a wrong one is told before the registry is asked
    champion = load_champion(workspace, load_params(workspace, "registry", RegistryParams))
    latest_forecasts(workspace, champion)


if __name__ == "__main__":
    run_stage(main)
