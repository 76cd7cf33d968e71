"""The parts that an app's lifespan has built, by way of a request.

Plain functions: as FastAPI's `Depends` they would take 25 us of a request.
"""

from fastapi import Request

from serving.http.answers import Answers
from serving.http.metrics import Metrics
from serving.http.service import Service


def answers_of(request: Request) -> Answers:
    return request.app.state.answers


def service_of(request: Request) -> Service:
    return request.app.state.service


def metrics_of(request: Request) -> Metrics:
    return request.app.state.metrics
