"""Processes that kill themselves at one call of the seam: a real SIGKILL, at a known place."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Final

from tests._files import Call, FilesAround

__all__ = ["DeadlyFiles", "was_killed"]

_SERVER: Final = multiprocessing.get_context("forkserver")  # a process for each call, and soon
_SERVER.set_forkserver_preload(["tests._kills", "projections"])
_STUCK_SECONDS: Final = 60.0


class DeadlyFiles(FilesAround):
    """Kills the process at one call, counted from when it is armed."""

    left: int | None = None

    def before(self, call: Call) -> None:
        """Die, or count."""
        del call
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def was_killed(work: Callable[..., None], *args: object) -> bool:
    """Do something in a process of its own, and say whether that was killed."""
    process = _SERVER.Process(target=work, args=args)
    process.start()
    process.join(_STUCK_SECONDS)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    killed = process.exitcode != 0
    process.close()
    return killed
