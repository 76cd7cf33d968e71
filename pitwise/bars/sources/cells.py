"""The text of cells as days and numbers: the one form that a whole file agrees on, and no guess.

A vendor writes all cells of a file in one form: an order of day and month, a decimal mark. Every
form is tried on every cell. The one that reads them all is taken; where two do and differ the file
is refused, for to choose between them would be a silent wrong number.
"""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from pitwise.errors import DataError

MISSING = ["", "-", "NaN", "nan", "NA", "#N/A", "N/A", "n/a", "NULL", "null", "None"]
"""What stands in a number's place where the vendor has none."""

DATE_FORMS = (
    ("%Y-%m-%d",),
    ("%m-%d-%Y", "%d-%m-%Y"),
    ("%d-%b-%Y", "%d-%B-%Y", "%b-%d-%Y", "%B-%d-%Y", "%d-%b-%y"),
    ("%m-%d-%y", "%d-%m-%y", "%y-%m-%d"),
)
"""Groups of forms: a date that has a form of one group has none of another."""

EPOCHS = {r"\d{9,10}": "s", r"(?!19|20)\d{12}|\d{13}": "ms"}
"""Digits of an instant and their unit; 201712291600 is no instant but a day and a time."""


def days(cells: pd.Series, origin: str) -> np.ndarray:
    """Cells as naive midnights, (n,) of datetime64[ns]; a time and a zone behind the day are dropped.

    Seconds or milliseconds since 1970 are read where every cell is one and is either midnight in UTC
    or between midnight and the close in New York, when it is the same day in both places; and none is
    to come.

    Args:
        cells: indexed by each row's number in its file.

    Raises:
        DataError: a cell is no date, is not in the form of the others, or can be two different days.
    """
    coded = cells.astype("category")
    texts = coded.cat.categories.astype(str).str.strip()
    readings = _group_days(texts, DATE_FORMS[0])
    if _most_read(readings) < len(texts):
        epoch = next(
            (unit for digits, unit in EPOCHS.items() if texts.str.fullmatch(digits).all()), None
        )
        readings = [_epoch_days(texts, epoch)] if epoch else _days_of_form(texts)

    def place(position: int) -> str:
        cell = cells.iat[position]
        return f"{origin}: row {cells.index[position]}, column '{cells.name}': {str(cell)[:40]!r}"

    codes = coded.cat.codes.to_numpy()
    wanted = "a date like 2017-12-29 in the form of the other dates"
    return _agreed(codes, readings, place, wanted).astype("datetime64[ns]")


def needed_columns(name: str, cells: pd.DataFrame, columns: list[str], instead: str) -> pd.DataFrame:
    """Columns of a file's cells, each of which it has once; what is `MISSING` becomes NaN.

    Args:
        name: the file's.
        cells: see `tables.text_cells`.
        instead: of filling a file in that has no rows: "remove it".

    Raises:
        DataError: a column is not there, or more than once; or there are no rows.
    """
    for column in columns:
        if (n := list(cells.columns).count(column)) != 1:
            raise DataError(
                f"{name}: has {n or 'no'} column{'s' * (n > 1)} '{column}'; it has "
                f"{', '.join(cells.columns)}. Needed once each are {', '.join(columns)}."
            )
    if cells.empty:
        raise DataError(f"{name}: has no rows. Fill it in, or {instead}.")
    return cells[columns].mask(cells[columns].isin(MISSING))


def symbols(name: str, cells: pd.DataFrame) -> pd.Series:
    """The column `symbol` in capitals.

    Raises:
        DataError: one holds a character that is not ASCII.
    """
    strange = ~cells["symbol"].map(str.isascii).astype(bool)
    refuse(name, cells, strange, "symbol", "holds a character that no symbol has", "Mend it")
    return cells["symbol"].str.upper()


def refuse(name: str, rows: pd.DataFrame, wrong: pd.Series, column: str, what: str, remedy: str) -> None:
    """DataError at the first row that is wrong: the file, the row, the column, what it holds.

    Args:
        name: the file's.
        rows: indexed by each row's number in the file.
        wrong: (n,) bool.
        what: end of a sentence that begins with what the cell holds, or with "nothing": "is there".
        remedy: a sentence without its point: "Fill it in".
    """
    if wrong.any():
        row = wrong.index[wrong.argmax()]
        cell = rows.at[row, column]
        shown = "" if pd.isna(cell) else f"{str(cell)[:40]!r} "
        raise DataError(f"{name}: row {row}, column '{column}': {shown or 'nothing '}{what}. {remedy}.")


