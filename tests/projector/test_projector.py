"""Views that keep up with the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_type, cast

import anyio
import pytest
from anyio.abc import TaskGroup

import eventstore as es
import projections as pj
from projections._projector import Projector
from tests.contract._backends import Backend
from tests.projector._logs import BROKEN, COUNT, append, counting, folded, soon

pytestmark = pytest.mark.anyio


class Paid(es.Event):
    """A kind of a user's own."""

    amount: int


async def test_a_view_includes_what_was_there_and_what_comes(backend: Backend) -> None:
    """Every view is what a fold of the whole log gives, before and after."""
    projections: list[pj.Projection[Any, es.Event]]
    projections = [pj.REGISTRY, pj.SUMMARY, pj.COMPLETION, COUNT]
    async with backend.open() as store:
        await append(store, 20)
        async with pj.open_projector(store, *projections) as projector:
            for _ in range(3):
                with soon():
                    await projector.wait_for(await append(store, 7))
                for projection in projections:
                    view = projector.view(projection)
                    assert dict(view) == await folded(store, projection)
                    assert view.position == store.position
                assert projector.lag == 0


async def test_ones_own_write_can_be_read_after_waiting_for_it(backend: Backend) -> None:
    """The position that an append returns is what to wait for."""
    async with backend.open() as store, pj.open_projector(store, pj.REGISTRY) as projector:
        for number in range(5):
            event = es.LoopStarted(prompt=f"attempt {number}")
            done = await store.append("otter", [event], expected_version=es.ANY)
            with soon():
                await projector.wait_for(done.position, pj.REGISTRY)
            loaded = projector.view(pj.REGISTRY)["otter"]
            assert (loaded.state.prompt, loaded.version) == (f"attempt {number}", done.version)


async def test_a_view_never_changes(backend: Backend) -> None:
    """Who holds one sees one moment, whatever is appended."""
    async with backend.open() as store, pj.open_projector(store, COUNT) as projector:
        with soon():
            await projector.wait_for(await append(store, 6))
            view = projector.view(COUNT)
            before = dict(view)
            assert projector.view(COUNT) is view
            await projector.wait_for(await append(store, 9, streams=5))
        assert (dict(view), view.position, len(view)) == (before, 6, 3)
        after = projector.view(COUNT)
        assert (after["loop-0"].state, after.position, list(after)[-1]) == (4, 15, "loop-4")


async def test_what_other_processes_append_is_seen(backend: Backend) -> None:
    """A projector over a read-only store follows as well."""
    async with backend.open_reader() as reader, pj.open_projector(reader, COUNT) as projector:
        async with backend.open() as store:
            position = await append(store, 4)
            with soon():
                await projector.wait_for(position)
        assert projector.view(COUNT)["loop-0"].state == 2
        assert projector.lag == 0


async def test_the_views_of_one_projector_are_of_one_moment(backend: Backend) -> None:
    """Between two awaits all views include the same events."""
    async with backend.open() as store, pj.open_projector(store, COUNT, pj.SUMMARY) as projector:
        seen: list[tuple[int, int]] = []

        async def look() -> None:
            for _ in range(200):
                one, other = projector.view(COUNT), projector.view(pj.SUMMARY)
                seen.append((one.position, other.position))
                await anyio.lowlevel.checkpoint()

        with soon():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look)
                await projector.wait_for(await append(store, 30))
        assert all(one == other for one, other in seen)


async def test_a_projection_that_raises_stops_alone(backend: Backend) -> None:
    """It names position and cause and keeps its view; the others go on."""
    async with backend.open() as store:
        await append(store, 3)
        async with pj.open_projector(store, BROKEN, COUNT) as projector:
            with soon():
                await projector.wait_for(3)
                await append(store, 5)
                await projector.wait_for(8, COUNT)
                with pytest.raises(
                    pj.ProjectionFailedError, match="position 5: LookupError"
                ) as got:
                    await projector.wait_for(8)
            assert (got.value.name, got.value.position, got.value.what) == (
                "broken",
                5,
                "projection",
            )
            assert isinstance(got.value.__cause__, LookupError)
            view = projector.view(BROKEN)
            assert 3 <= view.position < 5
            assert sum(loaded.state for loaded in view.values()) == view.position
            assert dict(projector.view(COUNT)) == await folded(store, COUNT)
            status = projector.status(BROKEN)
            assert status.failure is not None
            assert (status.lag, projector.lag) == (8 - view.position, 8 - view.position)
            await projector.wait_for(3)  # it does have that


