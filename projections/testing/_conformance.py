"""What every backend must show: the promises of `EventStore`, one test each."""

from __future__ import annotations

from projections.testing._append_promises import AppendPromises
from projections.testing._read_promises import ReadPromises

__all__ = ["StoreConformance"]


class StoreConformance(AppendPromises, ReadPromises):
    """The contract of `EventStore`, as tests for a backend of your own.

    Subclass it in a test module, and provide a fixture `open_log` that gives an `OpenLog`::

        @pytest.mark.anyio
        class TestMyStore(StoreConformance):
            @pytest.fixture
            def open_log(self, tmp_path: Path) -> OpenLog:
                return functools.partial(open_my_store, tmp_path / "log")

    A test that your backend cannot pass yet is best overridden and marked `xfail`, with the reason.

    Attributes:
        stuck_seconds: how long a subscriber may wait for what is there.
    """
