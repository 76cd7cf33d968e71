"""The page of the model."""

from fastapi import APIRouter, Request, Response

from serving.http.state import answers_of
from serving.web.frame import HEADERS, MODEL, AsOf, frame, made, moment_of, sources_of
from serving.web.model import model_view
from serving.web.pages import page


def add_model(router: APIRouter) -> None:
    @router.api_route(MODEL, methods=["GET", "HEAD"])
    async def model(request: Request, as_of: AsOf = None) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        when = await made(moment_of, as_of, state, sources)
        view = await made(model_view, when, state, sources)
        body = await made(page, "model.html", **view, **frame(request, MODEL, when))
        return body.response(request, HEADERS)
