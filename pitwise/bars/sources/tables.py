"""The content of one file, CSV or parquet, as a table of the schema's columns, cells as they came."""

import codecs
import csv
import gzip
import io
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pitwise.bars.schema import ADJUSTED_CLOSE, COLUMNS, NUMBERS
from pitwise.bars.sources.cells import MISSING
from pitwise.errors import DataError, one_line

HEADINGS = {
    "symbol": ("symbol", "ticker", "name"),
    "date": ("date", "timestamp", "datetime"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close", "closelast", "price"),
    "volume": ("volume", "vol"),
    ADJUSTED_CLOSE: ("adjclose", "adjustedclose"),
}
"""What vendors call each column, in letters alone; the first that a file has is taken."""
SEPARATORS = ",;\t|"


def text_table(name: str, content: bytes) -> pd.DataFrame:
    """The schema's columns of a CSV; numbers are text where one cell of them is not a plain number."""
    text = _utf8(name, content)
    header, separator = _header(name, text)
    columns = _columns(header, name)
    text = _without_footer(text, separator)
    _refuse_ragged(name, text, separator, len(header))

    marks = {"symbol": [""], "date": [""], **dict.fromkeys([*NUMBERS, ADJUSTED_CLOSE], MISSING)}

    def read(kinds: dict) -> pd.DataFrame:
        table = pd.read_csv(
            io.BytesIO(text),
            sep=separator,
            header=0,
            names=[columns.get(i, f"column {i}") for i in range(len(header))],
            dtype=kinds,
            # "NA" is a ticker that looks like a missing value.
            keep_default_na=False,
            na_values=marks,
            skip_blank_lines=False,  # a row keeps the number it has in the file
            index_col=False,
            low_memory=False,
        )
        return table[list(columns.values())]

    kinds = {"symbol": "category", "date": "category"}
    try:
        table = read(kinds)
        if not all(is_number(table[c]) for c in table.columns.difference(list(kinds))):
            # The decimal mark is one for all columns, so the plain numbers are wanted as text too.
            table = read(kinds | dict.fromkeys([*NUMBERS, ADJUSTED_CLOSE], "str"))
    except pd.errors.ParserError as error:
        raise DataError(f"{name}: not a well-formed CSV: {one_line(error)}. Mend that line.") from error
    table.index += 2
    return table.dropna(how="all")


def file_cells(path: Path, remedy: str) -> pd.DataFrame:
    """`text_cells` of a file: `.csv` or `.csv.gz`.

    Args:
        remedy: what to do where there is no such file.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file. {remedy}.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}. Fetch the file again.") from error
    return text_cells(str(path), content)


def text_cells(name: str, content: bytes) -> pd.DataFrame:
    """All columns of a CSV, cells as text, "" where one is empty; the index is each row's number.

    Columns are named as in the header, in small letters.
    """
    text = _utf8(name, content)
    header, separator = _header(name, text)
    _refuse_ragged(name, text, separator, len(header))
    rows = csv.reader(io.StringIO(text.decode()), delimiter=separator)
    cells = [[cell.strip() for cell in row] for row in rows]
    names = [heading.strip().lower() for heading in header]
    table = pd.DataFrame(cells[1:], columns=names, index=range(2, len(cells) + 1), dtype=object)
    return table[(table.notna() & (table != "")).any(axis=1)]


def _utf8(name: str, content: bytes) -> bytes:
    """Text in UTF-8 with plain line ends, of whatever encoding it came in."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16").encode()
    else:
        text = content.removeprefix(codecs.BOM_UTF8)
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    binary = re.search(rb"[\0-\x08\x0e-\x1f]", text[: 1 << 16])
    stray = binary.start() if binary else text.find(b"\0")
    if stray >= 0:
        row = text.count(b"\n", 0, stray) + 1
        raise DataError(
            f"{name}: cannot be read: row {row} holds a byte that no text has (0x{text[stray]:02x}). "
            "Fetch the file again, or save it as UTF-8."
        )
    head = text[:1000].strip().lower()
    if not text.strip():
        raise DataError(f"{name}: the file is empty.")
    if re.match(rb"<(!doctype|!--|html|head|body|\?xml)", head):
        raise DataError(f"{name}: is a web page, not a table. Fetch the file again.")
    if head.startswith((b"{", b"[")):
        raise DataError(f"{name}: is JSON, not a table. Save it as CSV.")
    try:
        if not text.isascii():
            text.decode()
    except UnicodeDecodeError:
        # Some older encoding. Which one makes no difference: what is read of the file is ASCII or a
        # currency sign, and a symbol that is not ASCII is refused.
        text = text.decode("cp1252", errors="replace").encode()
    return text


