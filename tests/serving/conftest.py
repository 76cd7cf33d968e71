"""A published feature store for all tests of serving."""

import pytest
from support.once import once

from pitwise.workspace import Workspace


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Workspace:
    """Five symbols in a Feast store, no model registered; shared, so copy it to write."""
    # Here, for it loads torch, and the tests of the API alone go without.
    from support import small_runs as small

    return Workspace(once(tmp_path_factory, "published", small.published_workspace))
