"""Deciding over a store: `transact`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, assert_type, cast

import anyio
import pytest

import eventstore as es
import projections as pj
from projections import _transact

pytestmark = pytest.mark.anyio

OTTER = "bright-otter"


class Paid(es.Event):
    """A kind of a user's own."""

    amount: int


class Contested:
    """A store where somebody else is faster: before each append, as long as there are rivals."""

    def __init__(
        self, store: es.EventStore[es.LoopEvent], rivals: list[Sequence[es.LoopEvent]]
    ) -> None:
        self._store = store
        self._rivals = rivals
        self.scans: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, stream: str, events: Any, **options: Any) -> es.Appended:
        """Let a rival append first."""
        if self._rivals:
            await self._store.append(stream, self._rivals.pop(0), expected_version=es.ANY)
        return await self._store.append(stream, events, **options)

    async def scan(self, work: Callable[[Any], Any], **options: Any) -> Any:
        """Note how the log is read."""
        self.scans.append(options)
        return await self._store.scan(work, **options)


def contested(
    store: es.EventStore[es.LoopEvent], *rivals: Sequence[es.LoopEvent]
) -> tuple[es.EventStore[es.LoopEvent], Contested]:
    """The same store, and what happens to it."""
    contest = Contested(store, list(rivals))
    return cast("es.EventStore[es.LoopEvent]", contest), contest


def completed(iteration: int) -> es.IterationCompleted:
    """An iteration that went well."""
    return es.IterationCompleted(iteration=iteration, success=True)


def begin(loop: pj.LoopEntry) -> list[es.LoopEvent]:
    """Start a loop, or resume it."""
    if loop.state == "absent":
        return [es.LoopStarted(prompt="implement auth"), es.IterationStarted(iteration=1)]
    if loop.state == "running":
        return [es.LoopResumed(from_iteration=pj.resume_from(loop))]
    return []


def follow(last: int | None) -> list[es.LoopEvent]:
    """Complete the iteration after the last one."""
    return [completed((last or 0) + 1)]


async def iterations(store: es.EventStore[es.LoopEvent]) -> list[int]:
    """Which iterations were completed, in order."""
    events = [r.event async for r in store.read(OTTER)]
    return [event.iteration for event in events if isinstance(event, es.IterationCompleted)]


