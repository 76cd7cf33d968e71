"""Source `yfinance`: daily bars from Yahoo Finance, one request a ticker, as `pitwise load` wants them.

Checked against yfinance 1.7.0. With `auto_adjust=False` it returns Yahoo's `quote` and `adjclose`
arrays untouched, and Yahoo's own history is on today's share basis:

- open, high, low, close and volume are adjusted for every split since, though not for dividends;
  they are not what was traded (AAPL on 2020-08-28 has a close of 124.81; it traded at 499.23).
- adj_close is adjusted for splits, dividends and capital gain distributions, so adj_close / close
  shows dividends alone;
- dividends are dollars for one of today's shares.

A split therefore rewrites a symbol's whole past, and a dividend its adj_close: bars of one symbol from
two retrievals do not go together. Each run requests whole histories. Now and then Yahoo leaves a
split out of the past prices; finding that is `clean`'s part.
"""

import logging
import re
import shutil
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import pandas as pd
import yfinance
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from rich.console import Console
from rich.progress import track
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from yfinance.data import YfData
from yfinance.exceptions import YFTickerMissingError
from yfinance.scrapers.history import PriceHistory

from pitwise.bars.actions import ACTION_KEY, TYPES
from pitwise.bars.calendar import EXCHANGE_ZONE, session_close
from pitwise.bars.schema import ADJUSTED_CLOSE, COLUMNS, NUMBERS
from pitwise.errors import DataError, one_line
from pitwise.stage import Params
from pitwise.workspace import read_parquet, write_json, write_parquet

SETTLED = pd.Timedelta(minutes=30)
"""How long after the close a bar may still change: Yahoo's quotes can lag the exchange."""
HOPELESS = 3
"""So many tickers in a row without an answer are no longer these tickers' own trouble."""
TICKER = re.compile(r"\^?[A-Za-z0-9]+([.=-][A-Za-z0-9]+)*")
NAMES = {
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Volume": "volume",
    "Adj Close": ADJUSTED_CLOSE,
}
ACTIONS = {"Stock Splits": "split", "Dividends": "dividend", "Capital Gains": "special_dividend"}
"""Kind of action by Yahoo's column: new shares for old of a split, dollars a share of the others."""

Ask = Callable[[str, date, date], pd.DataFrame]
"""Asks for one ticker's daily bars from a first to a last day, both included; yfinance's frame."""


def _ticker(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("not text; quote it, YAML takes a bare ON, NO or Y for true or false")
    if not TICKER.fullmatch(text):
        raise ValueError("not a ticker like AAPL or BRK.B")
    return text


class YahooParams(Params):
    tickers: tuple[Annotated[str, BeforeValidator(_ticker)], ...] = Field(min_length=1)
    """In params.yaml a list, or the path of a file with one ticker a line and `#` before comments."""
    start: date
    end: date | None
    """The last day, itself included; null is the last finished session."""
    requests_per_minute: float = Field(gt=0)
    retries: int = Field(ge=0)

    @field_validator("tickers", mode="before")
    @classmethod
    def _read(cls, tickers: object, info: ValidationInfo) -> object:
        if not isinstance(tickers, str):
            return tickers
        try:
            lines = (
                (info.context.path(tickers) if info.context else Path(tickers))
                .read_text(encoding="utf-8")
                .splitlines()
            )
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"neither a list like [AAPL, MSFT] nor a readable file: {error}") from error
        return [ticker for line in lines if (ticker := line.split("#")[0].strip())]

    @field_validator("end")
    @classmethod
    def _not_before_start(cls, end: date | None, info: ValidationInfo) -> date | None:
        if end and "start" in info.data and end < info.data["start"]:
            raise ValueError("before yfinance.start")
        return end


def yahoo_ticker(symbol: str) -> str:
    """Yahoo's spelling of a US ticker: BRK-B for BRK.B."""
    return symbol.upper().replace(".", "-")


