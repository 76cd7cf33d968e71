"""JSON in and out: how a body is read and bounded, and how a document is sent."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from serving.http.problems import Problem


class JsonRequest(Request):
    async def json(self) -> Any:
        """NaN and Infinity pass, so that the validation can name their field; what is no UTF-8 or is
        nested too deeply does not."""
        try:
            return from_json(await self.body(), allow_inf_nan=True)
        except ValueError as error:
            raise Problem("malformed-json", f"The body cannot be parsed: {error}.") from error


class JsonRoute(APIRoute):
    """A body must be declared as JSON: what a foreign web page may send unasked is refused."""

    def get_route_handler(self) -> Any:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if self.body_field and kind != "application/json":
                raise Problem("not-json", "Send JSON, with 'Content-Type: application/json'.")
            return await handle(JsonRequest(request.scope, request.receive))

        return checked


def json_response(document: Any) -> Response:
    """A document as it is; a Response passes FastAPI without being validated once more."""
    return Response(orjson.dumps(document, default=str), media_type="application/json")


def check_batch(field: str, batch: Sequence[Any], most: int) -> None:
    """Raise Problem (422) for a batch that is empty or has more than `most` items."""
    if not batch:
        raise Problem("empty-batch", f"Ask for 1 to {most:,}.", [(field, "is empty")])
    if len(batch) > most:
        size = f"has {len(batch):,} of at most {most:,}"
        raise Problem("batch-too-large", f"Ask for at most {most:,} at a time.", [(field, size)])
