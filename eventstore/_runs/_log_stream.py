"""Log streams: a file of a run, opened for appending, as an async file of the running backend.

aiofiles on asyncio (under uvloop less than half of anyio's time per write), anyio's own file on
trio, where aiofiles does not run. Either may be cancelled at any await.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import IO, Any, AnyStr, Generic, Protocol, TypeVar

import anyio
from aiofiles.threadpool import wrap
from anyio.lowlevel import current_token

from eventstore._runs._threads import in_thread, thread_limiter

__all__ = ["LogStream", "binary_file", "open_stream", "text_file"]

T_contra = TypeVar("T_contra", str, bytes, contravariant=True)


class LogStream(Protocol[T_contra]):
    """What `RunContext.open_log` yields: text reaches the system line by line, bytes at a flush.

    Cancellation: a write that began always lands, before later ones and before the close.
    """

    async def write(self, data: T_contra, /) -> int:
        """Write at the end of the log, whoever else writes there; returns the length."""
        ...

    async def flush(self) -> None:
        """Hand everything written so far to the system: it survives the death of the process."""
        ...


def text_file(raw: io.RawIOBase) -> io.TextIOWrapper:
    """The text form of an open log: UTF-8 and LF, and lone surrogates as escapes."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
    )


def binary_file(raw: io.RawIOBase) -> io.BufferedWriter:
    """The binary form of an open log."""
    return io.BufferedWriter(raw)


@asynccontextmanager
async def open_stream(open_file: Callable[[], IO[AnyStr]]) -> AsyncGenerator[LogStream[AnyStr]]:
    """Open a blocking file in a thread and yield its async form; closed at the end, whatever ends.

    Args:
        open_file: opens it as `text_file` or `binary_file`.
    """
    opening = _Opening(open_file)
    try:
        file = await in_thread(opening.run)
    except BaseException:  # raised again: a cancelled opening may still end, with a file nobody has
        opening.abandon()
        raise
    if isinstance(current_token().native_token, asyncio.AbstractEventLoop):
        adapter = _on_asyncio(file)
    else:
        adapter = _on_trio(file)
    async with adapter as stream:
        yield stream


@asynccontextmanager
async def _on_asyncio(file: IO[AnyStr]) -> AsyncGenerator[LogStream[AnyStr]]:
    # A thread of its own keeps the order of writes, and the close behind them, when a native
    # cancellation leaves one behind; asyncio's shared pool would do neither.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loopledger-log")
    stream = wrap(file, executor=executor)
    try:
        yield stream
    finally:
        # Cancelling what awaits the pool takes a call out of it that has not begun: this one stays.
        closing = asyncio.wrap_future(executor.submit(file.close))
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.shield(closing)
        finally:
            executor.shutdown(wait=False)


@asynccontextmanager
async def _on_trio(file: IO[AnyStr]) -> AsyncGenerator[LogStream[AnyStr]]:
    # Any, as aiofiles': AsyncFile types `write` by what `self` is, which fits no generic protocol.
    stream: Any = anyio.wrap_file(file, limiter=thread_limiter())
    try:
        yield stream
    finally:
        with anyio.CancelScope(shield=True):
            await stream.aclose()


class _Opening(Generic[AnyStr]):
    """A file being opened by a thread that a native cancellation may leave behind."""

    def __init__(self, open_file: Callable[[], IO[AnyStr]]) -> None:
        self._open_file: Callable[[], IO[AnyStr]] = open_file
        self._guard = threading.Lock()
        self._file: IO[AnyStr] | None = None
        self._abandoned = False

    def run(self) -> IO[AnyStr]:
        file = self._open_file()
        with self._guard:
            self._file = file
            if self._abandoned:
                file.close()
        return file

    def abandon(self) -> None:
        with self._guard:
            self._abandoned = True
            if self._file is not None:
                self._file.close()
