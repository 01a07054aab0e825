"""The suite for backends of others, over our own."""

from __future__ import annotations

import pytest

from projections.testing import OpenLog, StoreConformance
from tests.contract._backends import Backend


@pytest.mark.anyio
class TestOurBackends(StoreConformance):
    """Disk, disk with tiny segments, memory."""

    @pytest.fixture
    def open_log(self, backend: Backend) -> OpenLog:
        """Open the backend's log."""
        return backend.open
