import numpy as np
import pandas as pd
import pytest

from pitwise.reports.page import compact, page, table, template


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (0.5, "0.5"), (789, "789"), (1234, "1.23 k"), (45_600_000, "45.6 M"), (2e9, "2 B")],
)
def test_large_numbers_are_shown_in_three_digits(number, shown):
    assert compact(number) == shown


def test_a_table_shows_the_decimals_its_column_needs():
    frame = pd.DataFrame({"price": [10.25, 3.0, np.nan], "shares": [1e6, 0, 5], "day": pd.NaT})
    shown = table("T", frame)
    assert shown.rows == [["10.25", "1,000,000", "–"], ["3.00", "0", "–"], ["–", "5", "–"]]
    assert shown.kinds == ["number", "number", ""]


def test_texts_of_a_page_are_escaped():
    document = page("<i>", "<i>", [("<i>", "<i>")], [])
    assert document.count("&lt;i&gt;") == 5
    assert "<i>" not in document


def test_a_template_of_another_folder_has_the_palette_and_filters_of_its_own(tmp_path):
    (tmp_path / "own.html").write_text('{% include "palette.css" %}{{ text | twice }}')
    shown = template("own.html", tmp_path, {"twice": lambda text: 2 * text}).render(text="<")
    assert "screen and (prefers-color-scheme: dark)" in shown
    assert shown.endswith("&lt;&lt;")
