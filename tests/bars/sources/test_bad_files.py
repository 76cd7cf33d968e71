"""A corpus of the faults that real price files have, each with the one outcome it must have.

A file is read right, or its faulty rows go to quarantine under the check's name, or it is refused
with one message. Every case starts from the same 120 faultless bars and breaks one thing.
"""

import gzip
import io
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.project import PROJECT

from pitwise.bars.calendar import is_session, next_session
from pitwise.bars.sources.csv_files import csv_bars
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.errors import DataError
from pitwise.stage import load_params

PARAMS = load_params(PROJECT, "clean", CleanParams).model_copy(update={"min_history": 1})


def faultless() -> pd.DataFrame:
    """AAPL and MSFT, the 60 sessions from 2014-01-02: quiet prices in cents, dates as text."""
    days = pd.Series(pd.bdate_range("2014-01-02", periods=70))
    days = days[is_session(days)][:60].dt.strftime("%Y-%m-%d")
    rng = np.random.default_rng(5)
    bars = []
    for symbol, first in (("AAPL", 80.0), ("MSFT", 1300.0)):
        close = first * np.exp(np.cumsum(rng.normal(0, 0.01, 60)))
        open_ = close * np.exp(rng.normal(0, 0.004, 60))
        high = np.maximum(open_, close) * (1.001 + rng.uniform(0, 0.01, 60))
        low = np.minimum(open_, close) * (0.999 - rng.uniform(0, 0.01, 60))
        volume = np.round(1e6 * np.exp(rng.normal(0, 0.2, 60)), -4)
        prices = {"open": open_, "high": high, "low": low, "close": close}
        frame = pd.DataFrame(prices).round(2).assign(volume=volume.astype(int))
        frame.insert(0, "date", days.to_numpy())
        frame.insert(0, "symbol", symbol)
        bars.append(frame)
    return pd.concat(bars, ignore_index=True)


BARS = faultless()
APPLE = BARS[BARS["symbol"] == "AAPL"].drop(columns="symbol")
MICROSOFT = BARS[BARS["symbol"] == "MSFT"].drop(columns="symbol")
AT = 30
"""The row that is broken: AAPL's 31st session, row 32 of the file."""
DAY = BARS["date"][AT]


def text(bars: pd.DataFrame = BARS, **options) -> str:
    return bars.to_csv(index=False, lineterminator="\n", **options)


def lines() -> list[str]:
    return text().splitlines(keepends=True)


def broken(at: int | slice = AT, **cells) -> pd.DataFrame:
    """The bars with other cells in one row."""
    bars = BARS.astype(object)
    for column, cell in cells.items():
        bars.loc[at, column] = cell
    return bars


def scaled(factor: float, sessions: int) -> pd.DataFrame:
    bars = BARS.copy()
    bars.loc[AT : AT + sessions - 1, ["open", "high", "low", "close"]] *= factor
    return bars


def dated(form: str | Callable[[pd.Timestamp], str], bars: pd.DataFrame = BARS) -> pd.DataFrame:
    """The bars with their dates written in another form."""
    days = pd.to_datetime(bars["date"])
    return bars.assign(date=days.dt.strftime(form) if isinstance(form, str) else days.map(form))


def written_with(decimal: str, thousands: str, sign: str = "") -> pd.DataFrame:
    """The bars with their numbers written in another form."""
    marks = str.maketrans(",.", thousands + decimal)
    prices = BARS[["open", "high", "low", "close"]].map(lambda p: sign + f"{p:,.2f}".translate(marks))
    volume = BARS["volume"].map(lambda v: f"{v:,}".translate(marks))
    return BARS.assign(**prices, volume=volume)


def with_line(line: str, at: int = AT + 1) -> str:
    """The text with another line in the place of one."""
    return "".join([*lines()[:at], line, *lines()[at + 1 :]])


