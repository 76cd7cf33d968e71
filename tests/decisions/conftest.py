import numpy as np
import pytest


@pytest.fixture(scope="session")
def volatile():
    """600 returns whose volatility swings between 0.5% and 2% a session."""
    rng = np.random.default_rng(3)
    swing = 0.0125 - 0.0075 * np.cos(np.arange(600) / 40)
    returns = rng.standard_t(6, 600) * swing * np.sqrt(4 / 6)
    returns.flags.writeable = False
    return returns
