"""What both pages share: they load nothing, show what comes as text, and open in a browser."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from support.browser import open_page
from support.project import with_params
from support.report_pages import (
    EVIL,
    NO_EVENTS,
    NO_QUARANTINE,
    PARAMS,
    RAW,
    Reader,
    cleaned,
    event,
    hand_made,
    quality_page,
)

from pitwise.bars.landing import Landing
from pitwise.bars.versions import bar_versions, known_bars, write_versions
from pitwise.quality_flags import FOREST, load
from pitwise.reports import data_quality, market_overview
from pitwise.stage import load_params
from pitwise.workspace import read_json, read_parquet, write_json, write_parquet

pytestmark = pytest.mark.component
NOW = pd.Timestamp("2026-01-02 22:00", tz="UTC")


@pytest.mark.parametrize("name", ["quality", "overview"])
def test_a_page_loads_nothing_from_elsewhere_and_runs_no_script(pages, name):
    read = Reader(pages[name])
    assert not {"script", "link", "iframe", "object", "embed", "base", "b"} & set(read.tags)
    assert all(load.startswith(("#", "data:image/svg+xml;base64,")) for load in read.loads)
    for code in ("url(", "@import", "<script"):
        assert code not in pages[name]
    assert EVIL in read.words


@pytest.mark.parametrize("name", ["quality", "overview"])
def test_the_pictures_are_well_formed_and_load_nothing(pages, name):
    pictures = Reader(pages[name]).pictures()
    assert len(pictures) >= 8
    words = ""
    for source in pictures:
        for element in ET.fromstring(source).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "foreignObject")
            links = [v for k, v in element.attrib.items() if k.rpartition("}")[2] == "href"]
            assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
            words += element.text or ""
    assert (EVIL in words) == (name == "overview")  # on a ranking's axis, dollar signs and all


def test_a_page_is_the_same_bytes_each_time(market, pages):
    assert market_overview.overview(market) == pages["overview"]


@pytest.mark.parametrize("name", ["quality", "overview"])
def test_a_page_opens_in_a_browser(pages, name, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(pages[name])
    shown = open_page(file.as_uri(), tmp_path)
    seen, written = Reader(shown.dom), Reader(pages[name])
    assert seen.tags.count("figure") == written.tags.count("figure") >= 8
    assert EVIL in seen.words
    assert "script" not in seen.tags
    assert shown.requests == []


@pytest.mark.parametrize(
    "closes",
    [
        {"A": {"2014-01-02": 10.0}},
        {"A": {"2014-01-02": 10.0}, "B": {"2014-01-02": 20.0}},
        {"A": {f"2014-01-{d:02d}": 10.0 for d in (2, 3, 6, 7, 8)}},
    ],
    ids=["one bar", "one session each", "prices that never move"],
)
def test_the_least_market_has_its_pages(closes):
    bars = hand_made(closes, volume=0.0)
    document, report, found, _ = quality_page(bars)
    assert report["coverage"]["share"] == 1
    assert found.empty
    assert "No row was set aside" in document
    assert "No split, spin-off" in document
    assert "No two symbols have 20 returns" in market_overview.overview(bars)


def test_both_stages_write_their_files(tmp_path, market):
    workspace = with_params(tmp_path, quality=PARAMS.model_dump())
    write_versions(workspace, bar_versions([Landing(market[RAW], "csv", NOW)], seal_coverage=0.95))
    write_parquet(market, workspace.clean_bars)
    write_parquet(NO_QUARANTINE, workspace.quarantine)
    write_parquet(NO_EVENTS, workspace.events)
    write_json(cleaned(market, NO_QUARANTINE), workspace.clean_report)
    data_quality.main(workspace)
    market_overview.main(workspace)
    written = read_parquet(workspace.flags)
    assert load(workspace.root / FOREST.path).symbols.tolist() == sorted(market["symbol"].unique())
    assert list(written)[:3] == ["symbol", "date", "score"]
    assert read_json(workspace.quality_report)["flagged"] == len(written) > 0
    for path in (workspace.quality_page, workspace.overview_page):
        assert path.read_text().rstrip().endswith("</html>")
    assert load_params(workspace, "quality", data_quality.QualityParams) == PARAMS


def test_the_pages_show_prices_on_the_basis_of_the_last_session(tmp_path, market):
    """A split of two for one halves what was paid before it and moves no return."""
    later = (market.groupby("symbol").cumcount() >= 150).to_numpy()
    split = later & (market["symbol"] == "S000").to_numpy()
    factor = np.where(split, 2.0, 1.0)
    traded = market.assign(
        price_factor=factor,
        share_factor=factor,
        volume=market["volume"] * factor,
        **{name: market[name] / factor for name in ("open", "high", "low", "close")},
    )
    own = (market["symbol"] == "S000").to_numpy()
    shown = market.drop(columns="share_factor").assign(
        price_factor=np.where(own & ~later, 0.5, 1.0),
        volume=market["volume"] * np.where(own, 2.0, 1.0),
        **{name: market[name] * np.where(own, 0.5, 1.0) for name in ("open", "high", "low", "close")},
    )
    workspace = with_params(tmp_path, quality=PARAMS.model_dump())
    write_versions(workspace, bar_versions([Landing(traded[RAW], "csv", NOW)], seal_coverage=0.95))
    write_parquet(traded, workspace.clean_bars)
    write_parquet(NO_QUARANTINE, workspace.quarantine)
    write_parquet(NO_EVENTS, workspace.events)
    write_json(cleaned(traded, NO_QUARANTINE), workspace.clean_report)
    data_quality.main(workspace)
    market_overview.main(workspace)
    assert read_json(workspace.quality_report)["symbols_adjusted"] == 1
    assert workspace.overview_page.read_text() == market_overview.overview(shown)
    _, report, flagged, _ = quality_page(shown.assign(price_factor=1.0, share_factor=1.0))
    assert report["symbols_adjusted"] == 0
    pd.testing.assert_frame_equal(read_parquet(workspace.flags), flagged, check_dtype=False)


def test_a_page_counts_a_bar_that_was_corrected_once_and_a_withdrawn_one_never(tmp_path, market):
    """What came in is what is known of each bar, not every version of it."""
    first = market[RAW]
    corrected, withdrawn = market.index[market["symbol"] == "S000"][[3, 7]]
    second = first.drop(index=withdrawn).assign(
        close=first["close"].where(first.index != corrected, first["low"])
    )
    days = {"S000": (market["date"].min().date(), market["date"].max().date())}
    landings = [
        Landing(first, "csv", NOW - pd.Timedelta(1, "D")),
        Landing(second, "csv", NOW, covers=days),
    ]
    versions = bar_versions(landings, seal_coverage=0.95)
    assert len(versions.bars) == len(market) + 2
    known = known_bars(versions)
    assert len(known) == len(market) - 1
    bars = market.drop(index=withdrawn)
    workspace = with_params(tmp_path, quality=PARAMS.model_dump())
    write_versions(workspace, versions)
    write_parquet(bars, workspace.clean_bars)
    write_parquet(NO_QUARANTINE, workspace.quarantine)
    write_parquet(event("S000", bars["date"].iloc[100]), workspace.events)
    write_json(cleaned(bars, NO_QUARANTINE), workspace.clean_report)
    data_quality.main(workspace)
    document, *_ = data_quality.quality(
        second,
        bars,
        NO_QUARANTINE,
        event("S000", bars["date"].iloc[100]),
        cleaned(bars, NO_QUARANTINE),
        PARAMS,
    )
    assert workspace.quality_page.read_text() == document