def zipped(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def parquet(bars: pd.DataFrame | pa.Table) -> bytes:
    buffer = io.BytesIO()
    table = bars if isinstance(bars, pa.Table) else pa.Table.from_pandas(bars, preserve_index=False)
    pq.write_table(table, buffer)
    return buffer.getvalue()


def tomorrow() -> str:
    return f"{next_session(pd.Timestamp.today().normalize()):%Y-%m-%d}"


GAP = frozenset({"gap"})
"""Left by a bar that came under another date or symbol."""


@dataclass(frozen=True)
class Case:
    """One faulty file, or folder of files, and what must come of it."""

    name: str
    content: str | bytes | dict[str, str | bytes] | Callable[[Path], Path]
    file: str = "bars.csv"
    refused: str = ""
    """Pattern of the message, where the file is refused; {path} stands for its path."""
    quarantined: dict[tuple[str, str], str] | dict[tuple[str, str], list[str]] = field(
        default_factory=dict
    )
    """Reasons of the quarantined rows by symbol and date."""
    bars: pd.DataFrame | None = field(default=None, repr=False)
    """What is clean, where it is not all faultless bars but those quarantined."""
    events: frozenset[str] = frozenset()

    def make(self, folder: Path) -> Path:
        if callable(self.content):
            return self.content(folder)
        if isinstance(self.content, dict):
            for name, content in self.content.items():
                put(folder / name, content)
            return folder
        return put(folder / self.file, self.content)


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def one(reason: str) -> dict[tuple[str, str], str]:
    return {("AAPL", DAY): reason}


def run_of(reason: str, first: int, last: int) -> dict[tuple[str, str], str]:
    return {("AAPL", BARS["date"][row]): reason for row in range(first, last + 1)}


def unreadable(folder: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    path = put(folder / "bars.csv", text())
    path.chmod(0)
    return path


def dangling(folder: Path) -> Path:
    (folder / "bars.csv").symlink_to(folder / "gone.csv")
    return folder / "bars.csv"


def circular(folder: Path) -> Path:
    (folder / "bars.csv").symlink_to(folder / "bars.csv")
    return folder / "bars.csv"


NOT_A_CSV = [
    Case("an empty file", "", refused=r"{path}: the file is empty"),
    Case("a file of blank lines", "\n\n \n", refused=r"{path}: the file is empty"),
    Case("a header only", lines()[0], refused=r"{path}: has a header and no rows"),
    Case(
        "binary junk", np.random.default_rng(1).bytes(4000), refused=r"{path}: cannot be read: row \d+"
    ),
    Case("a truncated gzip", gzip.compress(text().encode())[:-900], refused=r"{path}: cannot be read"),
    Case("text named .gz", text(), file="bars.csv.gz", refused=r"{path}: cannot be read: Not a gzip"),
    Case("a gzip without its ending", gzip.compress(text().encode())),
    Case(
        "a zip with nothing in it",
        zipped({}),
        file="bars.zip",
        refused=r"{path}: the zip holds no \.csv",
    ),
    Case(
        "a zip of other files",
        zipped({"readme.txt": "x"}),
        file="bars.zip",
        refused=r"{path}: the zip holds no",
    ),
    Case(
        "a truncated zip",
        zipped({"bars.csv": text()})[:-40],
        file="bars.zip",
        refused=r"{path}: cannot be",
    ),
    Case(
        "an encrypted zip",
        zipped({"bars.csv": text()}).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"),
        file="bars.zip",
        refused=r"{path}/bars\.csv: is encrypted",
    ),
    Case(
        "a bad file in a zip",
        zipped({"a.csv": text(), "b.csv": text(broken(close="n.a."))}),
        file="bars.zip",
        refused=r"{path}/b\.csv: row 32, column 'close': 'n\.a\.' is not a number",
    ),
    Case("an Excel workbook", zipped({"xl/workbook.xml": "<x/>"}), refused=r"{path}: is an Excel work"),
    Case(
        "a web page",
        "<!DOCTYPE html>\n<html>429 Too Many Requests</html>",
        refused=r"{path}: is a web page",
    ),
    Case("JSON", BARS.to_json(orient="records"), refused=r"{path}: is JSON"),
    Case("a vendor's error", "Error: invalid API key\n", refused=r"{path}: has no column date, open"),
    Case(
        "a parquet cut short", parquet(BARS)[:-50], file="b.parquet", refused=r"{path}: cannot be read"
    ),
    Case("a parquet named .csv", parquet(BARS)),
    Case("a dangling link", dangling, refused=r"{path}: is a link to .*gone\.csv, which is not there"),
    Case("a link to itself", circular, refused=r"{path}: "),
    Case(
        "a file that is not there", lambda folder: folder / "no.csv", refused=r"{path}: there is no such"
    ),
    Case("an unreadable file", unreadable, refused=r"{path}: cannot be read: Permission denied"),
]
FOLDERS = [
    Case(
        "a folder with no price file", {"readme.txt": "x"}, refused=r"{path}: the folder holds no \.csv"
    ),
    Case(
        "a folder in a folder",
        {"a.csv": text(), "old/b.csv": text()},
        refused=r"{path}/old: is a folder in the folder",
    ),
    Case("a directory called x.csv", lambda folder: put(folder / "x.csv/part-0.csv", text()).parent),
    Case(
        "a directory called x.csv among files",
        {"a.csv": text(), "x.csv/b.csv": text()},
        refused=r"{path}/x\.csv: is a folder",
    ),
    Case("hidden leftovers", {"a.csv": text(), "._a.csv": b"\0\5\x16\7", ".cache/b.csv": text()}),
    Case(
        "a file a symbol",
        {"aapl.us.csv": text(APPLE), "MSFT.csv.gz": gzip.compress(text(MICROSOFT).encode())},
    ),
    Case(
        "macOS's shadows in a zip",
        zipped({"AAPL.csv": text(APPLE), "MSFT.csv": text(MICROSOFT), "__MACOSX/._AAPL.csv": b"\0\5"}),
        file="prices.zip",
    ),
    Case(
        "a file name that is no symbol",
        text(APPLE),
        file="AAPL (1).csv",
        refused=r"{path}: has no column symbol, and its name gives none",
    ),
    Case(
        "an adjusted close in some files only",
        {"AAPL.csv": text(APPLE.assign(**{"Adj Close": APPLE["close"]})), "MSFT.csv": text(MICROSOFT)},
        refused=r"{path}/MSFT\.csv: has no adjusted close, and .*AAPL\.csv has one",
    ),
    Case(
        "the same file twice",
        {"a.csv": text(), "b.csv": text()},
        quarantined=dict.fromkeys(
            BARS[["symbol", "date"]].itertuples(index=False, name=None), "duplicate"
        ),
        bars=BARS,
    ),
]
LAYOUT = [
    Case(
        "a column missing",
        text(BARS.drop(columns="low")),
        refused=r"{path}: has no column low; it has 'symbol,",
    ),
    Case(
        "a column twice",
        text(BARS.assign(Close=BARS["close"])),
        refused=r"{path}: column 'close' stands there twice",
    ),
    Case(
        "a heading missing",
        text().replace("symbol,", "", 1),
        refused=r"{path}: row 2 has 7 cells and the header 6",
    ),
    Case("no header", "".join(lines()[1:]), refused=r"{path}: has no column date, open"),
    Case("extra columns", text(BARS.assign(sector="Tech, hard", rank=range(len(BARS))))),
    Case(
        "a short row",
        with_line(f"AAPL,{DAY},80,81,79\n"),
        refused=r"{path}: row 32 has 5 cells and the header 7",
    ),
    Case("a cut last line", text()[:-30], refused=r"{path}: row 121 has \d cells and the header 7"),
    Case(
        "a thousands mark that parts a cell",
        with_line(f"AAPL,{DAY},80,81,79,80,1,000\n"),
        refused=r"{path}: row 32 has 8 cells and the header 7",
    ),
    Case(
        "a decimal comma that parts the first row's cells",
        with_line("AAPL,2014-01-02,80,5,81,79,80,1000\n", at=1),
        refused=r"{path}: row 2 has 8 cells and the header 7",
    ),
    Case(
        "a long row that makes up for a short one",
        with_line(f"AAPL,{DAY},80,81,79,80\n").replace(lines()[-1], "MSFT,2014-03-28,1,2,1,1,1,1\n"),
        refused=r"{path}: row 32 has 6 cells",
    ),
    Case(
        "an unbalanced quote", with_line(f'"AAPL,{DAY},80,81,79,80,1000\n'), refused=r"{path}: row 32: "
    ),
    Case(
        "two unbalanced quotes, which hide the rows between them",
        text(BARS.assign(name="x")).replace(",x\n", ',"x\n', 1).replace(f"{DAY}", f'{DAY}"', 1),
        refused=r"{path}: row 2: ",
    ),
    Case(
        "a heading repeated between rows, as `cat` leaves it",
        text() + text(),
        refused=r"{path}: row 122, column 'date': 'date' is not a date",
    ),
    Case(
        "an empty first line",
        "\n" + text(),
        refused=r"{path}: has no column .*; it has an empty first line",
    ),
    Case("a quoted file", text(BARS, quoting=2)),
    Case("blank lines between rows", text().replace("\n", "\n\n")),
    Case("a byte-order mark", "\ufeff" + text()),
    Case("UTF-16", text().encode("utf-16")),
    Case(
        "UTF-16 without a mark",
        text().encode("utf-16-le"),
        refused=r"{path}: cannot be read: row 1 holds a byte",
    ),
    Case("Latin-1", text(BARS.assign(company="Télé")).encode("latin-1")),
    Case("carriage returns for line ends", text().replace("\n", "\r")),
    Case("line ends of Windows", text().replace("\n", "\r\n")),
    Case(
        "a NUL byte in a number",
        with_line(lines()[AT + 1].replace(".", ".\0", 1)),
        refused=r"{path}: .* row 32 ",
    ),
    Case("semicolons and decimal commas", text(BARS, sep=";", decimal=",")),
    Case("tabs", text(BARS, sep="\t"), file="bars.tsv"),
    Case("a vendor's footer", text() + "\nData provided by Some Vendor Inc.\n"),
    Case("a footer filled up with separators", text() + "Downloaded on Monday,,,,,,\n"),
    Case("unsorted rows", text(BARS.sample(frac=1, random_state=0))),
    Case("newest first", text(BARS[::-1])),
    Case(
        "the dates of another calendar",
        text(dated("%Y-%m-%d", BARS)).replace("2014-", "1393-"),
        refused=r"{path}: row 2, column 'date'",
    ),
]
NUMBERS = [
    Case(
        "text in a price",
        text(broken(close="n.a.")),
        refused=r"{path}: row 32, column 'close': 'n\.a\.' is not a number",
    ),
    Case("thousands marks", text(written_with(".", ","))),
    Case(
        "one thousands mark",
        text(broken(volume="1,230,000", close=BARS["close"][AT])),
        bars=broken(volume=1_230_000),
    ),
    Case("dollar signs", text(written_with(".", ",", "$"))),
    Case("euro signs in Windows' encoding", text(written_with(".", ",", "€")).encode("cp1252")),
    Case("points for thousands, commas for decimals", text(written_with(",", "."))),
    Case("spaces for thousands", text(written_with(",", "\u00a0"), sep=";")),
    Case(
        "a comma that may be either mark",
        text(
            BARS.round(0)
            .astype({"open": int, "high": int, "low": int, "close": int})
            .assign(volume="1,234")
        ),
        refused=r"{path}: row 2, column 'volume': '1,234' can be 1234\.0 or 1\.234",
    ),
    Case(
        "one decimal comma among points",
        text(broken(low="79,5")),
        refused=r"{path}: row 32, column 'low': '79,5' is not a number written like the others",
    ),
    Case("a volume in millions", text(broken(volume="1.23M")), bars=broken(volume=1_230_000)),
    Case(
        "a volume as a spreadsheet shortens it",
        text(broken(volume="1.23E+06")),
        bars=broken(volume=1_230_000),
    ),
    Case("NaN", text(broken(open="NaN")), quarantined=one("missing")),
    Case("null, as Yahoo wrote it", text(broken(open="null", close="null")), quarantined=one("missing")),
    Case("an empty price", text(broken(high="")), quarantined=one("missing")),
    Case("inf", text(broken(high="inf")), quarantined=one("non_positive")),
    Case("1e400", text(broken(high="1e400")), quarantined=one("non_positive")),
    Case(
        "TRUE for prices",
        text(BARS.assign(open=True)),
        refused=r"{path}: row 2, column 'open': 'True' is not",
    ),
    Case("a zero price", text(broken(low=0)), quarantined=one("non_positive")),
    Case("a negative price", text(broken(close=-80.5)), quarantined=one("non_positive")),
    Case("a negative volume", text(broken(volume=-1000)), quarantined=one("negative_volume")),
    Case(
        "high below low",
        text(broken(high=BARS["low"][AT], low=BARS["high"][AT])),
        quarantined=one("high_below_low"),
    ),
    Case(
        "open and high swapped",
        text(broken(open=BARS["high"][AT], high=BARS["close"][AT] + 0.01)),
        quarantined=one("open_outside_range"),
    ),
    Case(
        "close and low swapped",
        text(broken(close=BARS["low"][AT], low=BARS["open"][AT])),
        quarantined=one("close_outside_range"),
    ),
    Case(
        "the headings of high and low swapped",
        text().replace("high,low", "low,high", 1),
        refused=r"no row is left after cleaning \(120 high_below_low\)",
    ),
    Case("a price times 100", text(scaled(100, 3)), quarantined=run_of("scale_error", AT, AT + 2)),
    Case("a price times 10 for one day", text(scaled(10, 1)), quarantined=one("scale_error")),
    Case("a price in cents for one day", text(scaled(0.01, 1)), quarantined=one("scale_error")),
    Case("a price off by half for one day", text(scaled(1.5, 1)), quarantined=one("bad_print")),
    Case(
        "a volume times 1000",
        text(broken(volume=BARS["volume"][AT] * 1000)),
        quarantined=one("absurd_volume"),
    ),
    Case(
        "bars repeated unchanged",
        text(
            broken(
                slice(AT + 20, AT + 25), **BARS.loc[AT + 20, ["open", "high", "low", "close", "volume"]]
            )
        ),
        quarantined=run_of("repeated", AT + 21, AT + 25),
        bars=BARS.drop(range(AT + 21, AT + 26)),
    ),
]
DATES = [
    Case("day-first dates", text(dated("%d/%m/%Y"))),
    Case("month-first dates", text(dated("%m/%d/%Y"))),
    Case("day-first dates with points", text(dated("%d.%m.%Y"))),
    Case("month-first dates of two-digit years", text(dated("%m/%d/%y"))),
    Case("dates without marks", text(dated("%Y%m%d"))),
    Case("29-Dec-2017", text(dated("%d-%b-%Y"))),
    Case("Dec 29, 2017", text(dated("%b %d, %Y"))),
    Case("seconds since 1970", text(dated(lambda day: str(int(day.timestamp()) + 14 * 3600)))),
    Case("milliseconds since 1970", text(dated(lambda day: str(int(day.timestamp()) * 1000)))),
    Case(
        "seconds since 1970 that are another day elsewhere",
        text(dated(lambda day: str(int(day.timestamp()) - 3600))),
        refused=r"{path}: row 2, column 'date': '\d+' is not a date",
    ),
    Case(
        "a day and an hour in ten digits, which are no seconds",
        text(dated("%Y%m%d16")),
        refused=r"{path}: row 2, column 'date': '2014010216' is not a date",
    ),
    Case(
        "a day and a time in twelve digits, which are no milliseconds",
        text(dated("%Y%m%d1600")),
        refused=r"{path}: row 2, column 'date': '201401021600' is not a date",
    ),
    Case("dates with a time", text(dated("%m/%d/%Y 4:00:00 PM"))),
    Case(
        "mixed zones",
        text(
            dated(
                lambda day: f"{day:%Y-%m-%d} 00:00:00-0{4 if day > pd.Timestamp('2014-03-09') else 5}:00"
            )
        ),
    ),
    Case(
        "dates that may be either",
        text(dated("%d/%m/%Y", BARS[BARS["date"].str[-2:] <= "12"])),
        refused=r"{path}: row 2, column 'date': '02/01/2014' can be 2014-02-01 or 2014-01-02",
    ),
    Case(
        "day-first of two-digit years, which may be the year first",
        text(dated("%d/%m/%y")),
        refused=r"{path}: row 2, column 'date': '02/01/14' can be",
    ),
    Case(
        "one month-first date among day-first ones",
        text(dated("%d/%m/%Y")).replace("31/01/2014", "01/31/2014", 1),
        refused=r"{path}: row \d+, column 'date': '01/31/2014' is not a date .* form of the other",
    ),
    Case(
        "31 February",
        text(broken(date="2014-02-31")),
        refused=r"{path}: row 32, column 'date': '2014-02-31' is",
    ),
    Case(
        "Excel's number of a day",
        text(broken(date="41684")),
        refused=r"{path}: row 32, column 'date': '41684'",
    ),
    Case("an empty date", text(broken(date="")), quarantined={("AAPL", "NaT"): "missing"}, events=GAP),
    Case(
        "a Saturday",
        text(broken(date="2014-02-15")),
        quarantined={("AAPL", "2014-02-15"): "not_a_session"},
        events=GAP,
    ),
    Case(
        "a holiday",
        text(broken(date="2014-02-17")),
        quarantined={("AAPL", "2014-02-17"): "not_a_session"},
        events=GAP,
    ),
    Case(
        "a day to come",
        text(broken(date=tomorrow())),
        quarantined={("AAPL", tomorrow()): "not_a_session"},
        events=GAP,
    ),
    Case(
        "the year 1900",
        text(broken(date="1900-01-02")),
        quarantined={("AAPL", "1900-01-02"): "not_a_session"},
        events=GAP,
    ),
    Case(
        "a date twice, identical",
        text(pd.concat([BARS, BARS[AT : AT + 1]])),
        quarantined=one("duplicate"),
        bars=BARS,
    ),
    Case(
        "a date twice, conflicting",
        text(pd.concat([BARS, broken(volume=77)[AT : AT + 1]])),
        quarantined={("AAPL", DAY): ["conflicting_duplicate"] * 2},
    ),
    Case(
        "missing sessions",
        text(BARS.drop(range(AT, AT + 5))),
        bars=BARS.drop(range(AT, AT + 5)),
        events=GAP,
    ),
]
SYMBOLS = [
    Case(
        "symbols in small letters and with spaces",
        text(BARS.assign(symbol=" " + BARS["symbol"].str.lower() + " ")),
    ),
    Case(
        "a share under two names",
        text(broken(symbol="BRK.B")).replace("MSFT", "BRK-B"),
        refused=r"{path}: column 'symbol': 'BRK\.B' and 'BRK-B' are one share",
    ),
    Case(
        "a symbol with a Cyrillic letter",
        text(broken(symbol="\u0410APL")),
        refused=r"{path}: row 32, column 'symbol': '\\u0410APL' holds a character that no symbol has",
    ),
    Case("an empty symbol", text(broken(symbol="")), quarantined={("<NA>", DAY): "missing"}, events=GAP),
    *(
        Case(f"a symbol {name}", text().replace("MSFT", name), bars=BARS.replace("MSFT", name))
        for name in ("NA", "NULL", "TRUE", "1E5", "INF", "007")
    ),
]
PARQUET = [
    Case("parquet with prices as text", parquet(BARS.astype(str)), file="bars.parquet"),
    Case(
        "parquet with zoned instants",
        parquet(BARS.assign(date=pd.to_datetime(BARS["date"]).dt.tz_localize("America/New_York"))),
        file="bars.parquet",
    ),
    Case(
        "parquet with true and false for prices",
        parquet(BARS.assign(open=True)),
        file="b.parquet",
        refused=r"{path}: column 'open' is of type bool",
    ),
    Case(
        "parquet with lists for prices",
        parquet(BARS.assign(open=[[1.0]] * 120)),
        file="b.parquet",
        refused=r"{path}: column 'open' is of type list",
    ),
    Case(
        "parquet with nothing in a column",
        parquet(pa.Table.from_pandas(BARS).set_column(2, "open", pa.nulls(120))),
        file="b.parquet",
        refused=r"no row is left after cleaning \(120 missing\)",
    ),
    Case(
        "parquet with text in a price",
        parquet(BARS.astype(str).assign(low="x")),
        file="b.parquet",
        refused=r"{path}: row 1, column 'low': 'x' is not a number",
    ),
    Case(
        "parquet with a column missing",
        parquet(BARS.drop(columns="high")),
        file="b.parquet",
        refused=r"{path}: has no column high",
    ),
]
CORPUS = [*NOT_A_CSV, *FOLDERS, *LAYOUT, *NUMBERS, *DATES, *SYMBOLS, *PARQUET]


def cases(kept: Callable[[Case], bool]):
    return pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CORPUS if kept(c)])


