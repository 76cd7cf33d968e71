"""The errors a person can do something about. Each is shown as one message, without a traceback."""


class PitwiseError(Exception):
    """Base of the errors that say what is wrong, where, and what to do."""


class ParamsError(PitwiseError):
    """A key of `params.yaml` is unknown, missing or impossible; the message names it."""


class DataError(PitwiseError):
    """Bars that cannot be used; the message names the file, and the row and column where known."""


class StoreError(PitwiseError):
    """The feature store, the registry or the disk cannot give or take what was asked of it."""
