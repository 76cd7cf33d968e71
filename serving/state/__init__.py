"""The market's state, as the writer has committed it and the readers answer from it."""