async def test_starting_and_resuming_are_the_same_call(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """What is recorded depends on the state alone, so a program need not know why it runs."""
    started = await pj.transact(store, pj.REGISTRY, OTTER, begin)
    assert started.appended == es.Appended(version=2, position=2)
    assert (started.state.state, started.state.open_iteration) == ("running", 1)
    resumed = await pj.transact(store, pj.REGISTRY, OTTER, begin)
    assert resumed.state.resumed_from == 1
    kinds = [r.kind async for r in store.read(OTTER)]
    assert kinds == ["loop_started", "iteration_started", "loop_resumed"]


async def test_deciding_nothing_records_nothing(store: es.EventStore[es.LoopEvent]) -> None:
    """An empty decision tells the state and that nothing was appended."""
    await store.append(OTTER, [es.MergeQueued()], expected_version=es.ANY)
    done = await pj.transact(store, pj.REGISTRY, OTTER, begin)
    assert (done.appended, done.attempts, done.version, done.position) == (None, 1, 1, 1)
    assert done.state.state == "queued"
    assert await store.version(OTTER) == 1


@pytest.mark.parametrize(
    "projection",
    [pj.REGISTRY, pj.SUMMARY, pj.LAST_ITERATION, pj.PROMPT],
    ids=["registry", "page form", "newest", "oldest"],
)
async def test_the_state_afterwards_is_what_load_gives(
    store: es.EventStore[es.LoopEvent], projection: pj.Projection[object, es.Event]
) -> None:
    """State, version and position include the decided events, with their times and places."""
    await store.append("heron", [completed(9)], expected_version=es.ANY)
    event = es.HistoryEvent[es.LoopEvent](es.LoopStarted(prompt="auth"), data={"cost": 1})

    def decide(_: object) -> list[es.LoopEvent | es.HistoryEvent[es.LoopEvent]]:
        return [event, completed(1)]

    for _ in range(2):
        done = await pj.transact(store, projection, OTTER, decide)
        loaded = await pj.load(store, projection, OTTER)
        assert (done.state, done.version) == (loaded.state, loaded.version)
        assert done.position == loaded.position == store.position


async def test_the_state_afterwards_leaves_out_what_others_appended_behind_it(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """State and version are those at the decided events, so they belong together."""

    class Overtaken(Contested):
        async def append(self, stream: str, events: Any, **options: Any) -> es.Appended:
            done = await self._store.append(stream, events, **options)
            await self._store.append(stream, [completed(99)], expected_version=es.ANY)
            return done

    overtaken = cast("es.EventStore[es.LoopEvent]", Overtaken(store, []))
    first = await pj.transact(overtaken, pj.LAST_ITERATION, OTTER, follow)
    assert (first.state, first.version, first.position) == (1, 1, 1)
    second = await pj.transact(overtaken, pj.LAST_ITERATION, OTTER, follow)
    assert (second.state, second.version, second.position) == (100, 3, 3)


async def test_after_a_conflict_the_decision_is_made_again(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Whoever was slower decides again, knowing what came between; nothing is lost or doubled."""
    slower, _ = contested(store, [completed(1)], [completed(2)])
    done = await pj.transact(slower, pj.LAST_ITERATION, OTTER, follow)
    assert (done.state, done.version, done.attempts) == (3, 3, 3)
    assert await iterations(store) == [1, 2, 3]


async def test_after_a_conflict_only_what_is_new_is_folded(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """The log is read again from its end, down to the version that was known."""
    await store.append(OTTER, [completed(1)], expected_version=es.ANY)
    slower, contest = contested(store, [completed(2)])
    await pj.transact(slower, pj.SUMMARY, OTTER, lambda s: follow(s.iterations_completed))
    again = [(scan.get("after"), scan.get("backwards")) for scan in contest.scans[1:]]
    assert again == [(1, True), (2, True)]


async def test_the_last_conflict_says_how_many_attempts_there_were(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Attempts are bounded; then the conflict is the caller's, and nothing of ours is recorded."""
    slower, _ = contested(store, *([completed(n)] for n in range(1, 9)))
    with pytest.raises(es.VersionConflictError) as raised:
        await pj.transact(slower, pj.LAST_ITERATION, OTTER, follow, attempts=3)
    assert raised.value.actual == 3
    assert raised.value.__notes__ == ["transact gave up after 3 attempts; nothing is recorded"]
    assert await iterations(store) == [1, 2, 3]


async def test_an_attempt_at_least_is_made(store: es.EventStore[es.LoopEvent]) -> None:
    """None at all is a mistake, not a way to look."""
    with pytest.raises(ValueError, match="counts from 1, not 0"):
        await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, attempts=0)


async def test_many_deciders_at_once_agree_on_one_history(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Twenty tasks decide about one stream: every decision knew all that stand before it."""
    async with anyio.create_task_group() as tasks:
        for _ in range(20):

            async def decide() -> None:
                await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, attempts=1_000)

            tasks.start_soon(decide)
    assert await iterations(store) == list(range(1, 21))


async def test_what_a_decision_raises_is_the_callers(store: es.EventStore[es.LoopEvent]) -> None:
    """A refusal passes through as it is, and nothing is recorded."""

    def refuse(_: int | None) -> list[es.LoopEvent]:
        msg = "not now"
        raise PermissionError(msg)

    with pytest.raises(PermissionError, match="not now"):
        await pj.transact(store, pj.LAST_ITERATION, OTTER, refuse)
    assert store.position == 0


async def test_a_decision_that_cannot_be_recorded_is_refused(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """With a key or without one, the store's own reason comes through."""
    for key in (None, "first"):
        with pytest.raises(es.EventRefusedError, match="no stream name"):
            await pj.transact(store, pj.LAST_ITERATION, "../otter", follow, key=key)
    assert store.position == 0


async def test_meta_is_recorded_beside_the_decided_events(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Correlation and causation travel along."""
    await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, meta={"actor": "me"})
    assert [r.meta async for r in store.read(OTTER)] == [{"actor": "me"}]


# --- with a key ---


async def test_a_key_makes_a_decision_once(store: es.EventStore[es.LoopEvent]) -> None:
    """Called again, with the state moved on, it is not decided again: its place is told."""
    first = await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, key="one")
    await store.append(OTTER, [completed(7)], expected_version=es.ANY)
    again = await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, key="one")
    assert first.appended == again.appended == es.Appended(1, 1)
    assert (again.attempts, again.state, again.version) == (0, 7, 2)
    assert await iterations(store) == [1, 7]


async def test_a_key_that_is_older_than_the_known_state_is_found_by_the_append(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Starting from a later state decides other events; they are not recorded under that key."""
    await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, key="one")
    later = await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, key="two")
    again = await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, key="one", since=later)
    assert (again.appended, again.state) == (es.Appended(1, 1), 2)
    assert await iterations(store) == [1, 2]


async def test_a_key_used_for_the_same_events_before_the_known_state_is_that_append(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """The append finds its own first result; the state stays where it was known to be."""

    def once(_: int | None) -> list[es.LoopEvent]:
        return [completed(1)]

    await pj.transact(store, pj.LAST_ITERATION, OTTER, once, key="one")
    later = await pj.transact(store, pj.LAST_ITERATION, OTTER, follow)
    again = await pj.transact(store, pj.LAST_ITERATION, OTTER, once, key="one", since=later)
    assert (again.appended, again.state, again.version) == (es.Appended(1, 1), 2, 2)


async def test_a_key_that_a_rival_used_first_decides_nothing_more(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Two processes make one decision; the slower one is told the faster one's result."""

    class Keyed(Contested):
        async def append(self, stream: str, events: Any, **options: Any) -> es.Appended:
            if self._rivals:
                await self._store.append(
                    stream, self._rivals.pop(), expected_version=es.ANY, key="one"
                )
            return await self._store.append(stream, events, **options)

    slower = cast("es.EventStore[es.LoopEvent]", Keyed(store, [[completed(5), completed(6)]]))
    done = await pj.transact(slower, pj.LAST_ITERATION, OTTER, follow, key="one")
    assert (done.appended, done.state) == (es.Appended(2, 2), 6)
    assert await iterations(store) == [5, 6]


async def test_after_an_unknown_commit_a_key_makes_the_call_safe_to_repeat() -> None:
    """The store appends no more; reopened, the same call finds what survived, or decides."""

    class Failing(es.MemoryFiles):
        fails = False

        def fdatasync(self, handle: int) -> None:
            if self.fails:
                raise OSError(5, "Input/output error")
            super().fdatasync(handle)

    files = Failing()
    async with es.memory_store(files=files) as store:
        files.fails = True
        with pytest.raises(es.CommitUnknownError):
            await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, key="one")
        with pytest.raises(es.StorePoisonedError):
            await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, key="two")
        files.fails = False
    async with es.memory_store(files=files) as store:
        done = await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, key="one")
        assert (done.state, await iterations(store)) == (1, [1])