def last_finished_session(now: pd.Timestamp) -> pd.Timestamp:
    """The last session whose bar is complete at the instant `now` (with a zone); naive midnight."""
    days = pd.Series(pd.date_range(end=now.tz_convert(None).normalize(), periods=15))
    return days[session_close(days) + SETTLED <= now].max()


def asked_days(params: YahooParams, now: pd.Timestamp) -> tuple[date, date]:
    """First and last day that Yahoo is asked for, both included."""
    return params.start, min(params.end or date.max, last_finished_session(now).date())


def yahoo_market(
    params: YahooParams,
    cache: Path,
    *,
    ask: Ask | None = None,
    now: pd.Timestamp | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Daily bars of the tickers in the raw schema, `adj_close` included, and their corporate actions.

    Of finished sessions only; actions as `pitwise.bars.actions.TYPES`.

    Each ticker's bars are kept in `cache/unfinished/<first>_<last>/` as soon as they are there, and a
    run for the same days goes on from what it finds. The folder goes when Yahoo has answered for every
    ticker, so the next run requests them anew; a ticker without an answer keeps the run unfinished.

    Tickers that could not be retrieved are listed with the reason on stderr and in `cache/report.json`.

    Raises:
        DataError: no ticker could be got, Yahoo stopped answering, or no session has finished yet.
    """
    now = now or pd.Timestamp.now("UTC")
    first, last = asked_days(params, now)
    if first > last:
        raise DataError(f"yfinance.start: {first} is after the last finished session, {last}.")
    symbols: dict[str, str] = {}
    for symbol in params.tickers:
        symbols.setdefault(yahoo_ticker(symbol), symbol)

    unfinished = cache / "unfinished"
    files = {t: unfinished / f"{first}_{last}" / f"{t}.parquet" for t in symbols}
    if not (unfinished / f"{first}_{last}").exists():
        shutil.rmtree(unfinished, ignore_errors=True)  # of other days
    paced = _paced(ask or _yahoo(cache), 60 / params.requests_per_minute, clock, sleep)
    errors = _download(files, paced, first, last, params.retries, sleep)

    given_up = {symbols[t]: _message(error) for t, error in errors.items()}
    got = {t: file for t, file in files.items() if t not in errors}
    write_json(
        {
            "retrieved_at": now.isoformat(),
            "first": str(first),
            "last": str(last),
            "got": len(got),
            "given_up": given_up,
        },
        cache / "report.json",
    )
    if given_up:
        print(f"{len(given_up)} of {len(symbols)} tickers could not be got:", file=sys.stderr)
        for symbol, reason in given_up.items():
            print(f"  {symbol}: {reason}", file=sys.stderr)
    if not got:
        reason = next(iter(given_up.values()))
        raise DataError(f"yfinance.tickers: none could be got from Yahoo. The first: {reason}.")
    rows = pd.concat(
        [read_parquet(file).assign(symbol=symbols[t]) for t, file in got.items()], ignore_index=True
    ).astype({"symbol": "string"})
    if not any(_may_pass(error) for error in errors.values()):
        shutil.rmtree(unfinished)
    bars = rows[rows[NUMBERS].notna().any(axis=1)].reset_index(drop=True)
    return bars[[*COLUMNS, ADJUSTED_CLOSE]], _actions(rows)


def _actions(rows: pd.DataFrame) -> pd.DataFrame:
    """What the rows say of splits and dividends."""
    found = []
    for kind in ACTIONS.values():
        told = rows[rows[kind] > 0] if kind in rows else rows.iloc[:0]
        value = "ratio" if kind == "split" else "amount"
        found.append(told[["symbol", "date"]].assign(kind=kind, **{value: told.get(kind)}))
    actions = pd.concat(found, ignore_index=True).reindex(columns=list(TYPES)).astype(TYPES)
    return actions.sort_values(ACTION_KEY, ignore_index=True)


def _yahoo(cache: Path) -> Ask:
    """The one way out to Yahoo; yfinance keeps its cookies in `cache`, not in the person's home."""
    yfinance.set_tz_cache_location(str(cache))
    yfinance.config.debug.hide_exceptions = False
    logging.getLogger("yfinance").setLevel(logging.ERROR)

    def ask(ticker: str, first: date, last: date) -> pd.DataFrame:
        # yfinance remembers any answer it could not read, and a retry would get it again.
        YfData.cache_get.cache_clear()
        # `yfinance.Ticker` would spend a second request on a ticker's time zone.
        history = PriceHistory(YfData(), ticker, EXCHANGE_ZONE)
        return history.history(
            start=first, end=last + timedelta(days=1), auto_adjust=False, actions=True
        )

    return ask


def _paced(ask: Ask, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> Ask:
    """`ask`, no sooner than `seconds` after the request before; the first at once."""
    free = clock()

    def paced(ticker: str, first: date, last: date) -> pd.DataFrame:
        nonlocal free
        sleep(max(0.0, free - clock()))
        free = clock() + seconds
        return ask(ticker, first, last)

    return paced


def _download(
    files: dict[str, Path],
    ask: Ask,
    first: date,
    last: date,
    retries: int,
    sleep: Callable[[float], None],
) -> dict[str, Exception]:
    """Fill in the files that are not there yet; the error of each ticker that could not be got."""
    retrying = Retrying(
        stop=stop_after_attempt(1 + retries),
        wait=wait_exponential_jitter(initial=2, max=60, jitter=2),
        retry=retry_if_exception(_may_pass),
        sleep=sleep,
        reraise=True,
    )
    missing = [ticker for ticker, file in files.items() if not file.exists()]
    console = Console(stderr=True)
    errors: dict[str, Exception] = {}
    unanswered = 0
    for ticker in track(
        missing, "Yahoo", transient=True, console=console, disable=not sys.stderr.isatty()
    ):
        try:
            bars = _bars(ticker, retrying(ask, ticker, first, last), first, last)
        except Exception as error:  # yfinance raises many kinds on an unexpected answer
            errors[ticker] = error
            unanswered = unanswered + 1 if _may_pass(error) else 0
            if unanswered == HOPELESS:
                kept = sum(file.exists() for file in files.values())
                raise DataError(
                    f"Yahoo gave no answer for {HOPELESS} tickers in a row, the last time "
                    f"{_message(error)}. Check the connection or lower yfinance.requests_per_minute, "
                    f"and run again: {kept} of {len(files)} tickers are kept and not requested again."
                ) from error
        else:
            write_parquet(bars, files[ticker])
            unanswered = 0
    return errors


def _may_pass(error: BaseException) -> bool:
    """Whether a retry can help: not where Yahoo has no such bars, nor on Ctrl-C."""
    return isinstance(error, Exception) and not isinstance(error, YFTickerMissingError)


def _message(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")


def _bars(ticker: str, answer: pd.DataFrame, first: date, last: date) -> pd.DataFrame:
    """yfinance's frame (index: midnight in New York) in the raw schema, with a column for each kind of
    action; the symbol left to add."""
    names = NAMES | {name: kind for name, kind in ACTIONS.items() if name in answer}
    bars = answer[list(names)].rename(columns=names).astype("float64")
    bars["date"] = answer.index.tz_localize(None)
    bars = bars[bars["date"].between(pd.Timestamp(first), pd.Timestamp(last))]
    # An action of a day without a bar stands in a row of its own.
    nothing = (bars[NUMBERS].isna() | (bars[NUMBERS] == 0)).all(axis=1)
    bars.loc[nothing, [*NUMBERS, ADJUSTED_CLOSE]] = float("nan")
    if nothing.all():
        raise YFTickerMissingError(ticker, f"no bar from {first} to {last}", possibly_delisted=False)
    return bars
