"""Processes that start in milliseconds: forked by a server that has imported everything before.

A new interpreter that imports the event loops needs 0.2 s of a core, which is longer than most
processes of these tests live. The server itself runs no event loop and no thread, so its children
begin as clean as it was.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any, Final

__all__ = ["LOOPS", "Child", "Work"]

_SERVER: Final = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "anyio._backends._asyncio",
        "anyio._backends._trio",
        "tests.real._racers",
        "tests.real._writers",
        "uvloop",
    ]
)
_JOIN_SECONDS: Final = 60.0

Work = Callable[..., None]
"""What a child does, given a connection and more: a function of a module, for it goes by name."""

LOOPS: Final[list[dict[str, Any]]] = [
    {"backend": "asyncio"},
    {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    {"backend": "trio"},
]


class Child:
    """A process and this end of the pipe it tells things through."""

    def __init__(self, work: Work, *args: Any) -> None:
        self.connection, theirs = _SERVER.Pipe(duplex=False)
        self._process = _SERVER.Process(target=work, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    def kill(self) -> None:
        """SIGKILL it; what it said before can still be received."""
        self._process.kill()
        self._process.join(_JOIN_SECONDS)

    def close(self) -> None:
        """Let go of it, dead or alive."""
        self.kill()
        self.connection.close()
        self._process.close()
