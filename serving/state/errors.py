"""Why a bar could not be handed to the writer."""

from pitwise.errors import StoreError


class BusyError(StoreError):
    """Too many bars wait, or they were not done in time."""


class AwayError(StoreError):
    """The process that takes bars does not answer."""
