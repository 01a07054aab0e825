"""How fast could any store be that keeps its event loop free?

What ours cannot be faster than, on this machine and in this language: 1 to 1024 tasks hand a ready
line of 200 bytes to a kept thread, which joins what waits, writes and syncs it, and has all of them
woken. Nothing is encoded, numbered, checked, locked or recorded; half of a crowd goes early, as in
ours. What `append` measures belongs beside it.

Floor: a bare `os.write` and `os.fdatasync` of one such line after the other, in one thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio

from benchmarks._environment import SYNCED_BYTES, survey
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch
from benchmarks.append import QUICK_SECONDS, SECONDS, TASKS, case_afresh, loops, write_and_sync

_LINE: Final = bytes(SYNCED_BYTES)
_CROWD: Final = 128  # so many go before the commit in flight is over
_Waiting: TypeAlias = list[asyncio.Future[None]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    chosen = options(__doc__).parse_args(arguments, namespace=Options())
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        seconds = QUICK_SECONDS if chosen.quick else SECONDS
        floor = partial(write_and_sync, _LINE, seconds=seconds)
        cases: list[Case] = []
        for loop, backend in loops(with_trio=False).items():
            for tasks in TASKS:
                work: Any = partial(anyio.run, partial(_hand_over, tasks=tasks, seconds=seconds))
                name = f"{tasks} task{'s' * (tasks > 1)}"
                measure = partial(work, **backend)
                cases.append(case_afresh(name, loop, directory, measure, floor, tasks=tasks))
        report("ceiling", "lines", environment, compare(cases, chosen), chosen)


async def _hand_over(path: Path, *, tasks: int, seconds: float) -> Run:
    loop = asyncio.get_running_loop()
    thread = _Thread(path, loop)
    lines = 0
    begin = time.perf_counter()
    deadline = begin + seconds

    async def work() -> None:
        nonlocal lines
        while True:
            await thread.write()
            lines += 1
            if time.perf_counter() >= deadline:
                return

    try:
        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(work)
        taken = time.perf_counter() - begin
    finally:
        thread.end()
    return Run(lines, taken)


class _Thread:
    """Writes and syncs what waits, all of it at once."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._receiver, self._sender = socket.socketpair()
        self._commits: deque[_Waiting | None] = deque()
        self._waiting: _Waiting = []
        self._is_busy = False
        self._early = _CROWD
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def write(self) -> asyncio.Future[None]:
        """Hand over a line; what is returned is done when it is synced."""
        done = self._loop.create_future()
        self._waiting.append(done)
        if not self._is_busy and (len(self._waiting) == 1 or len(self._waiting) >= self._early):
            self._loop.call_soon(self._begin)  # with those who are ready to run now
        return done

    def end(self) -> None:
        """Wait for the thread, which has nothing to do any more."""
        self._put(None)
        self._thread.join()
        self._receiver.close()
        self._sender.close()
        os.close(self._handle)

    def _begin(self) -> None:
        if self._is_busy or not self._waiting:
            return
        self._is_busy = True
        commit, self._waiting = self._waiting, []
        self._early = max(_CROWD, len(commit) // 2)
        self._put(commit)

    def _put(self, commit: _Waiting | None) -> None:
        self._commits.append(commit)
        self._sender.send(b"\0")

    def _work(self) -> None:
        while True:
            self._receiver.recv(1)
            commit = self._commits.popleft()
            if commit is None:
                return
            data = b"".join([_LINE] * len(commit))
            written = os.write(self._handle, data)
            os.fdatasync(self._handle)
            assert written == len(data), "a short write"
            self._loop.call_soon_threadsafe(self._finish, commit)

    def _finish(self, commit: _Waiting) -> None:
        self._is_busy = False
        self._begin()
        for done in commit:
            done.set_result(None)


if __name__ == "__main__":
    main()