def _header(name: str, text: bytes) -> tuple[list[str], str]:
    """The names on the first line, and the separator between them."""
    line = text.partition(b"\n")[0].decode()
    separator = max(SEPARATORS, key=line.count)
    return next(csv.reader([line], delimiter=separator), [""]), separator


def _without_footer(text: bytes, separator: str) -> bytes:
    """The text without last lines that hold a sentence, like a vendor's name, and nothing else."""
    while True:
        text = text.rstrip(b" \n")
        above, _, last = text.rpartition(b"\n")
        cells = [c for row in csv.reader([last.decode()], delimiter=separator) for c in row if c.strip()]
        if not above or len(cells) != 1 or len(re.findall(r"[^\W\d]{2,}", cells[0])) < 2:
            return text
        text = above


def _refuse_ragged(name: str, text: bytes, separator: str, width: int) -> None:
    """Refuse a row with more or fewer cells than the header, whose cells may be another column's."""
    if b'"' in text:
        lines = _quoted_widths(name, text, separator)
    else:
        letters = np.frombuffer(text, np.uint8)
        ends = np.append(np.flatnonzero(letters == ord("\n")), len(letters))
        marks = np.flatnonzero(letters == ord(separator))
        lines = np.diff(np.searchsorted(marks, ends), prepend=0) + 1
        lines[np.diff(ends, prepend=-1) == 1] = 0
    ragged = (lines != width) & (lines != 0)
    if ragged.any():
        at = int(ragged.argmax())
        raise DataError(
            f"{name}: row {at + 1} has {lines[at]} cells and the header {width}. Mend or remove the row."
        )


def _quoted_widths(name: str, text: bytes, separator: str) -> np.ndarray:
    """Cells of each line, 0 for a blank one; (lines,) of int."""
    widths: list[int] = []
    lines = io.TextIOWrapper(io.BytesIO(text), "utf-8", newline="\n")
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        for cells in reader:
            if reader.line_num != len(widths) + 1:
                raise csv.Error("a quotation mark is not closed on its line")
            widths.append(len(cells))
    except csv.Error as error:
        raise DataError(f"{name}: row {len(widths) + 1}: {error}. Mend or remove that row.") from error
    return np.array(widths)


def parquet_table(name: str, content: bytes) -> pd.DataFrame:
    """The schema's columns of a parquet file."""
    file = pq.ParquetFile(pa.BufferReader(content))
    header = file.schema_arrow.names
    columns = _columns(header, name)
    table = file.read(columns=[header[i] for i in columns])
    table = table.select([header[i] for i in columns]).rename_columns(list(columns.values()))
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not _fits(field.name, kind):
            raise DataError(
                f"{name}: column '{field.name}' is of type {kind}. Write it as text or numbers."
            )
    bars = table.to_pandas(ignore_metadata=True)
    bars.index += 1
    return bars


def _fits(column: str, kind: pa.DataType) -> bool:
    is_type = pa.types
    if is_type.is_string(kind) or is_type.is_large_string(kind) or is_type.is_null(kind):
        return True
    if column == "symbol":
        return False
    if column == "date" and (is_type.is_date(kind) or is_type.is_timestamp(kind)):
        return True
    return is_type.is_integer(kind) or is_type.is_floating(kind) or is_type.is_decimal(kind)


def _columns(header: list[str], name: str) -> dict[int, str]:
    """The schema's columns at their positions in a file's header; a symbol may be lacking."""
    plain = [re.sub(r"[\W_]", "", heading.lower()) for heading in header]
    found = {}
    for column, headings in HEADINGS.items():
        heading = next((h for h in headings if h in plain), None)
        if heading is None:
            continue
        if plain.count(heading) > 1:
            raise DataError(f"{name}: column '{column}' stands there twice. Remove one of the two.")
        found[plain.index(heading)] = column
    missing = [c for c in COLUMNS[1:] if c not in found.values()]
    if missing:
        there = repr(", ".join(header)[:200]) if header else "an empty first line"
        raise DataError(
            f"{name}: has no column {', '.join(missing)}; it has {there}. "
            f"Needed are {', '.join(COLUMNS)} ('Name' or 'ticker' serve for 'symbol')."
        )
    return dict(sorted(found.items()))


def is_number(column: pd.Series) -> bool:
    """True for a column of integers or floats."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
