from collections.abc import Iterator

import pandas as pd
import pytest


@pytest.fixture(autouse=True)
def copy_on_write() -> Iterator[None]:
    """As in the writer."""
    with pd.option_context("mode.copy_on_write", True):
        yield
