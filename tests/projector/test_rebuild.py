"""Building anew, beside the views, and in place of them at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

import eventstore as es
import projections as pj
from projections import _rebuild
from projections._projector import Projector
from tests.contract._backends import Backend
from tests.projector._logs import COUNT, append, counting, folded, soon

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step for every few events, saved after every step."""
    monkeypatch.setattr(_rebuild, "_STEP_EVENTS", 5)
    monkeypatch.setattr(_rebuild, "_KEEP_EVENTS", 1)
    monkeypatch.setattr("eventstore._log._reading.CHUNK_BYTES", 1_500)


class Switch:
    """A projection whose code can be changed while it runs, as a bug that is found."""

    step = 1
    breaks_at = 0

    def __init__(self, name: str = "switch", revision: int = 1) -> None:
        self.positions: list[int] = []
        self.projection: pj.Projection[int, es.Event] = pj.Projection(
            name=name, initial=0, evolve=self._evolve, revision=revision, data=False
        )

    def _evolve(self, state: int, recorded: es.Recorded[es.Event]) -> int:
        self.positions.append(recorded.position)
        if recorded.position == self.breaks_at:
            raise ArithmeticError(recorded.position)
        return state + self.step


def sqlite(path: Path, apply: Callable[..., None]) -> pj.SqliteReadModel[es.LoopEvent]:
    """A read model without tables."""
    return pj.sqlite_read_model(path, name="sqlite", schema=[], apply=apply)


async def test_readers_see_the_old_view_until_the_new_one_is_whole(backend: Backend) -> None:
    """Progress grows to the total; the last word is that readers see it."""
    switch = Switch()
    async with backend.open() as store:
        position = await append(store, 40, streams=1)
        async with pj.open_projector(store, switch.projection) as projector:
            with soon():
                await projector.wait_for(position)
                switch.step = 100
                seen: list[tuple[bool, int]] = []
                found: list[pj.Progress] = []
                async for progress in projector.rebuild(switch.projection):
                    found.append(progress)
                    state = projector.view(switch.projection)["loop-0"].state
                    seen.append((progress.is_done, state))
            assert len(found) > 2
            assert seen == [(False, 40)] * (len(found) - 1) + [(True, 4_000)]
            assert [one.position for one in found] == sorted(one.position for one in found)
            assert (found[-1].position, found[-1].total, found[-1].events) == (40, 40, 40)
            assert all(one.total == 40 and one.seconds > 0 for one in found)
            assert found[0].events_per_second > 0
            assert found[0].eta_seconds > found[-1].eta_seconds == 0


async def test_several_are_rebuilt_in_one_pass(backend: Backend) -> None:
    """Each event is read once for all of them."""
    one, other = Switch("one"), Switch("other")
    async with backend.open() as store:
        position = await append(store, 20, streams=1)
        projections: list[pj.Projection[Any, es.Event]]
        projections = [one.projection, other.projection, pj.REGISTRY]
        async with pj.open_projector(store, *projections) as projector:
            with soon():
                await projector.wait_for(position)
                one.positions.clear()
                last = [progress async for progress in projector.rebuild()][-1]
                assert (last.events, one.positions) == (20, list(range(1, 21)))
            for projection in projections:
                assert dict(projector.view(projection)) == await folded(store, projection)


async def test_a_rebuild_is_done_when_readers_see_the_whole_log(backend: Backend) -> None:
    """Also where the view it replaces had not caught up yet."""
    async with backend.open() as store:
        await append(store, 40)
        async with pj.open_projector(store, COUNT) as projector:
            with soon():
                async for _ in projector.rebuild(COUNT):
                    pass
            assert projector.view(COUNT).position == 40


