"""Feast's store of a workspace: the one way to get to it."""

from typing import Any
from unittest.mock import patch

from pitwise.workspace import Workspace


def open_store(workspace: Workspace) -> Any:
    """A `feast.FeatureStore` of the workspace, in a second instead of four.

    Feast's variable FEAST_FS_YAML_FILE_PATH names other settings than `feature_repo/feature_store.yaml`.

    Feast 0.67 has typeguard check every call of some hundred methods, for which each is compiled anew at
    import: three quarters of its time. For the length of its import there is no such check.
    """
    # Before Feast, whose own metrics would have the whole process keep its values in files.
    import prometheus_client  # noqa: F401

    with patch("typeguard.typechecked", _unchecked):
        from feast import FeatureStore
    return FeatureStore(str(workspace.feast_repo))


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """In place of the decorator `typeguard.typechecked`, with or without options."""
    return _unchecked if target is None else target
