"""The API's OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.http.auth import Keys
from serving.http.problems import ProblemDocument
from serving.http.schemas import BarsRequest, PredictRequest, RiskRequest
from serving.settings import ServeParams

ABOUT = """\
Forecasts of the S&P 500's next sessions, from the champion model and the online feature store.

Errors are problem documents (RFC 9457); `type` says which, and `errors` names the fields. Where some
symbols of a request have a forecast and some have none, the answer is 200; its `errors` has the latter.

Every answer has an `X-Request-ID`, the request's own where it sent one; the log has it too. A
`traceparent` (W3C Trace Context) is taken into the log. Answers to GET have an `ETag`: with it as
`If-None-Match` the answer is 304 where nothing has changed. HEAD is taken where GET is.
"""
KEYS = (
    "A key is for one or more of: `predict`, forecasts, features, signals and risk; `bars`, to "
    "send and withdraw bars; `model`, the champion. Metrics and these pages take any key."
)
REQUESTS = (PredictRequest, BarsRequest, RiskRequest, ProblemDocument)
"""What no route's signature tells FastAPI of."""
REF = "#/components/schemas/{model}"


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads and bounds its body itself (`json_route.read_json`)."""
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def openapi_document(app: FastAPI, params: ServeParams, keys: Keys) -> dict[str, Any]:
    """What FastAPI writes, and what it cannot know: problems, bodies, bounds of batches, keys."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    parts = document["components"]
    schemas = parts["schemas"]
    own: list[Any] = [(model, "validation") for model in REQUESTS]
    schemas |= models_json_schema(own, ref_template=REF)[1]["$defs"]
    schemas["PredictRequest"]["properties"]["symbols"]["maxItems"] = params.max_symbols
    schemas["BarsRequest"]["properties"]["bars"]["maxItems"] = params.max_bars
    for field in ("weights", "holdings"):
        schemas["RiskRequest"]["properties"][field]["maxProperties"] = params.max_symbols
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": KEYS},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": KEYS},
    }
    if keys.required:
        document["security"] = [{"bearer": []}, {"header": []}]
        for path in ("/healthz", "/readyz"):
            document["paths"][path]["get"]["security"] = []
    app.openapi_schema = document
    return document