# --- from a known state ---


async def test_a_known_state_is_gone_on_from(store: es.EventStore[es.LoopEvent]) -> None:
    """What came since is folded on top, be it of others; what was before is not read again."""
    known = await pj.transact(store, pj.LAST_ITERATION, OTTER, follow)
    await store.append(OTTER, [completed(4)], expected_version=es.ANY)
    watched, contest = contested(store)
    done = await pj.transact(watched, pj.LAST_ITERATION, OTTER, follow, since=known)
    assert (done.state, done.version, done.attempts) == (5, 3, 1)
    assert all(scan["backwards"] and scan["after"] for scan in contest.scans)


async def test_a_known_state_that_is_far_behind_is_caught_up_from_the_beginning(
    store: es.EventStore[es.LoopEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much to be held at once is folded in order; the state is the same."""
    monkeypatch.setattr(_transact, "_NEWER_MAX", 2)
    known = await pj.transact(store, pj.REGISTRY, OTTER, begin)
    for iteration in (1, 2, 3, 4):
        events: list[es.LoopEvent] = [completed(iteration)]
        await store.append(OTTER, events, expected_version=es.ANY)
    watched, contest = contested(store)
    done = await pj.transact(watched, pj.REGISTRY, OTTER, begin, since=known)
    assert done.state == (await pj.load(store, pj.REGISTRY, OTTER)).state
    assert [scan.get("backwards", False) for scan in contest.scans] == [True, False, True]


async def test_a_state_known_of_another_log_is_not_trusted(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """It conflicts, nothing newer explains why, and so the stream is read from its beginning."""
    foreign = pj.Loaded[int | None](99, 99, 99)
    done = await pj.transact(store, pj.LAST_ITERATION, OTTER, follow, since=foreign)
    assert (done.state, done.version, done.attempts) == (1, 1, 2)


# --- cancelled ---


async def test_a_decision_cancelled_before_it_was_made_records_nothing(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """While loading, nothing has happened yet."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await pj.transact(store, pj.LAST_ITERATION, OTTER, follow)
    assert scope.cancelled_caught
    assert await store.version(OTTER) == 0


# --- types ---


async def test_the_state_type_is_inferred_from_the_projection(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """Both type checkers know what `decide` gets and what comes back, over a wider union too."""
    wide = cast("es.EventStore[es.LoopEvent | Paid]", store)

    def evolve(state: int, recorded: es.Recorded[es.LoopEvent | Paid]) -> int:
        return state + recorded.event.amount if isinstance(recorded.event, Paid) else state

    paid = pj.Projection(name="paid", initial=0, evolve=evolve)
    assert_type(await pj.transact(store, pj.REGISTRY, OTTER, begin), pj.Transacted[pj.LoopEntry])
    done = await pj.transact(wide, pj.REGISTRY, OTTER, begin)
    assert_type(done.state, pj.LoopEntry)
    inline = await pj.transact(
        store, pj.LAST_ITERATION, OTTER, lambda last: [completed((last or 0) + 1)]
    )
    assert_type(inline.state, int | None)
    nothing = await pj.transact(wide, paid, OTTER, lambda _: [], since=None)
    assert_type(nothing.state, int)
    assert_type(nothing.appended, es.Appended | None)
