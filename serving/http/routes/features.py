"""`/v1/features`: what the store knows of a symbol, or knew."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import orjson
from fastapi import FastAPI, Path, Query, Request, Response

from serving.http.asked import asked_of
from serving.http.json_route import tagged_response
from serving.http.problems import READS, Problem, declared
from serving.http.routes.history import NOT_MODIFIED, past
from serving.http.schemas import Day, FeaturesAnswer
from serving.http.state import answers_of, service_of
from serving.log.served_log import Shown

FEATURES = "/v1/features/{symbol}"


def add_features(app: FastAPI) -> None:
    @app.get(
        FEATURES,
        tags=["features"],
        response_model=FeaturesAnswer,
        responses=declared("unknown-symbol", "invalid-request", "busy", *READS) | NOT_MODIFIED,
    )
    async def features(
        request: Request,
        symbol: Annotated[str, Path(max_length=64, examples=["AAPL"])],
        as_of: Annotated[
            Day | None,
            Query(
                description="As they were known at the end of this day, UTC.", examples=["2013-02-28"]
            ),
        ] = None,
    ) -> Response:
        """The newest session's bar and indicators of one symbol."""
        if as_of is None:
            body = answers_of(request).features(symbol, asked_of(request), FEATURES)
            return tagged_response(request, body)
        end = datetime.fromisoformat(as_of).replace(tzinfo=UTC) + timedelta(days=1, microseconds=-1)
        found = await past(service_of(request).history.features, symbol, end)
        if found is None:
            raise Problem("unknown-symbol", "Nothing was known of it then.", [("symbol", "is unknown")])
        answers_of(request).audit([Shown(symbol, found.as_of)], asked_of(request), FEATURES)
        document = {
            "symbol": symbol,
            "as_of": found.as_of,
            "feature_age_sessions": None,
            "provisional": found.provisional,
            "features": found.values,
        }
        return tagged_response(request, orjson.dumps(document))
