"""Cut the public S&P 500 prices to the file that the README's first table stands on.

    python scripts/cut_sp500.py all_stocks_5yr.csv sp500_stock_data.csv.gz

`docs/data.md` says where `all_stocks_5yr.csv` comes from.
"""

import argparse
import csv
import gzip
import hashlib
import io
import sys
from pathlib import Path

FIRST, LAST = "2014-01-02", "2017-12-29"
PRICES = ["open", "high", "low", "close"]
COLUMNS = ["symbol", "date", *PRICES, "volume"]
SHA256 = "e8c98e45b5d6278f1eb45ff27a39a330518ac4148ff86b73a36104923660ba54"
"""Of the cut, as plain CSV: what gzip makes of it differs from one version to the next."""


def cut(original: str, first: str = FIRST, last: str = LAST) -> str:
    """The sessions from `first` to `last` (ISO dates, both included), in the original's order.

    Args:
        original: CSV with date, open, high, low, close, volume and Name.

    Returns:
        CSV with `COLUMNS`. A price is written as Python writes it: 37.0, not 37 or 37.00.

    Raises:
        KeyError: a column is missing.
        ValueError: a price or volume is no number.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in csv.DictReader(io.StringIO(original)):
        if first <= row["date"] <= last:
            prices = [row[name] and repr(float(row[name])) for name in PRICES]
            volume = row["volume"] and str(int(float(row["volume"])))
            writer.writerow([row["Name"], row["date"], *prices, volume])
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("original", type=Path, help="all_stocks_5yr.csv")
    parser.add_argument("target", type=Path, help="where the cut goes, such as sp500_stock_data.csv.gz")
    arguments = parser.parse_args()
    try:
        content = cut(arguments.original.read_text()).encode()
    except KeyError as error:
        sys.exit(f"error: {arguments.original}: has no column {error}.")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {arguments.original}: cannot be read ({error}).")
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        sys.exit(
            f"error: {arguments.original}: its cut has the SHA-256 {found}, not {SHA256}. It is another "
            "version of the collection; nothing was written."
        )
    arguments.target.write_bytes(gzip.compress(content, mtime=0))
    print(f"{arguments.target}: {len(content.splitlines()) - 1:,} rows")


if __name__ == "__main__":
    main()