async def test_events_that_come_during_a_rebuild_are_in_both_views(backend: Backend) -> None:
    """The old view goes on, and the new one is never behind it when they change places."""
    switch = Switch()
    async with backend.open() as store:
        await append(store, 40, streams=1)
        async with pj.open_projector(store, switch.projection, COUNT) as projector:
            with soon():
                switch.step = 2
                turns = 0
                async for progress in projector.rebuild(switch.projection):
                    turns += 1
                    before = projector.view(switch.projection).position
                    if turns < 8:
                        await projector.wait_for(await append(store, 1, streams=1))
                        assert projector.view(switch.projection).position > before
                    assert progress.position <= progress.total
                await projector.wait_for(await append(store, 1, streams=1))
            assert turns > 2
            view = projector.view(switch.projection)
            assert view["loop-0"].state == 2 * view["loop-0"].position
            assert dict(projector.view(COUNT)) == await folded(store, COUNT)


async def test_a_view_never_goes_back(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes between the last step and the swap is in the view before and after it."""
    async with backend.open() as store:
        await append(store, 10)
        async with pj.open_projector(store, COUNT) as projector:
            finish = cast("Any", pj.Rebuild)._finish

            async def late(self: Any, builds: Any) -> None:
                await projector.wait_for(await append(store, 3))
                await finish(self, builds)

            monkeypatch.setattr(pj.Rebuild, "_finish", late)
            with soon():
                async for _ in projector.rebuild(COUNT):
                    pass
                assert projector.view(COUNT).position == 13
                await projector.wait_for(await append(store, 1))
            assert dict(projector.view(COUNT)) == await folded(store, COUNT)


@pytest.mark.parametrize("way", ["break", "cancel"])
async def test_a_rebuild_that_was_broken_off_goes_on(backend: Backend, way: str) -> None:
    """Readers keep the old view; the next rebuild folds no event twice."""
    switch = Switch()
    async with backend.open() as store:
        position = await append(store, 40, streams=1)
        async with pj.open_projector(store, switch.projection) as projector:
            with soon():
                await projector.wait_for(position)
                switch.step = 7
                switch.positions.clear()
                with anyio.CancelScope() as scope:
                    async for _ in projector.rebuild(switch.projection):
                        if way == "break":
                            break
                        scope.cancel()
                assert projector.view(switch.projection)["loop-0"].state == 40
                async for _ in projector.rebuild(switch.projection):
                    pass
            assert projector.view(switch.projection)["loop-0"].state == 280
            assert switch.positions == list(range(1, 41))


async def test_a_rebuild_can_begin_anew(backend: Backend) -> None:
    """What is half built may be of code that was wrong."""
    switch = Switch()
    async with backend.open() as store:
        position = await append(store, 30, streams=1)
        async with pj.open_projector(store, switch.projection) as projector:
            with soon():
                await projector.wait_for(position)
                switch.step = 7
                async for _ in projector.rebuild(switch.projection):
                    break
                switch.step = 3
                async for _ in projector.rebuild(switch.projection, resume=False):
                    pass
            assert projector.view(switch.projection)["loop-0"].state == 90


async def test_another_process_goes_on_with_a_rebuild(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half built is saved when the projector ends, and removed once readers see it."""
    monkeypatch.setattr(_rebuild, "_KEEP_EVENTS", 1_000_000)
    saved = tmp_path / "saved"
    switch = Switch()
    async with backend.open() as store:
        position = await append(store, 40, streams=1)
        half = 0
        for lap in range(3):
            opened = pj.open_projector(store, switch.projection, snapshots=saved)
            async with opened as projector:
                with soon():
                    await projector.wait_for(position)
                    switch.step = 5
                    switch.positions.clear()
                    async for _ in projector.rebuild(switch.projection):
                        if lap < 2:
                            break
                assert switch.positions[0] == half + 1
                half = switch.positions[-1]
        assert half == 40
        async with pj.open_projector(store, switch.projection, snapshots=saved) as projector:
            assert projector.view(switch.projection)["loop-0"].state == 200
    assert not [path for path in saved.iterdir() if path.name.startswith("half")]


async def test_a_rebuild_of_a_failed_projection_starts_it_again(backend: Backend) -> None:
    """The reason was in the state or the world, and it is gone."""
    switch = Switch()
    switch.breaks_at = 6
    async with backend.open() as store:
        position = await append(store, 10, streams=1)
        async with pj.open_projector(store, switch.projection, COUNT) as projector:
            with soon():
                await projector.wait_for(position, COUNT)
                with pytest.raises(pj.ProjectionFailedError):
                    await projector.wait_for(position)
                switch.breaks_at = 0
                async for _ in projector.rebuild(switch.projection):
                    pass
                await projector.wait_for(await append(store, 2, streams=1))
            assert dict(projector.view(switch.projection)) == await folded(store, COUNT)


async def test_what_cannot_be_rebuilt_is_said_at_the_end_and_the_others_are(
    backend: Backend,
) -> None:
    """The view of the one that fails stays; no progress bar hides it."""
    switch = Switch()
    async with backend.open() as store:
        position = await append(store, 30, streams=1)
        async with pj.open_projector(store, switch.projection, COUNT) as projector:
            with soon():
                await projector.wait_for(position)
                before = projector.view(switch.projection)
                switch.breaks_at = 3
                found: list[pj.Progress] = []

                async def rebuild() -> None:
                    found.extend([one async for one in projector.rebuild()])

                with pytest.raises(pj.ProjectionFailedError, match="position 3"):
                    await rebuild()
                switch.breaks_at = 0
                await projector.wait_for(await append(store, 1, streams=1))
            assert projector.view(switch.projection)["loop-0"].state == before["loop-0"].state + 1
            assert dict(projector.view(COUNT)) == await folded(store, COUNT)


async def test_a_later_rebuild_takes_over(backend: Backend) -> None:
    """Two at once would build the same thing twice; the first one says so and stops."""
    async with backend.open() as store:
        position = await append(store, 30, streams=1)
        async with pj.open_projector(store, COUNT) as projector:
            with soon():
                await projector.wait_for(position)
                first = projector.rebuild(COUNT)
                await anext(first)
                last = [progress async for progress in projector.rebuild(COUNT)][-1]
                assert last.is_done
                with pytest.raises(pj.RebuildLostError, match="'count'"):
                    await anext(first)
            assert dict(projector.view(COUNT)) == await folded(store, COUNT)


async def test_a_rebuild_of_an_empty_log_is_done_at_once(backend: Backend) -> None:
    """There is nothing to read, and nothing to divide by."""
    async with backend.open() as store, pj.open_projector(store, COUNT) as projector:
        with soon():
            (progress,) = [one async for one in projector.rebuild()]
        assert (progress.is_done, progress.total, progress.eta_seconds) == (True, 0, 0.0)


async def test_a_rebuild_of_nothing_is_done_at_once(backend: Backend, tmp_path: Path) -> None:
    """A projector with handlers only, or with nothing, has nothing that lags behind the log."""

    async def handle(_: es.Recorded[es.Event]) -> None: ...

    handler = pj.Handler(name="nothing", handle=handle)
    async with backend.open() as store:
        await append(store, 3)
        for handlers in ([], [handler]):
            opened = pj.open_projector(store, handlers=handlers, snapshots=tmp_path / "saved")
            async with opened as projector:
                with soon():
                    (progress,) = [one async for one in projector.rebuild()]
                assert (progress.is_done, progress.events, progress.eta_seconds) == (True, 0, 0.0)
                assert progress.position == progress.total == 3


async def test_a_handler_is_no_thing_to_rebuild(backend: Backend, tmp_path: Path) -> None:
    """It would call it again for everything; that is refused, not passed over."""

    async def handle(_: es.Recorded[es.Event]) -> None: ...

    handler: Any = pj.Handler(name="mails", handle=handle)
    async with backend.open() as store:
        opened = pj.open_projector(store, COUNT, handlers=[handler], snapshots=tmp_path / "saved")
        async with opened as projector:
            with pytest.raises(TypeError, match="'mails' is a handler"):
                projector.rebuild(COUNT, handler)


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_rebuild_ends_with_the_projector(
    backend: Backend, tmp_path: Path, turns: int
) -> None:
    """Nobody would save or close what it opened."""
    model = sqlite(tmp_path / "a.db", lambda *_: None)
    async with backend.open() as store:
        position = await append(store, 30)
        async with pj.open_projector(store, COUNT, read_models=[model]) as projector:
            with soon():
                await projector.wait_for(position)
                rebuilds = [projector.rebuild(COUNT), projector.rebuild(model)]
                for rebuild in rebuilds:
                    for _ in range(turns):
                        assert not (await anext(rebuild)).is_done
        for rebuild in rebuilds:
            with pytest.raises(pj.ProjectorClosedError, match="the rebuild is not done"):
                await anext(rebuild)


async def test_a_rebuild_that_is_done_stays_done_when_the_projector_has_ended(
    backend: Backend,
) -> None:
    """Its iterator ends as any other."""
    async with backend.open() as store:
        async with pj.open_projector(store, COUNT) as projector:
            with soon():
                rebuild = projector.rebuild()
                assert (await anext(rebuild)).is_done
        assert [progress async for progress in rebuild] == []


async def test_a_projector_ends_after_the_step_of_a_rebuild(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes no database that a thread is at work in."""
    monkeypatch.setattr(_rebuild, "_STEP_EVENTS", 1_000)
    is_rebuilding = False
    entered, gate = threading.Event(), threading.Event()

    def apply(*_: object) -> None:
        if is_rebuilding:
            entered.set()
            assert gate.wait(10)

    async def rebuild(projector: Projector[es.LoopEvent]) -> None:
        (progress,) = [one async for one in projector.rebuild()]
        assert progress.is_done

    async def open_gate() -> None:
        await anyio.wait_all_tasks_blocked()
        gate.set()

    model = sqlite(tmp_path / "a.db", apply)
    async with backend.open() as store:
        position = await append(store, 30)
        with soon():
            async with (
                anyio.create_task_group() as tasks,
                pj.open_projector(store, read_models=[model]) as projector,
            ):
                await projector.wait_for(position)
                is_rebuilding = True
                tasks.start_soon(rebuild, projector)
                assert await anyio.to_thread.run_sync(entered.wait, 10)
                tasks.start_soon(open_gate)  # it waits until this block waits for its end


async def test_a_rebuild_cancelled_anywhere_gives_what_an_undisturbed_one_gives(
    backend: Backend, tmp_path: Path
) -> None:
    """A hundred cancellations at random moments, some with a new projector after them."""
    generator = random.Random(11)
    switch = Switch()
    async with backend.open() as store:
        await append(store, 60)
        expected: dict[str, Any] = {}
        cancelled = 0
        while cancelled < 100:
            opened = pj.open_projector(
                store, switch.projection, COUNT, snapshots=tmp_path / "saved"
            )
            async with opened as projector:
                with soon():
                    await projector.wait_for(store.position)
                for _ in range(generator.randrange(1, 8)):
                    with anyio.move_on_after(generator.random() * 0.004) as scope:
                        async for _ in projector.rebuild():
                            pass
                    cancelled += scope.cancelled_caught
                    expected = await folded(store, COUNT)
                    assert dict(projector.view(switch.projection)) == expected
                    assert dict(projector.view(COUNT)) == expected
        assert len(expected) == 3


async def test_a_new_revision_does_not_go_on_with_what_the_old_one_built(
    backend: Backend, tmp_path: Path
) -> None:
    """Half of one fold and half of another is nothing."""
    saved = tmp_path / "saved"
    async with backend.open() as store:
        position = await append(store, 30, streams=1)
        for projection in (counting(step=1), counting(revision=2, step=9)):
            async with pj.open_projector(store, projection, snapshots=saved) as projector:
                with soon():
                    await projector.wait_for(position)
                    async for progress in projector.rebuild(projection):
                        if projection.revision == 1 and not progress.is_done:
                            break
                if projection.revision == 2:
                    assert projector.view(projection)["loop-0"].state == 270
