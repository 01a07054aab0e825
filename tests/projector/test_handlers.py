"""Side effects: after the views, and not again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import eventstore as es
import projections as pj
from tests.contract._backends import Backend
from tests.projector._logs import BROKEN, COUNT, append, soon

pytestmark = pytest.mark.anyio


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a handler's place is kept."""
    return tmp_path / "saved"


def noting(
    seen: list[int],
    *,
    from_beginning: bool = True,
    accepts: Callable[[es.Recorded[es.Event]], bool] | None = None,
    breaks_at: int | None = None,
) -> pj.Handler[es.Event]:
    """A handler that notes the positions it is called for."""

    async def handle(recorded: es.Recorded[es.Event]) -> None:
        await anyio.lowlevel.checkpoint()
        if recorded.position == breaks_at:
            raise ConnectionError(breaks_at)
        seen.append(recorded.position)

    return pj.Handler(name="note", handle=handle, accepts=accepts, from_beginning=from_beginning)


async def test_each_event_is_handled_once_over_several_processes(
    backend: Backend, directory: Path
) -> None:
    """The next projector goes on behind the last event that was handled."""
    seen: list[int] = []
    handler = noting(seen)
    async with backend.open() as store:
        for _ in range(3):
            position = await append(store, 4)
            opened = pj.open_projector(store, handlers=[handler], snapshots=directory)
            async with opened as projector:
                with soon():
                    await projector.wait_for(position, handler)
    assert seen == list(range(1, 13))


async def test_a_new_handler_begins_with_what_comes(backend: Backend, directory: Path) -> None:
    """Nobody wants last year's mails again; and that place is kept from the first moment."""
    seen: list[int] = []
    handler = noting(seen, from_beginning=False)
    async with backend.open() as store:
        await append(store, 5)
        async with pj.open_projector(store, handlers=[handler], snapshots=directory):
            pass
        position = await append(store, 2)
        async with pj.open_projector(store, handlers=[handler], snapshots=directory) as projector:
            with soon():
                await projector.wait_for(position, handler)
    assert seen == [6, 7]


async def test_a_handler_sees_views_that_include_its_event(
    backend: Backend, directory: Path
) -> None:
    """A side effect follows the state, never the other way round."""
    counts: list[tuple[int, int]] = []
    projectors: list[pj.Projector[es.LoopEvent]] = []

    async def handle(recorded: es.Recorded[es.Event]) -> None:
        view = projectors[0].view(COUNT)
        counts.append((recorded.position, sum(one.state for one in view.values())))
        await anyio.lowlevel.checkpoint()

    handler = pj.Handler[es.Event](name="look", handle=handle)
    async with backend.open() as store:
        opened = pj.open_projector(store, COUNT, BROKEN, handlers=[handler], snapshots=directory)
        async with opened as projector:
            projectors.append(projector)
            with soon():
                await projector.wait_for(await append(store, 9), handler)
    assert [position for position, _ in counts] == list(range(1, 10))
    assert all(count >= position for position, count in counts)


async def test_only_what_a_handler_accepts_is_handled(backend: Backend, directory: Path) -> None:
    """The rest moves its checkpoint all the same."""
    seen: list[int] = []
    handler = noting(seen, accepts=lambda recorded: recorded.position % 4 == 0)
    async with backend.open() as store:
        opened = pj.open_projector(store, handlers=[handler], snapshots=directory)
        async with opened as projector:
            with soon():
                await projector.wait_for(await append(store, 10), handler)
            assert projector.status(handler).lag == 0
    assert seen == [4, 8]


async def test_a_handler_that_raises_stops_alone_and_begins_there_again(
    backend: Backend, directory: Path
) -> None:
    """The event it could not handle is the next process's first."""
    seen: list[int] = []
    async with backend.open() as store:
        position = await append(store, 6)
        broken = noting(seen, breaks_at=4)
        opened = pj.open_projector(store, COUNT, handlers=[broken], snapshots=directory)
        async with opened as projector:
            with soon():
                await projector.wait_for(position)
                with pytest.raises(pj.ProjectionFailedError, match="handler 'note' stopped at"):
                    await projector.wait_for(position, broken)
            assert projector.status(broken).checkpoint == 3
        mended = noting(seen)
        async with pj.open_projector(store, handlers=[mended], snapshots=directory) as projector:
            with soon():
                await projector.wait_for(position, mended)
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_a_rebuild_handles_nothing_again(backend: Backend, directory: Path) -> None:
    """States are computed again, effects are not."""
    seen: list[int] = []
    handler = noting(seen)
    async with backend.open() as store:
        position = await append(store, 5)
        opened = pj.open_projector(store, COUNT, handlers=[handler], snapshots=directory)
        async with opened as projector:
            with soon():
                await projector.wait_for(position, handler)
                async for _ in projector.rebuild(COUNT):
                    pass
                await projector.wait_for(await append(store, 1), handler)
    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("end", ["left", "killed"])
async def test_a_handler_never_begins_again_on_another_log(directory: Path, end: str) -> None:
    """Where the log was rolled back it stops and says so: it cannot know what it has done."""
    seen: list[int] = []
    handler = noting(seen)
    async with es.memory_store() as store:
        position = await append(store, 5)
        opened = pj.open_projector(store, handlers=[handler], snapshots=directory)
        async with opened as projector:
            await projector.wait_for(position, handler)
            shutil.copytree(directory, directory.parent / "killed")
    directory = directory.parent / "killed" if end == "killed" else directory
    for count in (3, 8):
        async with es.memory_store() as other:
            await append(other, count)
            opened = pj.open_projector(other, handlers=[handler], snapshots=directory)
            async with opened as projector:
                with soon(), pytest.raises(pj.ProjectionFailedError, match="rolled back"):
                    await projector.wait_for(9, handler)
    assert seen == [1, 2, 3, 4, 5]


async def test_a_handler_whose_place_cannot_be_kept_stops(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a crash would do again everything since."""
    caplog.set_level(logging.CRITICAL, logger="projections")
    seen: list[int] = []
    handler = noting(seen)
    (tmp_path / "file").touch()
    async with backend.open() as store:
        position = await append(store, 3)
        opened = pj.open_projector(store, handlers=[handler], snapshots=tmp_path / "file" / "x")
        async with opened as projector:
            with soon(), pytest.raises(pj.ProjectionFailedError, match="could not be saved"):
                await projector.wait_for(position, handler)
    assert seen == []


async def test_a_handler_needs_a_place_to_remember(backend: Backend) -> None:
    """Without one it would do everything again in every process."""
    async with backend.open() as store:
        with pytest.raises(ValueError, match="needs snapshots"):
            async with pj.open_projector(store, handlers=[noting([])]):
                pass


async def test_an_effect_that_was_done_is_known_to_be_done_though_the_block_ended(
    backend: Backend, directory: Path
) -> None:
    """Leaving the block cancels a handler between two events or inside one, never in between."""
    seen: list[int] = []
    handler = noting(seen)
    async with backend.open() as store:
        await append(store, 6)
        while len(seen) < 6:
            before = len(seen)
            opened = pj.open_projector(store, handlers=[handler], snapshots=directory)
            async with opened:
                with soon():
                    while len(seen) == before:
                        await anyio.lowlevel.checkpoint()
    assert seen == [1, 2, 3, 4, 5, 6]
