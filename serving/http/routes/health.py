"""`/healthz`, `/readyz` and `/metrics`: for those who watch over the service."""

from logging import getLogger

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving.http.json_route import json_response
from serving.http.problems import EVERYWHERE, Problem, declared
from serving.http.schemas import Health
from serving.http.state import metrics_of, service_of

logger = getLogger("pitwise.serving")


def add_health(app: FastAPI) -> None:
    @app.get("/healthz", tags=["health"], response_model=Health, responses=declared("internal-error"))
    async def healthz() -> Response:
        """The process is alive."""
        return json_response({"status": "alive"})

    @app.get(
        "/readyz",
        tags=["health"],
        response_model=Health,
        responses=declared("not-ready", "internal-error"),
    )
    def readyz(request: Request) -> Response:
        """The service can answer: it has a champion, and the store and the log answer."""
        service = service_of(request)
        checks = {
            "champion": lambda: service.champion.predictor.model,
            "store": lambda: service.champion.predictor.forecast(service.live.symbols[:1]),
            "log": lambda: service.served.pending,
        }
        missing = []
        for part, check in checks.items():
            try:
                check()
            except Exception:  # whatever it is, it is not ready
                logger.exception("not ready: %s", part)
                missing.append((part, "does not answer"))
        if missing:
            raise Problem("not-ready", f"Not ready: {', '.join(part for part, _ in missing)}.", missing)
        return json_response({"status": "ready"})

    @app.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **declared(*EVERYWHERE),
        },
    )
    def prometheus(request: Request) -> Response:
        """For Prometheus."""
        return Response(generate_latest(metrics_of(request).registry), media_type=CONTENT_TYPE_LATEST)
