"""Reading a log: iterators for callers, folds in a worker thread."""

from __future__ import annotations

import logging
import operator
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from eventstore._claims import Ownership
from eventstore._codec import Codec
from eventstore._errors import BookmarkLostError, StoreUnavailableError
from eventstore._events import MAIN_STREAM, E, Recorded
from eventstore._log._bookmarks import bookmark_at, prove
from eventstore._log._claim_files import look_at_claims
from eventstore._log._files import Files
from eventstore._log._log_files import LogFiles
from eventstore._log._names import LogNames
from eventstore._log._reading import HEAD, Beginning, ForwardCursor
from eventstore._log._reading_backwards import BackwardCursor, ends_in_foreign_line
from eventstore._log._snapshot import Snapshot, SnapshotTaker
from eventstore._log._stream_reading import StreamCursor, UntrueIndexError, find_stream
from eventstore._store import Bookmark, Page, SubscribedPage

__all__ = ["LogReader"]

_POLL_SECONDS: Final = 0.025  # how soon a subscriber sees what another process appended
_READ_THREADS: Final = 4

T = TypeVar("T")

_logger: Final = logging.getLogger("eventstore")


class LogReader(Generic[E]):
    """A log opened for reading: takes no lock for what is known to be durable, writes nothing."""

    def __init__(
        self, files: Files, names: LogNames, codec: Codec[E], *, lock_timeout_seconds: float
    ) -> None:
        self._taker = SnapshotTaker(files, names, lock_timeout_seconds=lock_timeout_seconds)
        self._log = LogFiles(files, names, codec)
        self._files = files
        self._names = names
        self._limiter = anyio.CapacityLimiter(_READ_THREADS)
        self._appended: anyio.Event | None = None  # made by the subscriber that waits for it
        self._position = 0

    @property
    def position(self) -> int:
        """The log's position when it was opened: how many lines it held. No I/O.

        0 also where lines of a foreign writer end the log: they have no numbers to tell by.
        """
        return self._position

    async def version(self, stream: str) -> int:
        """How many events the stream holds now, 0 for one that does not exist."""

        def newest(pages: Iterator[Page[E]]) -> int:
            return next((recorded.version for page in pages for recorded in page), 0)

        if stream == MAIN_STREAM:
            return await self._in_thread(self._main_version)
        return await self.scan(newest, stream=stream, backwards=True, data=False)

    # Plain functions: an iterator around another would leave that one unclosed, as trio reports.

    def read(
        self,
        stream: str,
        *,
        after_version: int = 0,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[Recorded[E]]:
        """Iterate the events a stream holds now; see `EventReader.read`."""
        return self._iterate(stream, after_version, limit, backwards=backwards)

    def read_all(
        self, *, after_position: int = 0, backwards: bool = False, limit: int | None = None
    ) -> AsyncIterator[Recorded[E]]:
        """Iterate the events of all streams that the log holds now; see `EventReader.read_all`."""
        return self._iterate(None, after_position, limit, backwards=backwards)

    async def subscribe(self, *, after_position: int = 0) -> AsyncIterator[Recorded[E]]:
        """Iterate the log's events and then those to come; see `EventReader.subscribe`."""
        following = _Following(ForwardCursor(self._log, tail_record=False))
        while True:
            page = await self._next_page(following)
            for recorded in page.events:
                if recorded.position > after_position:
                    yield recorded

    async def subscribe_pages(
        self, *, after: Bookmark | None = None, data: bool = True
    ) -> AsyncGenerator[SubscribedPage[E], None]:
        """Iterate pages of events and then those to come; see `EventReader.subscribe_pages`."""
        beginning = HEAD if after is None else await self._in_thread(self._prove, after)
        if beginning is None:
            assert after is not None
            path = self._files.path(self._names.active)
            raise BookmarkLostError(path=path, position=after.position)
        cursor = ForwardCursor(self._log, data=data, tail_record=False, beginning=beginning)
        following = _Following(cursor)
        while True:
            yield await self._next_page(following)

    async def recognizes(self, bookmark: Bookmark) -> bool:
        """Say whether this is the log of a bookmark; see `EventReader.recognizes`."""
        return await self._in_thread(self._prove, bookmark) is not None

    async def scan(
        self,
        work: Callable[[Iterator[Page[E]]], T],
        *,
        stream: str | None = None,
        after: int = 0,
        backwards: bool = False,
        data: bool = True,
        numbers: bool = True,
    ) -> T:
        """Run a fold in a worker thread, over pages of events; see `EventReader.scan`."""

        def run() -> T:
            pages = self._pages(
                self._taker.take(), stream, after, backwards=backwards, data=data, numbers=numbers
            )
            return work(_cancellable(pages))

        # Not `_in_thread`: an error of the disk in `work` is the caller's own.
        return await anyio.to_thread.run_sync(run, limiter=self._limiter)

    async def owners(self, streams: Iterable[str]) -> Mapping[str, Ownership]:
        """Look who drives these streams, or drove them last; see `OwnerReader.owners`."""
        return await self._in_thread(look_at_claims, self._files, self._names, tuple(streams))

    async def _iterate(
        self, stream: str | None, after: int, limit: int | None, *, backwards: bool
    ) -> AsyncIterator[Recorded[E]]:
        left = limit
        if left is not None and left <= 0:
            return
        snapshot = await self._in_thread(self._taker.take)
        pages = self._pages(snapshot, stream, after, backwards=backwards, data=True, numbers=True)
        while (page := await self._in_thread(lambda: next(pages, None))) is not None:
            for recorded in page:
                yield recorded
                if left is not None:
                    left -= 1
                    if not left:
                        return

    def _pages(
        self,
        snapshot: Snapshot,
        stream: str | None,
        after: int,
        *,
        backwards: bool,
        data: bool,
        numbers: bool,
    ) -> Iterator[Page[E]]:
        """The pages of a snapshot, only those events that are asked for."""
        try:
            if stream is not None:
                yield from self._stream_pages(
                    snapshot, stream, after, backwards=backwards, data=data, numbers=numbers
                )
            else:
                yield from _wanted(
                    self._everything(snapshot, backwards=backwards, data=data, numbers=numbers),
                    operator.attrgetter("position"),
                    after=after,
                    backwards=backwards,
                )
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> StoreUnavailableError:
        path = error.filename or self._files.path(self._names.active)
        reason = f"{error.strerror or error}; it cannot be read"
        return StoreUnavailableError(path=path, reason=reason)

    def _stream_pages(
        self,
        snapshot: Snapshot,
        stream: str,
        after: int,
        *,
        backwards: bool,
        data: bool,
        numbers: bool,
    ) -> Iterator[Page[E]]:
        before: int | None = None
        found = find_stream(self._log, snapshot, stream)
        if found is not None:
            cursor = StreamCursor(self._log, snapshot, stream, found, data=data)
            try:
                for page in cursor.pages(after, backwards=backwards):
                    yield page
                    if backwards:
                        before = page[-1].version
                    else:
                        after = page[-1].version
            except UntrueIndexError:
                _logger.warning(
                    "%s: the index does not fit the log; reading on without it",
                    self._files.path(self._names.cache),
                )
            else:
                return
        everything = self._everything(snapshot, backwards=backwards, data=data, numbers=numbers)
        of_stream = (
            [
                recorded
                for recorded in page
                if recorded.stream == stream and (before is None or recorded.version < before)
            ]
            for page in everything
        )
        yield from _wanted(
            of_stream, operator.attrgetter("version"), after=after, backwards=backwards
        )

    def _everything(
        self, snapshot: Snapshot, *, backwards: bool, data: bool, numbers: bool
    ) -> Iterator[Page[E]]:
        if backwards:
            return BackwardCursor(self._log, snapshot, data=data, numbers=numbers).pages()
        return ForwardCursor(self._log, data=data).pages(snapshot)

    async def _next_page(self, following: _Following[E]) -> SubscribedPage[E]:
        """Read the next page, or wait for one; say once when nothing more is there.

        No generator, so that a subscription is the only one, and closing it leaves none open.
        """
        while following.snapshot is None:
            # Taken before looking: what comes later sets this one.
            appended = self._appended = self._appended or anyio.Event()
            if following.seen is None or self._has_grown(following.seen):
                snapshot = await self._in_thread(self._taker.take)
                if snapshot.end != following.seen:
                    self._refuse_cut(following.cursor.reached, snapshot)
                    following.seen = snapshot.end
                    following.snapshot = snapshot
                    break
            assert following.seen is not None
            await self._wait_for_growth(appended, following.seen)
        pages = following.cursor.pages(following.snapshot)
        page = await self._in_thread(lambda: next(pages, None))
        bookmark = bookmark_at(following.cursor.reached)
        if page is None:
            following.snapshot = None
            self._position = max(self._position, bookmark.position)
        return SubscribedPage(page or (), bookmark, caught_up=page is None)

    def _refuse_cut(self, reached: Beginning, snapshot: Snapshot) -> None:
        """End a subscription whose log no longer has what was given out: more cannot follow it.

        Recovery never cuts what is settled, so this was done from outside.
        """
        place, segments = reached.place, snapshot.segments
        if place.offset and (
            reached.segment >= len(segments) or place.offset > segments[reached.segment].end
        ):
            path = self._files.path(self._names.active)
            raise BookmarkLostError(path=path, position=place.position)

    async def _wait_for_growth(self, appended: anyio.Event, seen: tuple[int, int, int]) -> None:
        """Wait for an append in this process, or until it is worth looking what others did.

        On asyncio a timer looks, because waking a task for each look takes twice as long.
        """
        loop = anyio.lowlevel.current_token().native_token
        call_later: Callable[..., Any] | None = getattr(loop, "call_later", None)
        if call_later is None:  # trio
            with anyio.move_on_after(_POLL_SECONDS):
                await appended.wait()
            return

        timer: Any = None

        def look() -> None:
            nonlocal timer
            try:
                has_grown = self._has_grown(seen)
            except Exception:  # noqa: BLE001 - whoever waits looks too, and raises it there
                has_grown = True
            if has_grown:
                self._wake_subscribers()
            else:
                timer = call_later(_POLL_SECONDS, look)

        timer = call_later(_POLL_SECONDS, look)
        try:
            await appended.wait()
        finally:
            timer.cancel()

    def _wake_subscribers(self) -> None:
        if self._appended is not None:
            self._appended.set()
            self._appended = None

    def _has_grown(self, seen: tuple[int, int, int]) -> bool:
        """Look from the event loop: one `stat` of a kept inode, where a thread costs a hundred."""
        try:
            return self._taker.has_grown(seen)
        except OSError as error:
            raise self._unreadable(error) from error

    def _prove(self, bookmark: Bookmark) -> Beginning | None:
        return prove(self._log, self._taker.take(), bookmark)

    def _main_version(self) -> int:
        cursor = ForwardCursor(self._log, data=False)
        for _ in cursor.pages(self._taker.take()):
            anyio.from_thread.check_cancelled()
        return cursor.main_version

    def _look_at_end(self) -> None:
        """Learn the position at opening."""
        snapshot = self._taker.take()
        if snapshot.position is not None:
            self._position = snapshot.position
            return
        # Lines of a foreign writer at the end do not tell: counting them would read all of it.
        if not snapshot.segments or ends_in_foreign_line(self._log, snapshot):
            return
        for page in BackwardCursor(self._log, snapshot, data=False, numbers=False).pages():
            self._position = page[0].position
            return

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Run something of ours, which may touch the disk."""
        try:
            return await anyio.to_thread.run_sync(work, *args, limiter=self._limiter)
        except OSError as error:
            raise self._unreadable(error) from error


class _Following(Generic[E]):
    """What a subscription has read, and what it reads now."""

    def __init__(self, cursor: ForwardCursor[E]) -> None:
        self.cursor = cursor
        self.snapshot: Snapshot | None = None
        self.seen: tuple[int, int, int] | None = None


def _wanted(
    pages: Iterable[Page[E]],
    number: Callable[[Recorded[E]], int],
    *,
    after: int,
    backwards: bool,
) -> Iterator[Page[E]]:
    """Leave out the events up to a number, and pages without events."""
    for page in pages:
        if not page:
            continue
        if not after:
            yield page
            continue
        wanted = [recorded for recorded in page if number(recorded) > after]
        if wanted:
            yield wanted
        if backwards and number(page[-1]) <= after:
            return


def _cancellable(pages: Iterator[T]) -> Iterator[T]:
    """Let a fold end between two pages when its caller was cancelled."""
    for page in pages:
        anyio.from_thread.check_cancelled()
        yield page
