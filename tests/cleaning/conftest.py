"""The stock that the tests of this folder plant faults and events in."""

import pandas as pd
import pytest
from support.faulty_bars import calm_stock


@pytest.fixture(scope="session")
def untouched() -> pd.DataFrame:
    return calm_stock()


@pytest.fixture
def calm(untouched) -> pd.DataFrame:
    """A copy to change, see `calm_stock`."""
    return untouched.copy()
