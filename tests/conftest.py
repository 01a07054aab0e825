"""What test modules share: the event loops that a promise has to hold on, and an empty store."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import eventstore as es

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in the background of a script ignores Ctrl-C, and so would the programs tested here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("asyncio", id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="asyncio+uvloop"),
        pytest.param("trio", id="trio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Run each test that is marked `anyio` once per event loop; takes the place of anyio's own."""
    return request.param


@pytest.fixture(params=["memory", "disk"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[es.LogStore[es.LoopEvent]]:
    """Open an empty store: what projections promise holds on each kind."""
    if request.param == "memory":
        async with es.memory_store() as store:
            yield store
    else:
        async with es.open_store(tmp_path / "history.jsonl") as store:
            yield store
