"""A synthetic market, and faults planted in it."""
