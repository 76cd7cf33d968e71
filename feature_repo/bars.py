"""The schema of a bar: one symbol's session."""

PRICES = ["open", "high", "low", "close"]
"""US dollars a share."""
NUMBERS = [*PRICES, "volume"]
COLUMNS = ["symbol", "date", *NUMBERS]
ADJUSTED_CLOSE = "adj_close"
"""Optional: the close adjusted by the vendor for later splits and dividends."""
