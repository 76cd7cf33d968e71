"""`/v1/features`: what the store knows of a symbol."""

from typing import Annotated

from fastapi import FastAPI, Path, Request, Response

from serving.http.json_route import json_response
from serving.http.problems import READS, declared
from serving.http.schemas import FeaturesAnswer
from serving.http.state import answers_of


def add_features(app: FastAPI) -> None:
    @app.get(
        "/v1/features/{symbol}",
        tags=["features"],
        response_model=FeaturesAnswer,
        responses=declared("unknown-symbol", "invalid-request", *READS),
    )
    def features(
        symbol: Annotated[str, Path(max_length=64, examples=["AAPL"])], request: Request
    ) -> Response:
        """The newest session's bar and indicators of one symbol."""
        return json_response(answers_of(request).features(symbol))
