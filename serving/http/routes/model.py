"""`/v1/model`: which version answers."""

from fastapi import FastAPI, Request, Response

from serving.http.json_route import json_response
from serving.http.problems import EVERYWHERE, declared
from serving.http.schemas import ModelAnswer
from serving.http.state import service_of


def add_model(app: FastAPI) -> None:
    @app.get("/v1/model", tags=["model"], response_model=ModelAnswer, responses=declared(*EVERYWHERE))
    def model(request: Request) -> Response:
        """The champion that answers now."""
        champion = service_of(request).champion
        model = champion.predictor.model
        return json_response(
            {
                "version": model.version,
                "kind": model.kind,
                "features": model.features,
                "window": model.window,
                "since": champion.since,
                "swaps": champion.swaps,
                "refused": champion.refused,
                "metadata": {k: v for k, v in model.metadata.items() if k not in ("features", "window")},
            }
        )
