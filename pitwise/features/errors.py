"""Why the online store takes no row, or there is no forecast from it: each cause an error of its own.

They pass from one process to another, so each is made of one message and holds the rest as attributes.
"""

from collections.abc import Sequence

from pitwise.errors import StoreError


class UnreachableStoreError(StoreError):
    """The online store does not answer; it may do so soon."""


class ForeignStoreError(StoreError):
    """The place in the online store belongs to another workspace."""


class StaleWriteError(StoreError):
    """The online store holds what was known later than rows to be written, which say otherwise."""


class WindowSchemaError(StoreError):
    """Windows are of other features, or of another order or length of them, than the reader wants."""


class OfSymbolsError(StoreError):
    """Something is wrong with some symbols; the others can be asked for.

    Args:
        symbols: which.
    """

    def __init__(self, message: str, symbols: Sequence[str] = ()):
        super().__init__(message)
        self.symbols = list(symbols)


class EmptyStoreError(OfSymbolsError):
    """Symbols that are published have no window online: the online store has lost its data."""


class NonFiniteWindowError(OfSymbolsError):
    """A window has a NaN or an infinity where the model reads a number."""


class NonFiniteForecastError(OfSymbolsError):
    """A model's forecast is a NaN or an infinity."""


def some_of(names: Sequence[str], most: int = 5) -> str:
    """Names as a message lists them: the first ones, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
