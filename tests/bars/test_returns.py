import numpy as np
import pandas as pd

from pitwise.bars.returns import log_returns, returns

BARS = pd.DataFrame(
    {
        "symbol": ["A", "A", "A", "A", "B", "B"],
        "segment": [0, 0, 0, 1, 0, 0],
        "close": [100.0, 110.0, 99.0, 50.0, 10.0, 20.0],
    }
)


def test_a_return_is_on_the_close_before_of_the_same_symbol_and_segment():
    np.testing.assert_allclose(returns(BARS), [np.nan, 0.1, -0.1, np.nan, np.nan, 1.0])


def test_a_log_return_is_the_log_of_one_and_the_return():
    np.testing.assert_allclose(log_returns(BARS), np.log1p(returns(BARS)))
    assert log_returns(BARS).index.tolist() == BARS.index.tolist()
