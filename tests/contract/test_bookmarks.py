"""Subscribing by the page, and beginning again at a bookmark in another process."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import cast

import anyio
import pytest

import eventstore as es
from eventstore._log._files import Files
from tests._files import FilesAround
from tests.contract._backends import Backend

pytestmark = pytest.mark.anyio

_STUCK_SECONDS = 5.0
FOREIGN = b'{"ts":"2026-11-21T00:00:01.000001Z","type":{"kind":"merge_queued"}}\n'
NOISE = b"this is no event\n"


async def append(store: es.LogStore[es.LoopEvent], first: int, last: int) -> None:
    """Append events one by one."""
    for number in range(first, last + 1):
        event = es.HistoryEvent[es.LoopEvent](es.IterationStarted(iteration=number), data=number)
        await store.append(f"loop-{number % 3}", [event], expected_version=es.ANY)


async def pages_until_caught_up(
    store: es.EventReader[es.LoopEvent],
    after: es.Bookmark | None = None,
    *,
    data: bool = True,
) -> list[es.SubscribedPage[es.LoopEvent]]:
    """What a subscription hands out up to its first word that it has caught up."""
    found: list[es.SubscribedPage[es.LoopEvent]] = []
    with anyio.fail_after(_STUCK_SECONDS):
        async with aclosing(store.subscribe_pages(after=after, data=data)) as pages:
            async for page in pages:
                found.append(page)
                if page.caught_up:
                    break
    return found


def positions(pages: list[es.SubscribedPage[es.LoopEvent]]) -> list[int]:
    """Of all events of some pages."""
    return [recorded.position for page in pages for recorded in page.events]


async def test_pages_hold_what_a_subscription_gives(store: es.LogStore[es.LoopEvent]) -> None:
    """Every event once and in order; the last page is empty, says so, and ends at the end."""
    await append(store, 1, 30)
    *pages, last = await pages_until_caught_up(store)
    assert positions(pages) == list(range(1, 31))
    assert not any(page.caught_up for page in pages)
    assert (tuple(last.events), last.caught_up, last.bookmark.position) == ((), True, 30)


async def test_an_empty_log_is_caught_up_with_at_once(store: es.LogStore[es.LoopEvent]) -> None:
    """Whoever waits for the first word that all is read gets it."""
    (page,) = await pages_until_caught_up(store)
    assert (page.caught_up, page.bookmark.position) == (True, 0)
    assert await store.recognizes(page.bookmark)


async def test_pages_go_on_with_what_comes(store: es.LogStore[es.LoopEvent]) -> None:
    """After it has caught up a subscription waits, and says again when it has."""
    await append(store, 1, 3)
    found: list[int] = []
    with anyio.fail_after(_STUCK_SECONDS):
        async with aclosing(store.subscribe_pages()) as pages:
            async for page in pages:
                found += [recorded.position for recorded in page.events]
                if page.caught_up and len(found) == 3:
                    await append(store, 4, 5)
                elif page.caught_up and len(found) == 5:
                    break
    assert found == [1, 2, 3, 4, 5]


async def test_data_can_be_left_undecoded(store: es.LogStore[es.LoopEvent]) -> None:
    """What nobody looks at need not be decoded."""
    await append(store, 1, 2)
    for data, expected in ((True, [1, 2]), (False, [None, None])):
        pages = await pages_until_caught_up(store, data=data)
        assert [recorded.data for page in pages for recorded in page.events] == expected


async def test_another_process_goes_on_at_a_bookmark(backend: Backend) -> None:
    """Nothing is missed and nothing comes twice, whatever was appended, sealed or adopted since."""
    bookmarks: list[es.Bookmark] = []
    for lap in range(6):
        async with backend.open() as store:
            await append(store, 5 * lap + 1, 5 * lap + 5)
            pages = await pages_until_caught_up(store, bookmarks[-1] if bookmarks else None)
            bookmarks.append(pages[-1].bookmark)
    assert [bookmark.position for bookmark in bookmarks] == [5, 10, 15, 20, 25, 30]
    async with backend.open_reader() as reader:
        for bookmark in bookmarks:
            assert await reader.recognizes(bookmark)
            pages = await pages_until_caught_up(reader, bookmark)
            assert positions(pages) == list(range(bookmark.position + 1, 31))
            assert reader.position == 30


async def test_a_bookmark_may_stand_behind_lines_that_are_not_ours(backend: Backend) -> None:
    """Noise is counted, foreign events keep their numbers, and nothing is shown twice."""
    async with backend.open() as store:
        await append(store, 1, 2)
    bookmarks: list[es.Bookmark] = []
    for added in (FOREIGN, NOISE, FOREIGN + NOISE):
        backend.append_raw(added)
        async with backend.open_reader() as reader:
            bookmarks.append((await pages_until_caught_up(reader))[-1].bookmark)
    backend.append_raw(FOREIGN)
    async with backend.open_reader() as reader:
        everything = await pages_until_caught_up(reader)
        shown = [recorded for page in everything for recorded in page.events]
        assert [(one.position, one.version) for one in shown][2:] == [(3, 1), (5, 3), (7, 5)]
        for bookmark, position in zip(bookmarks, (3, 4, 6), strict=True):
            assert bookmark.position == position
            pages = await pages_until_caught_up(reader, bookmark)
            rest = [recorded for page in pages for recorded in page.events]
            assert rest == [recorded for recorded in shown if recorded.position > position]


class CountedReads(FilesAround):
    """Adds up what is read."""

    read_bytes = 0

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """Read, and count."""
        data = super().pread(handle, size, offset)
        self.read_bytes += len(data)
        return data


async def test_going_on_at_a_bookmark_reads_nothing_of_what_is_before(backend: Backend) -> None:
    """Beside the proof only the tail is read, however long the log is."""
    async with backend.open() as store:
        await append(store, 1, 200)
        bookmark = (await pages_until_caught_up(store))[-1].bookmark
        await append(store, 201, 201)
    files = CountedReads(backend.files)
    async with backend.open_over(cast("Files", files)) as store:
        files.read_bytes = 0
        assert positions(await pages_until_caught_up(store, bookmark)) == [201]
    line = backend.raw().splitlines(keepends=True)[-1]
    assert len(line) < files.read_bytes < 3 * len(line) + 1_000


async def test_a_log_that_was_rolled_back_is_not_recognized(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """A bookmark beyond the end, or of another past, is of no use: nothing is guessed from it."""
    await append(store, 1, 8)
    (*_, last) = await pages_until_caught_up(store)
    async with es.memory_store() as other:
        await append(other, 1, 7)
        assert not await other.recognizes(last.bookmark)
        await append(other, 8, 9)
        assert not await other.recognizes(last.bookmark), "timestamps differ, so the bytes do"
        with pytest.raises(es.BookmarkLostError, match="position 8"):
            await pages_until_caught_up(other, last.bookmark)


async def test_a_changed_foreign_line_is_not_recognized(backend: Backend) -> None:
    """Where no checksum of ours stands, the bytes are summed up."""
    backend.append_raw(FOREIGN * 3)
    async with backend.open_reader() as reader:
        bookmark = (await pages_until_caught_up(reader))[-1].bookmark
        assert await reader.recognizes(bookmark)
        backend.flip_bit(20)
        assert not await reader.recognizes(bookmark)


@pytest.mark.parametrize(
    "proof",
    [
        *("", "1/0/00000000/0/0", "x", "1/5/zz/0/0", "-1/0/00000000/0/0", "9/-5/00000000/0/0"),
        *("1/999999999999999999/00000000/0/0", "1/1/00000000/0/999999999999999999"),
        *("999999999999999999/0/00000000/0/0", "\u0661/0/00000000/0/0", "1/0/00000000/0/0\n"),
    ],
)
async def test_a_made_up_proof_is_not_recognized(
    store: es.LogStore[es.LoopEvent], proof: str
) -> None:
    """A bookmark may come from a file that anybody wrote."""
    await append(store, 1, 3)
    for position in (1, 3, 99, -1, 2**80):
        assert not await store.recognizes(es.Bookmark(position, proof))


async def test_every_changed_character_of_a_proof_is_noticed(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Offset and checksum are compared with the bytes; a nearby place is another one."""
    await append(store, 1, 9)
    bookmark = (await pages_until_caught_up(store))[-1].bookmark
    head = re.match(r"[0-9]+/[0-9]+/[0-9a-f]{8}", bookmark.proof)
    assert head is not None
    for at in range(bookmark.proof.index("/"), head.end()):
        if bookmark.proof[at] != "/":
            changed = "1" if bookmark.proof[at] != "1" else "2"
            proof = f"{bookmark.proof[:at]}{changed}{bookmark.proof[at + 1 :]}"
            assert not await store.recognizes(es.Bookmark(bookmark.position, proof)), proof