async def test_a_page_form_that_raises_where_evolve_does_not_is_named_too(
    backend: Backend,
) -> None:
    """Only the end of the page is known then."""

    def fold(state: int, events: object) -> int:
        raise RuntimeError(state, events)

    broken = pj.Projection[int, es.Event](
        name="page", initial=0, evolve=lambda state, _: state, fold=fold
    )
    async with backend.open() as store:
        await append(store, 2)
        async with pj.open_projector(store, broken) as projector:
            with soon(), pytest.raises(pj.ProjectionFailedError, match="RuntimeError"):
                await projector.wait_for(2)


async def test_a_key_that_raises_stops_its_projection(backend: Backend) -> None:
    """The key is the user's code as well."""

    def key(recorded: es.Recorded[es.Event]) -> str:
        return str(1 // (recorded.position - 2))

    broken = pj.Projection[int, es.Event](
        name="key", initial=0, evolve=lambda state, _: state, key=key
    )
    async with backend.open() as store:
        await append(store, 3)
        async with pj.open_projector(store, broken) as projector:
            with soon(), pytest.raises(pj.ProjectionFailedError, match="position 2: ZeroDivision"):
                await projector.wait_for(3)


async def test_an_error_of_the_store_comes_out_as_it_is(backend: Backend) -> None:
    """Not in a group, and the block is cancelled: its views would stand still."""
    async with backend.open() as store:
        await append(store, 2)

    async def follow_until_it_closes() -> None:
        async with backend.open_reader() as reader, pj.open_projector(reader, COUNT) as projector:
            with soon():
                await projector.wait_for(2)
            reader._taker.close()
            await anyio.sleep_forever()

    with pytest.raises(es.StoreClosedError):
        await follow_until_it_closes()


async def test_an_error_of_the_block_comes_out_as_it_is(backend: Backend) -> None:
    """The task group of the projector does not wrap it."""
    with pytest.raises(ZeroDivisionError):
        async with backend.open() as store, pj.open_projector(store, COUNT):
            raise ZeroDivisionError


async def test_a_block_can_be_cancelled(backend: Backend) -> None:
    """Nothing is left running, and no handle open."""
    async with backend.open() as store:
        await append(store, 2)
        with anyio.CancelScope() as scope:
            async with pj.open_projector(store, COUNT) as projector:
                with soon():
                    await projector.wait_for(2)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    assert backend.open_handles() == 0


async def test_who_still_waits_when_the_block_ends_is_told(backend: Backend) -> None:
    """Nothing would ever wake that task again; it learns how far readers see."""
    told: list[pj.ProjectorClosedError] = []

    async def wait(projector: Projector[es.LoopEvent], of: Sequence[pj.Follows]) -> None:
        with pytest.raises(pj.ProjectorClosedError, match="position 9 was not") as got:
            await projector.wait_for(9, *of)
        told.append(got.value)

    async with backend.open() as store:
        position = await append(store, 2)
        with soon():
            async with (
                anyio.create_task_group() as tasks,
                pj.open_projector(store, COUNT, pj.SUMMARY) as projector,
            ):
                await projector.wait_for(position)
                for of in ([], [pj.SUMMARY]):
                    tasks.start_soon(wait, projector, of)
                await anyio.wait_all_tasks_blocked()
                assert not told
    assert ["at position 2;" in str(error) for error in told] == [True, True]


async def test_a_wait_that_begins_after_the_block_ends_at_once(backend: Backend) -> None:
    """What readers saw at the end they still see; for more there is nobody."""
    async with backend.open() as store:
        position = await append(store, 2)
        async with pj.open_projector(store, COUNT, BROKEN) as projector:
            with soon():
                await projector.wait_for(position)
        await append(store, 2)
        with soon():
            await projector.wait_for(position)
            with pytest.raises(pj.ProjectorClosedError, match="'count' is at position 2"):
                await projector.wait_for(position + 1)


async def test_what_has_failed_is_told_after_the_block_too(backend: Backend) -> None:
    """The failure says more than that the block has ended."""
    async with backend.open() as store:
        position = await append(store, 8)
        async with pj.open_projector(store, BROKEN, COUNT) as projector:
            with soon():
                await projector.wait_for(position, COUNT)
        with soon(), pytest.raises(pj.ProjectionFailedError):
            await projector.wait_for(position)


async def test_who_waits_is_told_when_the_store_fails_under_the_projector(
    backend: Backend,
) -> None:
    """The store's error comes out of the block; a task outside of it does not wait on."""
    told: list[pj.ProjectorClosedError] = []

    async def wait(projector: Projector[es.LoopEvent]) -> None:
        with pytest.raises(pj.ProjectorClosedError) as got:
            await projector.wait_for(9)
        told.append(got.value)

    async def follow_until_it_closes(tasks: TaskGroup) -> None:
        async with backend.open_reader() as reader, pj.open_projector(reader, COUNT) as projector:
            tasks.start_soon(wait, projector)
            await anyio.wait_all_tasks_blocked()
            reader._taker.close()
            await anyio.sleep_forever()

    with soon():
        async with anyio.create_task_group() as tasks:
            with pytest.raises(es.StoreClosedError):
                await follow_until_it_closes(tasks)
    assert len(told) == 1


async def test_names_must_differ(backend: Backend) -> None:
    """Two projections of one name would share what is saved."""
    async with backend.open() as store:
        with pytest.raises(ValueError, match="'count'"):
            async with pj.open_projector(store, COUNT, counting()):
                pass


async def test_only_what_was_opened_can_be_asked_for(backend: Backend) -> None:
    """A projection of the same name is not the same projection."""
    async with backend.open() as store, pj.open_projector(store, COUNT) as projector:
        others: list[pj.Projection[Any, es.Event]] = [pj.SUMMARY, counting()]
        for other in others:
            with pytest.raises(ValueError, match="was not given"):
                projector.view(other)
            with pytest.raises(ValueError, match="was not given"):
                projector.rebuild(other)
            with pytest.raises(ValueError, match="was not given"):
                await projector.wait_for(0, other)


async def test_a_log_of_noise_only_has_no_lag(backend: Backend) -> None:
    """The checkpoint counts lines, as positions do."""
    async with backend.open() as store:
        await append(store, 1)
    backend.append_raw(b"no event\n" * 3)
    async with backend.open() as store, pj.open_projector(store, COUNT) as projector:
        with soon():
            await projector.wait_for(4)
        assert (projector.lag, projector.view(COUNT)["loop-0"].state) == (0, 1)


async def test_the_state_type_is_inferred(backend: Backend) -> None:
    """Both type checkers know a view's states, also over a store of a wider union."""

    def evolve(state: int, recorded: es.Recorded[es.LoopEvent | Paid]) -> int:
        return state + recorded.event.amount if isinstance(recorded.event, Paid) else state

    paid = pj.Projection(name="paid", initial=0, evolve=evolve)
    async with backend.open() as store:
        wide = cast("es.EventStore[es.LoopEvent | Paid]", store)
        async with pj.open_projector(wide, pj.SUMMARY, paid, pj.LAST_ITERATION) as projector:
            assert_type(projector, Projector[es.LoopEvent | Paid])
            assert_type(projector.view(pj.SUMMARY), pj.View[pj.Summary])
            assert_type(projector.view(paid), pj.View[int])
            view: Mapping[str, pj.Loaded[int | None]] = projector.view(pj.LAST_ITERATION)
            assert view == {}
        async with pj.open_projector(store, paid, pj.REGISTRY) as narrow:
            assert_type(narrow.view(pj.REGISTRY).get("x"), pj.Loaded[pj.LoopEntry] | None)