@cases(lambda case: bool(case.refused))
def test_a_file_that_cannot_be_read_without_a_guess_is_refused_with_one_message(case, tmp_path):
    path = case.make(tmp_path)
    with pytest.raises(DataError) as caught:
        clean(csv_bars(path), PARAMS)
    message = str(caught.value)
    assert re.search(case.refused.replace("{path}", re.escape(str(path))), message), message
    assert message.isprintable()
    assert message.endswith((".", ")"))
    assert len(message) < 500


@cases(lambda case: not case.refused)
def test_a_file_is_read_right_and_its_faulty_rows_are_set_aside(case, tmp_path):
    bars, quarantine, events = clean(csv_bars(case.make(tmp_path)), PARAMS)

    reasons: dict[tuple[str, str], list[str]] = {}
    for symbol, date, reason in quarantine[["symbol", "date", "reason"]].astype(str).to_numpy():
        reasons.setdefault((symbol, date), []).append(reason)
    assert reasons == {k: r if isinstance(r, list) else [r] for k, r in case.quarantined.items()}

    expected = case.bars
    if expected is None:
        broken_days = {("AAPL", DAY), *case.quarantined} if case.quarantined else set()
        expected = BARS[[(s, d) not in broken_days for s, d in BARS[["symbol", "date"]].to_numpy()]]
    expected = expected.sort_values(["symbol", "date"])
    assert bars["symbol"].tolist() == expected["symbol"].tolist()
    assert bars["date"].astype(str).tolist() == expected["date"].tolist()
    for column in ("open", "high", "low", "close", "volume"):
        assert bars[column].tolist() == pytest.approx(expected[column].tolist(), rel=1e-12)
    # A row set aside may be an event too, under the check's name.
    standing = events[events["status"] != "withdrawn"]
    assert set(standing["kind"]) - set(quarantine["reason"]) == case.events


def test_the_corpus_has_a_name_for_each_of_its_cases():
    names = [case.name for case in CORPUS]
    assert len(names) == len(set(names)) >= 50
