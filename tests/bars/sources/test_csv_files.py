import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pitwise.bars.sources.csv_files import csv_bars
from pitwise.errors import DataError

HEADER = "symbol,date,open,high,low,close,volume\n"
ROW = "AAPL,2014-01-02,10,12,9,11,100\n"


def written(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        csv_bars(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["bars.csv", "bars.csv.gz", "BARS.CSV"])
@pytest.mark.parametrize("column", ["symbol", "Name", "ticker", "NAME", " Ticker "])
def test_a_file_reads_whatever_its_symbol_column_is_called(tmp_path, name, column):
    text = HEADER.replace("symbol", column).replace("close", "Close").replace("date", "DATE") + ROW
    bars = csv_bars(written(tmp_path / name, text))
    assert bars.columns.tolist() == ["symbol", "date", "open", "high", "low", "close", "volume"]
    assert bars.values.tolist() == [["AAPL", pd.Timestamp("2014-01-02"), 10, 12, 9, 11, 100]]
    assert bars["symbol"].dtype == "string"
    assert (bars.dtypes.iloc[2:] == "float64").all()


def test_columns_are_found_by_name_and_others_left_out(tmp_path):
    text = "sector,volume,close,low,high,open,date,symbol\nTech,100,11,9,12,10,2014-01-02,AAPL\n"
    bars = csv_bars(written(tmp_path / "bars.csv", text))
    assert bars.values.tolist() == [["AAPL", pd.Timestamp("2014-01-02"), 10, 12, 9, 11, 100]]


@pytest.mark.parametrize("column", ["adj_close", "Adj Close", "adjclose", "Adjusted Close"])
def test_an_adjusted_close_comes_along(tmp_path, column):
    text = HEADER.replace("volume", f"volume,{column}") + ROW.replace("100", "100,5.5")
    assert csv_bars(written(tmp_path / "bars.csv", text))["adj_close"].tolist() == [5.5]


def test_a_folder_is_read_as_the_rows_of_all_its_csv_files(tmp_path):
    written(tmp_path / "a.csv", HEADER + ROW)
    written(tmp_path / "b.csv.gz", HEADER + ROW.replace("AAPL", "MSFT") * 2)
    written(tmp_path / "readme.txt", "not prices")
    bars = csv_bars(tmp_path)
    assert bars["symbol"].tolist() == ["AAPL", "MSFT", "MSFT"]
    assert bars.index.tolist() == [0, 1, 2]


def test_spaces_around_names_and_values_are_no_part_of_them(tmp_path):
    text = (HEADER + ROW.replace("AAPL", " AAPL ")).replace(",", ", ")
    bars = csv_bars(written(tmp_path / "bars.csv", text))
    assert bars.values.tolist() == [["AAPL", pd.Timestamp("2014-01-02"), 10, 12, 9, 11, 100]]


@pytest.mark.parametrize("ticker", ["NA", "NAN", "NULL", "TRUE", "INF", "000001"])
def test_a_ticker_that_looks_like_another_value_stays_a_ticker(tmp_path, ticker):
    bars = csv_bars(written(tmp_path / "bars.csv", HEADER + ROW.replace("AAPL", ticker)))
    assert bars["symbol"].tolist() == [ticker]


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("AAPL.csv", "AAPL"),
        ("aapl.us.csv", "AAPL"),
        ("Aapl.CSV", "AAPL"),
        ("brk.b.csv", "BRK.B"),
        ("BRK.B.us.csv.gz", "BRK.B"),
        ("brk-b.us.tsv", "BRK-B"),
        ("^GSPC.csv", "^GSPC"),
        ("AAPL.2014.csv", "AAPL"),
        ("F.txt", "F"),
    ],
)
def test_a_file_without_a_symbol_column_is_of_the_symbol_that_its_name_gives(tmp_path, name, symbol):
    text = (HEADER + ROW).replace("symbol,", "").replace("AAPL,", "")
    assert csv_bars(written(tmp_path / name, text))["symbol"].tolist() == [symbol]


def test_the_adjusted_close_of_some_files_is_not_made_up_for_the_others(tmp_path):
    written(
        tmp_path / "a.csv", HEADER.replace("volume", "volume,Adj Close") + ROW.replace("100", "100,5.5")
    )
    written(tmp_path / "b.csv", HEADER + ROW)
    with pytest.raises(DataError, match=r"b\.csv: has no adjusted close, and .*a\.csv has one"):
        csv_bars(tmp_path)
    written(
        tmp_path / "b.csv", HEADER.replace("volume", "volume,AdjClose") + ROW.replace("100", "100,6.5")
    )
    assert csv_bars(tmp_path)["adj_close"].tolist() == [5.5, 6.5]


def test_an_empty_cell_is_missing_not_an_error(tmp_path):
    text = HEADER + ",2014-01-02,10,12,9,11,100\nAAPL,,10,12,9,11,100\nAAPL,2014-01-03,10,,9,11,\n"
    bars = csv_bars(written(tmp_path / "bars.csv", text))
    missing = bars.isna()
    assert [missing.columns[row].tolist() for row in missing.to_numpy()] == [
        ["symbol"],
        ["date"],
        ["high", "volume"],
    ]


def test_a_date_with_a_zone_is_read_as_its_day_or_refused(tmp_path):
    text = HEADER + ROW.replace("02,", "02 00:00:00-05:00,")
    text += ROW.replace("2014-01-02,", "2014-07-02 00:00:00-04:00,")
    path = written(tmp_path / "bars.csv", text)
    try:
        dates = csv_bars(path)["date"]
    except DataError:
        assert "column 'date'" in refusal(path)
    else:
        assert dates.tolist() == [pd.Timestamp("2014-01-02"), pd.Timestamp("2014-07-02")]


