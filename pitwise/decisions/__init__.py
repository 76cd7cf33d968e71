"""From forecasts to decisions: risk, portfolios, and what they would have earned after costs."""
