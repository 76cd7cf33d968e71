"""Feast, which the tests here import themselves, as `open_store` imports it: in a third of the time."""

from feature_repo.store import _quick_import

with _quick_import():
    import feast  # noqa: F401
