"""Source `csv`: the files people have, as bars in one schema.

Nothing is judged here beyond what stops a file from being read without a guess; stage `clean` does that.
"""

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa

from pitwise.bars.schema import ADJUSTED_CLOSE, NUMBERS
from pitwise.bars.sources.cells import days, numbers
from pitwise.bars.sources.tables import is_number, parquet_table, text_table
from pitwise.errors import DataError, one_line

ENDINGS = re.compile(r"\.((csv|tsv)(\.gz)?|zip|parquet)$", re.IGNORECASE)
TICKER = re.compile(r"(\^?[A-Z0-9]{1,5}(?:[-_][A-Z0-9]{1,3})?(?:\.[A-Z](?![^.]))?)(?:\..*)?")

UNREADABLE = (
    *(OSError, EOFError, ValueError, NotImplementedError),
    *(csv.Error, pa.ArrowException, zipfile.BadZipFile, zlib.error),
)
"""What the readers of each format raise at content that is damaged."""


def csv_bars(path: Path) -> pd.DataFrame:
    """Bars from a file, or from every file of a folder: CSV, plain, gzip or zip, or parquet.

    Columns are found by name, in any case. A file without a symbol column holds the one symbol that
    its name has: the part before the first dot, in capitals (`aapl.us.csv` is AAPL), with a single
    letter behind that dot, which is a class of shares (`BRK.B.csv` is BRK.B). Symbols are in capitals
    everywhere.

    Raises:
        DataError: a file cannot be read, lacks a column, or can be read in two ways; names the file, row
            and column.
    """
    named = [bars for file in _files(path) for bars in _bars(str(file), _content(file))]
    adjusted = [name for name, bars in named if ADJUSTED_CLOSE in bars]
    if adjusted and len(adjusted) < len(named):
        # Taken for adjusted, the others would keep the dividends in their returns, and splits too; taken
        # for missing, they would lose every row. No reading puts both kinds of files on one basis.
        without = next(name for name, bars in named if ADJUSTED_CLOSE not in bars)
        raise DataError(
            f"{without}: has no adjusted close, and {adjusted[0]} has one, so their returns do not "
            "compare. Add that column to every file, or take it out of all."
        )
    bars = pd.concat([bars for _, bars in named], ignore_index=True)
    _refuse_second_spellings(bars["symbol"], path)
    return bars


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        seen = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    for entry in seen:
        if entry.is_dir():
            raise DataError(
                f"{entry}: is a folder in the folder of files, and is not read. Move it away, or its "
                "files up."
            )
    files = [entry for entry in seen if ENDINGS.search(entry.name)]
    if not files:
        raise DataError(f"{path}: the folder holds no .csv, .tsv, .csv.gz, .zip or .parquet file.")
    return files


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        if file.is_symlink():
            raise DataError(f"{file}: is a link to {file.readlink()}, which is not there.") from error
        raise DataError(f"{file}: there is no such file or folder. Set load.path.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}.") from error


def _bars(name: str, content: bytes) -> Iterator[tuple[str, pd.DataFrame]]:
    """The bars of a file, or of each file packed in it, with its name: `pack.zip/file.csv`."""
    try:
        if content.startswith((b"PK\3\4", b"PK\5\6")):
            yield from _packed_bars(name, content)
            return
        if content.startswith(b"\x1f\x8b") or name.lower().endswith(".gz"):
            content = gzip.decompress(content)
        table = parquet_table if content.startswith(b"PAR1") else text_table
        bars = table(name, content)
    except UNREADABLE as error:
        reason = repr(one_line(error))[1:-1]
        raise DataError(f"{name}: cannot be read: {reason}. Fetch the file again.") from error
    if bars.empty:
        raise DataError(f"{name}: has a header and no rows.")
    if "symbol" not in bars:
        bars["symbol"] = _symbol_of(name)
    yield name, typed_bars(bars, name)


def _packed_bars(name: str, content: bytes) -> Iterator[tuple[str, pd.DataFrame]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if any(member.filename.startswith("xl/") for member in members):
            raise DataError(f"{name}: is an Excel workbook. Save its sheet as CSV.")
        # macOS packs a shadow of each file beside it.
        visible = [m for m in members if not re.search(r"(^|/)(\.|__MACOSX/)", m.filename)]
        files = [member for member in visible if ENDINGS.search(member.filename)]
        if not files:
            raise DataError(f"{name}: the zip holds no .csv, .tsv, .csv.gz, .zip or .parquet file.")
        for member in files:
            if member.flag_bits & 1:
                raise DataError(f"{name}/{member.filename}: is encrypted. Unpack it first.")
            yield from _bars(f"{name}/{member.filename}", archive.read(member))


def _symbol_of(name: str) -> str:
    stem = ENDINGS.sub("", PurePosixPath(name).name).upper()
    found = TICKER.fullmatch(stem)
    if found is None:
        raise DataError(
            f"{name}: has no column symbol, and its name gives none. Add that column, or name the file "
            "after its symbol, like AAPL.csv."
        )
    return found[1]


def typed_bars(bars: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Columns in the schema's order and types; a cell that is not of its type names itself.

    Args:
        bars: indexed by each row's number in its file.
    """
    symbols = bars["symbol"].astype("category")
    capitals = symbols.cat.categories.astype(str).str.strip().str.upper()
    # A letter of another alphabet, or one not to be seen, makes a second symbol of the same look.
    strange = np.append([not symbol.isascii() for symbol in capitals], False)[symbols.cat.codes]
    if strange.any():
        row = bars.index[strange.argmax()]
        raise DataError(
            f"{origin}: row {row}, column 'symbol': {bars.at[row, 'symbol']!a:.40} holds a character "
            "that no symbol has. Mend it."
        )
    names = np.append(capitals.to_numpy(object), pd.NA)[symbols.cat.codes]
    typed = {"symbol": pd.array(names, dtype="string"), "date": days(bars["date"], origin)}
    columns = [*NUMBERS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in bars else [])]
    texts = [column for column in columns if not is_number(bars[column])]
    read = numbers(bars[texts], origin) if texts else bars
    for column in columns:
        typed[column] = (read if column in texts else bars)[column].to_numpy("float64")
    return pd.DataFrame(typed)


def _refuse_second_spellings(symbols: pd.Series, path: Path) -> None:
    """Refuse BRK.B beside BRK-B: one share's history under two names would be two half histories."""
    spelled: dict[str, str] = {}
    for symbol in symbols.dropna().unique():
        first = spelled.setdefault(re.sub(r"[-. /_]", ".", symbol), symbol)
        if first != symbol:
            raise DataError(
                f"{path}: column 'symbol': '{first}' and '{symbol}' are one share under two names. "
                "Write it one way."
            )