def _days_of_form(texts: pd.Index) -> list[np.ndarray]:
    """The readings of the texts by the group of forms that reads most of them."""
    # The year first, with or without marks: then whatever follows is a time and a zone.
    year_first = r"^(\d{4})([-/.]?)(\d\d)\2(\d\d)([T ]\s*\d.*)?$"
    texts = texts.str.replace(year_first, r"\1-\3-\4", regex=True)
    texts = texts.str.replace(r"\s+\d{1,2}:\d\d.*$", "", regex=True)
    texts = texts.str.replace(r"[\s,./-]+", "-", regex=True)
    tried = []
    for group in DATE_FORMS:
        tried.append(_group_days(texts, group))
        if _most_read(tried[-1]) == len(texts):
            break
    return max(tried, key=_most_read)


def _group_days(texts: pd.Index, group: tuple[str, ...]) -> list[np.ndarray]:
    return [pd.to_datetime(texts, format=form, errors="coerce").to_numpy() for form in group]


def _most_read(readings: list[np.ndarray]) -> int:
    return max(int(pd.notna(reading).sum()) for reading in readings)


def _epoch_days(texts: pd.Index, unit: str) -> np.ndarray:
    instants = pd.to_datetime(pd.to_numeric(texts), unit=unit)
    midnight = instants.normalize()
    one_day = (instants == midnight) | ((instants.hour >= 4) & (instants.hour < 22))
    return midnight.where(one_day & (instants < pd.Timestamp.now())).to_numpy()


def numbers(cells: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Cells as float64: thousands marks, decimal commas and currency signs are read.

    Volumes may end in K, M or B: thousands, millions, billions.

    Args:
        cells: text; indexed by each row's number in its file. The decimal mark is one for all columns.

    Raises:
        DataError: a cell is no number, or is not written like the others, or can be two different ones.
    """
    plain = cells.apply(lambda column: column.astype("string").str.strip())
    if "volume" in plain:
        for letter, exponent in {"K": "e3", "M": "e6", "B": "e9"}.items():
            ending = rf"(?<=\d)\s?[{letter}{letter.lower()}]$"
            plain["volume"] = plain["volume"].str.replace(ending, exponent, regex=True)
    plain = plain.mask(plain.isin(MISSING))
    codes, texts = pd.factorize(plain.to_numpy(object, na_value=None).ravel())  # row by row
    texts = pd.Series(texts, dtype=object).str.replace(
        r"^([+-]?)\s*[$€£¥]\s*|\s*[$€£¥]$", r"\1", regex=True
    )
    # A comma can be the decimal mark only where there is one.
    marks = ".," if texts.str.contains(",", regex=False).any() else "."

    def place(position: int) -> str:
        row, column = divmod(position, plain.shape[1])
        cell = str(cells.iat[row, column])[:40]
        return f"{origin}: row {cells.index[row]}, column '{cells.columns[column]}': {cell!r}"

    readings = [_with_mark(texts, mark) for mark in marks]
    values = _agreed(codes, readings, place, "a number written like the others")
    return pd.DataFrame(values.reshape(plain.shape), index=cells.index, columns=cells.columns)


def _with_mark(texts: pd.Series, mark: str) -> np.ndarray:
    """Values of the texts that are numbers with this decimal mark, NaN for the others."""
    group_mark = r"[\s'’.]" if mark == "," else r"[\s'’,]"
    grouped = rf"\d{{1,3}}({group_mark})\d{{3}}(?:\1\d{{3}})*"
    decimal = rf"(?:(?:{grouped}|\d+)(?:[{mark}]\d*)?|[{mark}]\d+)(?:e[+-]?\d+)?"
    fits = texts.str.fullmatch(rf"[+-]?(?:{decimal}|inf|infinity)", flags=re.IGNORECASE)
    bare = texts.where(fits, "nan").str.replace(group_mark, "", regex=True).str.replace(",", ".")
    return bare.astype("float64").to_numpy()


def _agreed(
    codes: np.ndarray, readings: list[np.ndarray], place: Callable[[int], str], wanted: str
) -> np.ndarray:
    """The values of the only reading that reads every text.

    Args:
        codes: (n,) position of each cell's text in a reading, -1 for a missing cell.
        readings: each (n_texts,) values, missing where that form does not fit the text.
        place: names the cell at a position.
    """
    best = min(readings, key=lambda reading: pd.isna(reading).sum())
    unread = np.append(pd.isna(best), False)[codes]
    if unread.any():
        raise DataError(f"{place(unread.argmax())} is not {wanted}. Mend or remove that row.")
    for other in readings:
        differs = np.append(~pd.isna(other).any() & (other != best), False)[codes]
        if differs.any():
            position = differs.argmax()
            one, two = (_shown(reading[codes[position]]) for reading in (best, other))
            raise DataError(
                f"{place(position)} can be {one} or {two}, and no cell of the file decides which. "
                "Write dates as 2017-12-29 and numbers as 1234.5."
            )
    return np.append(best, np.full(1, np.nan).astype(best.dtype))[codes]


def _shown(value: np.generic) -> str:
    return str(value)[:10] if isinstance(value, np.datetime64) else str(value)
