"""The API's OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serving.http.auth import Keys
from serving.http.problems import ProblemDocument
from serving.settings import ServeParams

ABOUT = """\
Forecasts of the S&P 500's next session, from the champion model and the online feature store.

Errors are problem documents (RFC 9457); `type` says which, and `errors` names the fields. Where some
symbols of a request have a forecast and some have none, the answer is 200; its `errors` has the latter.
"""


def openapi_document(app: FastAPI, params: ServeParams, keys: Keys) -> dict[str, Any]:
    """What FastAPI writes, and what it cannot know: problems, bounds of batches, keys. Made once."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    parts = document["components"]
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = parts["schemas"]
    schemas |= problem.pop("$defs") | {"ProblemDocument": problem}
    schemas["PredictRequest"]["properties"]["symbols"]["maxItems"] = params.max_symbols
    schemas["BarsRequest"]["properties"]["bars"]["maxItems"] = params.max_bars
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    if keys.required:
        document["security"] = [{"bearer": []}, {"header": []}]
        for path in ("/healthz", "/readyz"):
            document["paths"][path]["get"]["security"] = []
    app.openapi_schema = document
    return document
