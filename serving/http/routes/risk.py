"""`/v1/risk`: what a portfolio can lose."""

from typing import Any, Literal

from anyio import CapacityLimiter, fail_after, to_process
from fastapi import FastAPI, Request, Response
from pydantic import ValidationError

from pitwise.errors import DataError
from serving.http.answers import unavailable_if_failing
from serving.http.asked import asked_of
from serving.http.json_route import read_json
from serving.http.openapi import body_of
from serving.http.problems import BODIES, MAX_ERRORS, READS, Problem, declared, field_path, of_fields
from serving.http.risk_of import FIELD, risk_in_worker
from serving.http.schemas import RiskAnswer, RiskRequest
from serving.http.state import answers_of, service_of
from serving.settings import ServeParams

RISK = "/v1/risk"
SECONDS = 60.0
"""The longest that a report may wait for those before it, and take."""
WAITING = 4
"""Reports that may wait; one is made at a time."""
RETRY = {"Retry-After": "5"}


def add_risk(app: FastAPI, params: ServeParams) -> None:
    one_at_a_time = CapacityLimiter(1)

    @app.post(
        RISK,
        tags=["decisions"],
        response_model=RiskAnswer,
        responses=declared("unknown-symbol", *BODIES, "busy", *READS),
        openapi_extra=body_of(RiskRequest),
    )
    async def risk(request: Request) -> Response:
        """The risk of a portfolio, of its weights or its holdings, from the workspace's clean bars."""
        kind, held, value = portfolio(await read_json(request), params.max_symbols)
        known = answers_of(request).state().features
        unknown = [(f"{FIELD[kind]}.{symbol}", "is unknown") for symbol in held if symbol not in known]
        if unknown:
            detail = "The store has no features of some of the symbols; see the errors."
            raise Problem("unknown-symbol", detail, unknown[:MAX_ERRORS])
        workspace = service_of(request).workspace
        if workspace is None:
            raise Problem("unavailable", "This service has no bars to tell a risk from.")
        if one_at_a_time.statistics().tasks_waiting >= WAITING:
            raise Problem("busy", f"{WAITING} reports wait already. Ask again later.", headers=RETRY)
        asked_of(request).symbols = len(held)
        question = (str(workspace.root), held, kind, value)
        try:
            with fail_after(SECONDS), unavailable_if_failing("risk report", "Try again."):
                try:
                    body = await to_process.run_sync(
                        risk_in_worker, *question, cancellable=True, limiter=one_at_a_time
                    )
                except DataError as error:
                    raise of_fields([(FIELD[kind], str(error))]) from error
        except TimeoutError as error:
            detail = f"The report was not there within {SECONDS:.0f} s. Ask again later."
            raise Problem("busy", detail, headers=RETRY) from error
        return Response(body, media_type="application/json")


def portfolio(document: Any, most: int) -> tuple[Literal["weight", "shares"], dict[str, float], float]:
    """What a body asks for: weights or shares by symbol, and the value of weights.

    Raises:
        Problem: it has neither or both, none or more than `most` symbols, or what are no numbers (422).
    """
    for field in FIELD.values():
        amounts = document.get(field) if isinstance(document, dict) else None
        if isinstance(amounts, dict) and len(amounts) > most:
            size = f"has {len(amounts):,} of at most {most:,}"
            raise Problem("batch-too-large", f"Ask for at most {most:,} symbols.", [(field, size)])
    try:
        asked = RiskRequest.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        found = [(field_path(fault["loc"]), fault["msg"]) for fault in faults[:MAX_ERRORS]]
        raise of_fields(found, more=len(faults) > MAX_ERRORS) from error
    given = asked.model_fields_set & set(FIELD.values())
    if len(given) != 1:
        raise of_fields([("body", "one of weights and holdings is needed")])
    kind: Literal["weight", "shares"] = "weight" if given == {"weights"} else "shares"
    held = asked.weights if kind == "weight" else asked.holdings
    if not held:
        raise Problem("empty-batch", f"Ask for 1 to {most:,} symbols.", [(FIELD[kind], "is empty")])
    return kind, held, asked.value
