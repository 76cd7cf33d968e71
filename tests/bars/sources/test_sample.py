from pitwise.bars.sources.sample import sample_bars


def test_the_sample_is_five_real_stocks():
    bars = sample_bars()
    assert bars.shape == (12_154, 8)
    assert sorted(bars["symbol"].unique()) == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    assert not bars.isna().any(axis=None)
    apple = bars[(bars["symbol"] == "AAPL") & (bars["date"] == "2005-02-28")].iloc[0]
    assert (apple["open"], apple["high"], apple["low"], apple["close"]) == (44.68, 45.14, 43.96, 44.86)
    assert (apple["volume"], apple["adj_close"].round(6)) == (11_635_900, 5.765135)