@pytest.mark.parametrize("text", ["", "\n\n"])
@pytest.mark.parametrize("name", ["bars.csv", "bars.csv.gz"])
def test_an_empty_file_is_refused(tmp_path, name, text):
    assert "is empty" in refusal(written(tmp_path / name, text))


def test_a_header_without_rows_is_refused(tmp_path):
    assert "no rows" in refusal(written(tmp_path / "bars.csv", HEADER))


@pytest.mark.parametrize("column", HEADER.strip().split(",")[1:])
def test_a_missing_column_is_named(tmp_path, column):
    text = (HEADER + ROW).replace(column, "other")
    assert f"no column {column};" in refusal(written(tmp_path / "bars.csv", text))


def test_a_file_whose_name_gives_no_symbol_needs_a_column_for_it(tmp_path):
    text = (HEADER + ROW).replace("symbol", "other")
    assert "no column symbol, and its name gives none" in refusal(
        written(tmp_path / "all prices.csv", text)
    )


def test_a_company_name_beside_the_symbol_is_no_second_symbol(tmp_path):
    text = HEADER.replace("symbol", "Name,symbol") + "Apple," + ROW
    assert csv_bars(written(tmp_path / "bars.csv", text))["symbol"].tolist() == ["AAPL"]


def test_a_column_that_stands_there_twice_is_refused(tmp_path):
    text = HEADER.replace("close", "close,close") + ROW.replace("11,", "11,11,")
    assert "column 'close' stands there twice" in refusal(written(tmp_path / "bars.csv", text))


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_text_in_a_number_names_row_and_column(tmp_path, column):
    cells = dict(zip(HEADER.strip().split(","), ROW.strip().split(","), strict=True)) | {column: "ten"}
    path = written(tmp_path / "bars.csv.gz", HEADER + ROW * 2 + ",".join(cells.values()) + "\n" + ROW)
    message = refusal(path)
    assert f"row 4, column '{column}'" in message
    assert "'ten'" in message


def test_a_row_is_numbered_as_in_the_file_even_after_blank_lines(tmp_path):
    text = HEADER + ROW + "\n\n" + ROW.replace("10", "ten")
    assert "row 5, column 'open'" in refusal(written(tmp_path / "bars.csv", text))


def test_text_deep_in_a_big_file_names_its_row(tmp_path):
    text = HEADER + ROW * 150_000 + ROW.replace("11", "eleven") + ROW * 50_000
    assert "row 150002, column 'close'" in refusal(written(tmp_path / "bars.csv", text))


def test_a_malformed_line_deep_in_a_big_file_is_named(tmp_path):
    text = HEADER + ROW * 150_000 + ROW.replace("12", "1,2,1,2") + ROW * 50_000
    assert "row 150002 has 10 cells" in refusal(written(tmp_path / "bars.csv", text))


def test_rows_with_a_field_too_many_are_not_taken_for_shifted_columns(tmp_path):
    path = written(tmp_path / "bars.csv", HEADER + ROW.replace("\n", ",\n") * 2)
    try:
        symbols = csv_bars(path)["symbol"]
    except DataError:
        assert "column 'date'" not in refusal(path)
    else:
        assert symbols.tolist() == ["AAPL", "AAPL"]


@pytest.mark.parametrize("date", ["02/01/2014", "2014-02-30", "yesterday", "1500-01-01"])
def test_a_bad_date_names_its_row(tmp_path, date):
    message = refusal(written(tmp_path / "bars.csv", HEADER + ROW + ROW.replace("2014-01-02", date)))
    assert "row 3, column 'date'" in message
    assert date in message


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.csv")


def test_a_folder_without_a_csv_is_refused(tmp_path):
    written(tmp_path / "readme.txt", "not prices")
    assert "no .csv" in refusal(tmp_path)


def test_a_bad_file_of_a_folder_is_the_one_named(tmp_path):
    written(tmp_path / "a.csv", HEADER + ROW)
    written(tmp_path / "b.csv", HEADER + ROW.replace("10", "ten"))
    with pytest.raises(DataError, match=r"b\.csv: row 2, column 'open'"):
        csv_bars(tmp_path)


def test_text_under_a_gzip_name_is_refused(tmp_path):
    (tmp_path / "bars.csv.gz").write_text(HEADER + ROW)
    assert "cannot be read" in refusal(tmp_path / "bars.csv.gz")


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_another_compression_than_gzip_is_refused(tmp_path, pack):
    path = tmp_path / "bars.csv"
    path.write_bytes(pack((HEADER + ROW * 50).encode()))
    assert "cannot be read" in refusal(path)


def a_gzip_of_many_rows(path: Path) -> Path:
    rows = [f"S{i},2014-01-02,{i},{i},{i},{i},{i * i}\n" for i in range(1, 2000)]
    return written(path, HEADER + "".join(rows))


@pytest.mark.parametrize("cut", [5, 40, -9])
def test_a_truncated_gzip_is_refused(tmp_path, cut):
    path = a_gzip_of_many_rows(tmp_path / "bars.csv.gz")
    path.write_bytes(path.read_bytes()[:cut])
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("where", [10, 2_000, -8])
def test_a_damaged_gzip_is_refused(tmp_path, where):
    path = a_gzip_of_many_rows(tmp_path / "bars.csv.gz")
    content = bytearray(path.read_bytes())
    content[where] ^= 0xFF
    path.write_bytes(content)
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("seed", range(5))
def test_binary_junk_is_refused(tmp_path, seed):
    path = tmp_path / "bars.csv"
    path.write_bytes(np.random.default_rng(seed).bytes(5_000))
    refusal(path)
