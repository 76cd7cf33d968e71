"""Source `csv`: the files people have, as bars in one schema.

Nothing is judged here beyond what stops a file from being read at all; stage `clean` does that.
"""

import zlib
from pathlib import Path

import pandas as pd

from feature_repo.bars import ADJUSTED_CLOSE, COLUMNS, NUMBERS
from feature_repo.errors import DataError

ALIASES = {"name": "symbol", "ticker": "symbol", "adj close": ADJUSTED_CLOSE}
CSV_ENDINGS = (".csv", ".csv.gz")


def csv_bars(path: Path) -> pd.DataFrame:
    """Bars from a CSV file, plain or gzip, or from every such file of a folder.

    Raises:
        DataError: a file cannot be read or lacks a column; names the file, row and column.
    """
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.name.lower().endswith(CSV_ENDINGS))
        if not files:
            raise DataError(f"{path}: the folder holds no {' or '.join(CSV_ENDINGS)} file.")
        return pd.concat([_read_csv(file) for file in files], ignore_index=True)
    return _read_csv(path)


def _read_csv(path: Path) -> pd.DataFrame:
    options: dict = {
        "compression": "gzip" if path.name.lower().endswith(".gz") else None,
        # "NA" is a ticker that looks like a missing value, so only an empty cell is one.
        "keep_default_na": False,
        "na_values": [""],
        "skip_blank_lines": False,  # a row keeps the number it has in the file
    }
    try:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, **options).iloc[0].fillna("")
        names = _names(list(header), path)
        texts = {i: str for i, name in enumerate(names) if name in ("symbol", "date")}
        bars = pd.read_csv(
            path, header=0, names=names, dtype=texts, index_col=False, low_memory=False, **options
        )
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file or folder. Set ingest.path.") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: the file is empty.") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        told = " ".join(str(error).split())
        raise DataError(f"{path}: not a well-formed CSV: {told}. Mend that line.") from error
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    bars = bars.dropna(how="all")
    if bars.empty:
        raise DataError(f"{path}: has a header and no rows.")
    return typed_bars(bars, str(path))


def _names(header: list[str], path: Path) -> list[str]:
    """The schema's names for a file's columns; a column of neither keeps its own."""
    plain = [name.strip().lower() for name in header]
    names = [alias if (alias := ALIASES.get(n, n)) == n or alias not in plain else n for n in plain]
    missing = [c for c in COLUMNS if c not in names]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}; it has {', '.join(header)}. "
            f"Needed are {', '.join(COLUMNS)} ('Name' or 'ticker' serve for 'symbol')."
        )
    for name in (*COLUMNS, ADJUSTED_CLOSE):
        if names.count(name) > 1:
            raise DataError(f"{path}: column '{name}' stands there twice.")
    return [name if names.index(name) == i else f"{name}.{i}" for i, name in enumerate(names)]


def typed_bars(bars: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Columns in the schema's order and types; a cell that is not of its type names itself."""
    typed = {"symbol": bars["symbol"].astype("string").str.strip()}
    # A time and a zone behind the day say nothing that a daily bar needs.
    days = bars["date"].astype("string").str.strip().str.replace(r"[T ].*$", "", regex=True)
    typed["date"] = _parsed(days, "date", origin, pd.to_datetime, format="ISO8601")
    for column in [*NUMBERS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in bars else [])]:
        numbers = _parsed(bars[column], column, origin, pd.to_numeric)
        typed[column] = numbers.astype("float64")
    return pd.DataFrame(typed).reset_index(drop=True)


def _parsed(cells: pd.Series, column: str, origin: str, parse, **options) -> pd.Series:
    parsed = parse(cells, errors="coerce", **options)
    refused = parsed.isna() & cells.notna()
    if refused.any():
        row = refused.idxmax()  # counted from 0 below the header
        raise DataError(
            f"{origin}: row {row + 2}, column '{column}': {str(cells[row])!r} is not a "
            f"{'date like 2017-12-29' if column == 'date' else 'number'}. Mend or remove that row."
        )
    return parsed
