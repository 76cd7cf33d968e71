"""The dashboard: all its pages in one router."""

from fastapi import APIRouter, FastAPI

from serving.http.auth import Keys
from serving.web.frame import PageRoute
from serving.web.pages import Encoded
from serving.web.routes.backtest import add_backtest
from serving.web.routes.forecasts import add_forecasts
from serving.web.routes.health import add_health
from serving.web.routes.login import add_login
from serving.web.routes.market import add_market
from serving.web.routes.model import add_model
from serving.web.routes.portfolio import add_portfolio
from serving.web.routes.static import add_static
from serving.web.routes.symbol import add_symbol


def add_web(app: FastAPI, keys: Keys) -> None:
    """Have an app serve the pages.

    Args:
        keys: those of the service: where there are some, a person gives one to log in.
    """
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    decisions: dict[tuple, Encoded] = {}
    add_market(router)
    add_static(router)
    add_forecasts(router)
    add_symbol(router)
    add_portfolio(router, decisions)
    add_backtest(router, decisions)
    add_health(router, keys)
    add_model(router)
    add_login(router, keys)
    app.include_router(router)
