"""A process is killed between any two steps; the next one has right states and exact effects.

Real processes and SIGKILL. What dies at a system call dies before it; what dies at a call of a
database session dies before it or after it.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

import eventstore as es
import projections as pj
from projections import _rebuild, _snapshots
from projections._read_model import Checkpoint, ReadModelSession
from tests._kills import was_killed
from tests.projector._logs import COUNT, append, folded

_EVENTS: Final = 24
_STEPS_MAX: Final = 2_000  # a process that never gets to its end would be killed for ever
_DEADLY: Final = frozenset(
    {"open", "write", "fsync", "rename", "unlink", "listdir", "makedirs", "close"}
)


class Countdown:
    """Kills this process at a step."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self) -> None:
        """Die, or count."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class DeadlyOs:
    """The `os` that saving uses: the countdown runs at each call that touches a file."""

    def __init__(self, countdown: Countdown) -> None:
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in _DEADLY:
            return found

        def deadly(*args: Any, **kwargs: Any) -> Any:
            self._countdown.step()
            return found(*args, **kwargs)

        return deadly


def _dying(countdown: Countdown, work: Callable[[], Awaitable[None]]) -> None:
    """In a process of its own: small pages and steps, and a deadly disk."""
    patch = pytest.MonkeyPatch()  # never undone: the process ends
    patch.setattr(_snapshots, "os", DeadlyOs(countdown))
    patch.setattr(_rebuild, "_STEP_EVENTS", 4)
    patch.setattr(_rebuild, "_KEEP_EVENTS", 1)
    patch.setattr("eventstore._log._reading.CHUNK_BYTES", 1_000)
    anyio.run(work)


def _log(directory: Path) -> Path:
    return directory / "history.jsonl"


async def _fill(directory: Path, count: int = _EVENTS) -> None:
    async with es.open_store(_log(directory), durability="written") as store:
        await append(store, count)


async def _check_views(directory: Path) -> None:
    """What a projector shows is what a fold of the whole log gives, and saving works again."""
    async with es.open_store(_log(directory)) as store:
        for _ in range(2):
            opened = pj.open_projector(store, COUNT, snapshots=directory / "saved")
            async with opened as projector:
                with anyio.fail_after(10):
                    await projector.wait_for(store.position)
                assert dict(projector.view(COUNT)) == await folded(store, COUNT)
            await append(store, 1)
    assert not list((directory / "saved").glob("view_of_count-*.tmp"))
    assert len(list((directory / "saved").glob("view_of_count-*.snapshot"))) <= 2


# --- saving ---


def _save_often(directory: str, steps: int) -> None:
    async def work() -> None:
        async with es.open_store(_log(Path(directory)), read_only=True) as store:
            opened = pj.open_projector(
                store, COUNT, snapshots=Path(directory) / "saved", save_every_events=8
            )
            async with opened as projector:
                await projector.wait_for(store.position)

    _dying(Countdown(steps), work)


def test_a_process_killed_while_it_saves_leaves_the_last_states_or_the_new_ones(
    tmp_path: Path,
) -> None:
    """At every system call of saving; every file that is left is whole."""
    anyio.run(_fill, tmp_path)
    steps = 1
    while was_killed(_save_often, str(tmp_path), steps):
        files = list((tmp_path / "saved").glob("*.snapshot"))
        whole = list(_snapshots.Snapshots(tmp_path / "saved").load("view of count", int))
        assert len(files) == len(whole)
        if steps % 4 == 0:
            anyio.run(_check_views, tmp_path)
        steps += 1
        assert steps < _STEPS_MAX
    anyio.run(_check_views, tmp_path)
    assert steps > 10


# --- side effects ---


def _handle_all(directory: str, steps: int) -> None:
    countdown = Countdown(steps)
    effects = Path(directory) / "effects"

    async def handle(recorded: es.Recorded[es.Event]) -> None:
        countdown.step()
        with effects.open("a", encoding="ascii") as file:
            file.write(f"{recorded.position}\n")
        countdown.step()

    async def work() -> None:
        handler = pj.Handler[es.Event](name="note", handle=handle, from_beginning=True)
        async with es.open_store(_log(Path(directory)), read_only=True) as store:
            opened = pj.open_projector(
                store, COUNT, handlers=[handler], snapshots=Path(directory) / "saved"
            )
            async with opened as projector:
                await projector.wait_for(store.position, handler)

    _dying(countdown, work)


def test_a_kill_repeats_at_most_the_event_at_hand(tmp_path: Path) -> None:
    """None is left out, the order is kept, and each death costs at most one repetition."""
    anyio.run(_fill, tmp_path)
    generator = random.Random(5)
    deaths = 0
    while was_killed(_handle_all, str(tmp_path), generator.randrange(1, 60)):
        deaths += 1
        done = (
            [int(line) for line in (tmp_path / "effects").read_text().split()]
            if (tmp_path / "effects").exists()
            else []
        )
        assert sorted(set(done)) == list(range(1, len(set(done)) + 1))
        assert done == sorted(done)
        assert len(done) - len(set(done)) <= deaths
        assert deaths < _STEPS_MAX
    assert deaths > 5
    assert sorted({int(line) for line in (tmp_path / "effects").read_text().split()}) == list(
        range(1, _EVENTS + 1)
    )


# --- rebuilding ---


def _rebuild_all(directory: str, steps: int) -> None:
    async def work() -> None:
        async with es.open_store(_log(Path(directory)), read_only=True) as store:
            opened = pj.open_projector(store, COUNT, snapshots=Path(directory) / "saved")
            async with opened as projector:
                await projector.wait_for(store.position)
                async for _ in projector.rebuild():
                    pass

    _dying(Countdown(steps), work)


def test_a_rebuild_killed_anywhere_can_be_gone_on_with(tmp_path: Path) -> None:
    """Views are right after every death, and the rebuild comes to its end."""
    anyio.run(_fill, tmp_path)
    anyio.run(_check_views, tmp_path)
    steps = 1
    while was_killed(_rebuild_all, str(tmp_path), steps):
        if steps % 5 == 0:
            anyio.run(_check_views, tmp_path)
        steps += 1
        assert steps < _STEPS_MAX
    anyio.run(_check_views, tmp_path)
    assert steps > 20
    assert not list((tmp_path / "saved").glob("half*"))


# --- a database ---


class DeadlySession:
    """Runs the countdown before and after each call of a session."""

    def __init__(self, inner: ReadModelSession[es.Event], countdown: Countdown) -> None:
        self.inner = inner
        self._countdown = countdown

    def _around(self, work: Callable[..., Any], *args: Any) -> Any:
        self._countdown.step()
        result = work(*args)
        self._countdown.step()
        return result

    def checkpoint(self) -> Checkpoint:
        """As the session."""
        return self.inner.checkpoint()

    def begin(self) -> None:
        """As the session."""
        self._around(self.inner.begin)

    def apply(self, recorded: es.Recorded[es.Event]) -> None:
        """As the session."""
        self._around(self.inner.apply, recorded)

    def record(self, checkpoint: Checkpoint) -> None:
        """As the session."""
        self._around(self.inner.record, checkpoint)

    def commit(self) -> None:
        """As the session."""
        self._around(self.inner.commit)

    def rollback(self) -> None:
        """As the session."""
        self._around(self.inner.rollback)

    def close(self) -> None:
        """As the session."""
        self._around(self.inner.close)


class DeadlyModel:
    """A read model whose sessions are deadly, and its swap too."""

    def __init__(self, inner: pj.SqliteReadModel[es.Event], countdown: Countdown) -> None:
        self.name = inner.name
        self.revision = inner.revision
        self._inner = inner
        self._countdown = countdown

    def open(self) -> DeadlySession:
        """As the read model."""
        return DeadlySession(self._inner.open(), self._countdown)

    def open_next(self, *, anew: bool) -> DeadlySession:
        """As the read model."""
        self._countdown.step()
        return DeadlySession(self._inner.open_next(anew=anew), self._countdown)

    def swap(self, live: ReadModelSession[Any], following: ReadModelSession[Any]) -> None:
        """As the read model."""
        assert isinstance(live, DeadlySession)
        assert isinstance(following, DeadlySession)
        self._countdown.step()
        self._inner.swap(live.inner, following.inner)
        self._countdown.step()


def _sum_up(db: sqlite3.Connection, recorded: es.Recorded[es.Event]) -> None:
    """An effect that shows if it is missing, doubled or out of order."""
    db.execute(
        "UPDATE total SET events = events + 1, sum = sum * 31 % 1000003 + ?", (recorded.position,)
    )


def _model(directory: Path, revision: int) -> pj.SqliteReadModel[es.Event]:
    schema = ["CREATE TABLE total (events INTEGER, sum INTEGER)", "INSERT INTO total VALUES (0, 0)"]
    return pj.sqlite_read_model(
        directory / "model.db", name="total", schema=schema, apply=_sum_up, revision=revision
    )


def _model_all(directory: str, steps: int, revision: int) -> None:
    countdown = Countdown(steps)

    async def work() -> None:
        model = DeadlyModel(_model(Path(directory), revision), countdown)
        async with (
            es.open_store(_log(Path(directory)), read_only=True) as store,
            pj.open_projector(store, read_models=[model]) as projector,
        ):
            await projector.wait_for(store.position)

    _dying(countdown, work)


def _check_model(directory: Path) -> tuple[int, int]:
    """The database is sound, and holds exactly what the events up to its checkpoint give."""
    with closing(sqlite3.connect(directory / "model.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        checkpoint: tuple[int, int] | None = db.execute(
            "SELECT revision, position FROM loopledger_checkpoint"
        ).fetchone()
        if checkpoint is None:
            return (0, 0)
        expected = 0
        for position in range(1, checkpoint[1] + 1):
            expected = (expected * 31 + position) % 1000003
        found = db.execute("SELECT events, sum FROM total").fetchone()
        assert found == (checkpoint[1], expected)
        return checkpoint


def test_effect_and_checkpoint_are_never_apart(tmp_path: Path) -> None:
    """Killed before and after each call of each transaction, and of each swap."""
    anyio.run(_fill, tmp_path, 12)
    generator = random.Random(1)
    for revision in (1, 2, 3):
        deaths = 0
        reached = (0, 0)
        while was_killed(_model_all, str(tmp_path), generator.randrange(1, 26), revision):
            deaths += 1
            if (tmp_path / "model.db").exists():
                before, reached = reached, _check_model(tmp_path)
                assert reached >= before, "what was committed stays"
            assert deaths < _STEPS_MAX
        assert deaths > 2
        assert _check_model(tmp_path) == (revision, 12)


def _follow_until_killed(directory: str, revision: int, seconds: float) -> None:
    killer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))

    async def work() -> None:
        model = _model(Path(directory), revision)
        async with (
            es.open_store(_log(Path(directory)), durability="written") as store,
            pj.open_projector(store, read_models=[model]) as projector,
        ):
            await projector.wait_for(await append(store, 1))
            killer.start()
            while True:
                await projector.wait_for(await append(store, 1))
                async for _ in projector.rebuild(resume=False):
                    pass

    _dying(Countdown(-1), work)


@pytest.mark.parametrize("seed", range(4))
def test_a_database_survives_a_kill_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Inside SQLite's own writing too: in a commit, in a checkpoint of its log, in a swap."""
    generator = random.Random(seed)
    for lap in range(5):
        seconds = generator.random() * 0.05
        assert was_killed(_follow_until_killed, str(tmp_path), 1 + lap % 2, seconds)
        _check_model(tmp_path)
