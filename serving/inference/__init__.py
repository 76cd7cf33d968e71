"""The champion, its windows from the online store, and the forecasts it makes of them."""
