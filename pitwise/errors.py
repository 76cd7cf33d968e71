"""The errors a person can do something about. Each is shown as one message, without a traceback."""


class PitwiseError(Exception):
    """Base of the errors that name what is wrong, where, and what to do."""


class ParamsError(PitwiseError):
    """A key of `params.yaml` is unknown, missing or impossible; the message names it."""


class DataError(PitwiseError):
    """Bars that cannot be used; the message names the file, and the row and column where known."""


class StoreError(PitwiseError):
    """The feature store, the registry or the disk cannot be read or written."""


def one_line(text: object) -> str:
    """An error or another text on one line, as a message quotes it."""
    return " ".join(str(text).split())
