"""Stage `ingest`: a source's bars, as they are, in one schema: `data/raw/bars.parquet`.

Nothing is judged here beyond what stops a file from being read at all; `clean` does that.
"""

import zlib
from pathlib import Path
from typing import Literal

import pandas as pd

from feature_repo.artifacts import RAW_BARS, write_parquet
from feature_repo.bars import ADJUSTED_CLOSE, COLUMNS, NUMBERS
from feature_repo.errors import DataError
from feature_repo.stage import Params, load_params, run_stage

ALIASES = {"name": "symbol", "ticker": "symbol", "adj close": ADJUSTED_CLOSE}
CSV_ENDINGS = (".csv", ".csv.gz")


class IngestParams(Params):
    source: Literal["sample", "csv"]
    path: Path


def sample_bars() -> pd.DataFrame:
    """AAPL, FB, GOOG, IBM and MSFT, 2000-2013: prices as traded, with an adjusted close.

    Source: the PyPI package `bokeh-sampledata`; needs no network.
    """
    from bokeh_sampledata import stocks

    symbols = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    bars = pd.concat(pd.DataFrame(getattr(stocks, s)).assign(symbol=s) for s in symbols)
    return _typed(bars, "bokeh-sampledata")


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
    try:
        # "NA" is a ticker that looks like a missing value, so only an empty cell is one.
        bars = pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file or folder. Set ingest.path.") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: the file is empty.") from error
    except pd.errors.ParserError as error:
        raise DataError(
            f"{path}: not a well-formed CSV: {str(error).strip()}. Mend that line."
        ) from error
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error

    names = {c: ALIASES.get(c.strip().lower(), c.strip().lower()) for c in bars.columns}
    bars = bars.rename(columns=names)
    missing = [c for c in COLUMNS if c not in bars.columns]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}; it has {', '.join(names)}. "
            f"Needed are {', '.join(COLUMNS)} ('Name' or 'ticker' serve for 'symbol')."
        )
    if bars.columns.duplicated().any():
        twice = bars.columns[bars.columns.duplicated()][0]
        raise DataError(f"{path}: column '{twice}' stands there twice.")
    if bars.empty:
        raise DataError(f"{path}: has a header and no rows.")
    return _typed(bars, str(path))


def _typed(bars: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Columns in the schema's order and types; a cell that is not of its type names itself."""
    typed = {"symbol": bars["symbol"].astype("string").str.strip()}
    typed["date"] = _parsed(bars["date"], "date", origin, pd.to_datetime, format="ISO8601")
    for column in [*NUMBERS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in bars else [])]:
        numbers = _parsed(bars[column], column, origin, pd.to_numeric)
        typed[column] = numbers.astype("float64")
    return pd.DataFrame(typed).reset_index(drop=True)


def _parsed(cells: pd.Series, column: str, origin: str, parse, **options) -> pd.Series:
    parsed = parse(cells, errors="coerce", **options)
    refused = parsed.isna() & cells.notna()
    if refused.any():
        row = int(refused.to_numpy().argmax())
        raise DataError(
            f"{origin}: row {row + 2}, column '{column}': {cells.iloc[row]!r} is not a "
            f"{'date like 2017-12-29' if column == 'date' else 'number'}. Mend or remove that row."
        )
    return parsed


def main() -> None:
    params = load_params("ingest", IngestParams)
    bars = sample_bars() if params.source == "sample" else csv_bars(params.path)
    write_parquet(bars, RAW_BARS)
    print(f"{len(bars):,} rows of {bars['symbol'].nunique():,} symbols from {params.source}")


if __name__ == "__main__":
    run_stage(main)
