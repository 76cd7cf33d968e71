"""The files that the pages load."""

from fastapi import APIRouter, Request, Response

from serving.http.problems import Problem
from serving.web.pages import STATIC, static_files


def add_static(router: APIRouter) -> None:
    @router.api_route(STATIC + "/{path:path}", methods=["GET", "HEAD"])
    async def static(request: Request, path: str) -> Response:
        file = static_files().get(path)
        if file is None:
            raise Problem("not-found", "The pages load no such file.")
        return file.response(request, kept="public, max-age=31536000, immutable")
