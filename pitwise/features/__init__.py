"""The daily indicators, their history, and windows of them."""
