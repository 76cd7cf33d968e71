"""The bars: schema, the exchange's calendar, and the sources they come from."""
