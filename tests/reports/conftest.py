"""A market whose names and reasons would be code in a page, and both pages of it."""

from pathlib import Path

import pandas as pd
import pytest
from support import markets
from support.once import once
from support.report_pages import EVIL, RAW, event, quality_page

from pitwise.reports.market_overview import overview


def evil_market() -> pd.DataFrame:
    bars = markets.bars(4, 300, seed=3, gaps=0.02)
    bars["symbol"] = bars["symbol"].replace("S001", EVIL)
    return bars.sort_values(["symbol", "date"], ignore_index=True)


def write_pages(folder: Path) -> None:
    market = evil_market()
    quarantine = market[market["symbol"] == EVIL].head(12)[RAW].assign(reason=EVIL)
    some = market[market["symbol"] == EVIL]["date"].iloc[[50, 60, 70, 80, 90]]
    events = pd.concat([event(EVIL, d, told_by=f"<b>{EVIL}</b>") for d in some], ignore_index=True)
    later = (market["symbol"] == EVIL) & (market["date"] > some.iloc[0])
    adjusted = market.assign(price_factor=market["price_factor"].mask(later, 2.0))
    document, *_ = quality_page(adjusted, quarantine, events)
    (folder / "quality.html").write_text(document)
    (folder / "overview.html").write_text(overview(market))


@pytest.fixture(scope="session")
def market() -> pd.DataFrame:
    """Clean bars of four symbols, one of them named as a script."""
    return evil_market()


@pytest.fixture(scope="session")
def pages(tmp_path_factory) -> dict[str, str]:
    """The pages `quality` and `overview` of that market, with a script for a reason too."""
    folder = once(tmp_path_factory, "report_pages", write_pages)
    return {path.stem: path.read_text() for path in folder.glob("*.html")}
