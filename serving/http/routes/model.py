"""`/v1/model`: which version answers."""

from fastapi import FastAPI, Request, Response

from serving.http.json_route import tagged_response
from serving.http.problems import READS, declared
from serving.http.routes.history import NOT_MODIFIED
from serving.http.schemas import ModelAnswer
from serving.http.state import answers_of


def add_model(app: FastAPI) -> None:
    @app.get(
        "/v1/model",
        tags=["model"],
        response_model=ModelAnswer,
        responses=declared(*READS) | NOT_MODIFIED,
    )
    async def model(request: Request) -> Response:
        """The champion that answers now."""
        return tagged_response(request, answers_of(request).model())
