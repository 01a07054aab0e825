"""Side effects: an async function called for events, after the views include them.

A handler's place in the log is saved after each call, before the next one. So a rebuild calls
nothing again, and after a crash at most the one event at hand is handled again: a file and a mail
server have no transaction in common. Whoever must not do a thing twice has the event's position to
tell by, or keeps it in a read model, whose effects are exactly once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final, Generic, TypeVar

import anyio.to_thread

from eventstore import Bookmark, BookmarkLostError, Event, EventReader, Recorded
from projections._bell import Bell
from projections._projection import E_contra, Loaded
from projections._projector_errors import ProjectionFailedError
from projections._snapshots import Saved, Snapshots
from projections._threads import finish_in_thread

__all__ = ["Handler", "HandlerRunner"]

E = TypeVar("E", bound=Event)

_HANDLED: Final = "handled"


class Handler(Generic[E_contra]):
    """A named side effect.

    Args:
        name: what its place in the log is saved under, unique among yours.
        handle: called with one event at a time, in log order. If it raises, the handler stops;
            the next process begins with the same event.
        accepts: which events it is for; all unless given. Pure.
        from_beginning: whether a handler that was never seen before begins with the log's first
            event. Otherwise it begins with the next one: nobody wants last year's mails again.
    """

    __slots__ = ("accepts", "from_beginning", "handle", "name")

    def __init__(
        self,
        *,
        name: str,
        handle: Callable[[Recorded[E_contra]], Awaitable[None]],
        accepts: Callable[[Recorded[E_contra]], bool] | None = None,
        from_beginning: bool = False,
    ) -> None:
        self.name: Final = name
        self.handle: Final = handle
        self.accepts: Final = accepts
        self.from_beginning: Final = from_beginning

    def __repr__(self) -> str:
        return f"<handler {self.name!r}>"


class HandlerRunner(Generic[E]):
    """Follows the log for one handler, at its own pace.

    Args:
        store: the log.
        handler: what to call.
        snapshots: where its place is kept.
        bell: rung when it has got further.
        views_reached: whether every view includes a position.
    """

    revision: Final = 1

    def __init__(
        self,
        store: EventReader[E],
        handler: Handler[E],
        snapshots: Snapshots,
        bell: Bell,
        views_reached: Callable[[int], bool],
    ) -> None:
        self.name = handler.name
        self.failure: ProjectionFailedError | None = None
        self._store = store
        self._handler = handler
        self._snapshots = snapshots
        self._bell = bell
        self._views_reached = views_reached
        self._bookmark: Bookmark | None = None  # of a page's end
        self._handled = 0  # perhaps in the middle of the next page
        self._found = 0  # what was kept by another process
        self._kept: Bookmark | None = None

    @property
    def position(self) -> int:
        """How far into the log it has handled what is for it."""
        return self._handled

    async def begin(self) -> None:
        """Find its place; keep where a new one begins, so that a crash does not move it."""
        saves = self._snapshots.load(self._key, int)
        saved = await anyio.to_thread.run_sync(lambda: next(saves, None))
        if saved is not None and _HANDLED in saved.states:
            self._bookmark = saved.bookmark if saved.bookmark.proof else None
            self._handled = self._found = saved.states[_HANDLED].state
            self._kept = self._bookmark
        else:
            self._handled = 0 if self._handler.from_beginning else self._store.position
            await self._keep()

    async def run(self) -> None:
        """Handle what is there and what comes; return when it has failed."""
        try:
            async with aclosing(self._store.subscribe_pages(after=self._bookmark)) as pages:
                async for page in pages:
                    for recorded in page.events:
                        if recorded.position > self._handled and not await self._take(recorded):
                            return
                    if page.caught_up and page.bookmark.position < self._found:
                        self._lose_place()
                        return
                    if not await self._end_page(page.bookmark):
                        return
        except BookmarkLostError:
            self._lose_place()

    async def save(self) -> None:
        """Keep how far it has got, where nothing was to be handled."""
        if self.failure is None and self._bookmark != self._kept:
            await self._keep()

    @property
    def _key(self) -> str:
        return f"handler {self.name}"

    async def _take(self, recorded: Recorded[E]) -> bool:
        """Handle one event; False if that has failed."""
        handler = self._handler
        try:
            if handler.accepts is not None and not handler.accepts(recorded):
                return True
            await self._bell.wait_until(lambda: self._views_reached(recorded.position))
            await handler.handle(recorded)
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises stops it alone
            self._fail(recorded.position, error)
            return False
        self._handled = recorded.position
        return await self._keep()

    async def _end_page(self, bookmark: Bookmark) -> bool:
        """Go on behind a page; False if that could not be kept."""
        # With the page's own bookmark a later process can tell this log from another one.
        handled = self._handled > (0 if self._bookmark is None else self._bookmark.position)
        self._bookmark = bookmark
        self._handled = max(self._handled, bookmark.position)
        if handled and not await self._keep():
            return False
        self._bell.ring()
        return True

    async def _keep(self) -> bool:
        bookmark = self._bookmark or Bookmark(0, "")
        saved = Saved(self.revision, bookmark, {_HANDLED: Loaded(self._handled, 0, self._handled)})
        # What was done must be known to be done, also if the caller is being cancelled.
        kept = await finish_in_thread(self._snapshots.save, self._key, int, saved)
        if kept:
            self._kept = self._bookmark
        else:  # the next crash would do again more than one event
            self._fail(self._handled, OSError("its place in the log could not be saved"))
        return kept

    def _lose_place(self) -> None:
        """The log is another one now; to begin again would do everything again."""
        lost = BookmarkLostError(path=self._key, position=self._handled)
        self._fail(self._handled, lost)

    def _fail(self, position: int, cause: Exception) -> None:
        self.failure = ProjectionFailedError(
            name=self.name, position=position, cause=cause, what="handler"
        )
        self._bell.ring()
