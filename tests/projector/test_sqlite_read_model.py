"""Read models in SQLite: the effect of each event exactly once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventstore as es
import projections as pj
from projections import _rebuild
from tests.contract._backends import Backend
from tests.projector._logs import COUNT, append, soon

pytestmark = pytest.mark.anyio

SCHEMA = ("CREATE TABLE done (position INTEGER, stream TEXT, iteration INTEGER)",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "model.db"


def insert(db: sqlite3.Connection, recorded: es.Recorded[es.Event]) -> None:
    """Note an event; it would be there twice if it were applied twice."""
    match recorded.event:
        case es.IterationCompleted(iteration=iteration):
            values = (recorded.position, recorded.stream, iteration)
            db.execute("INSERT INTO done VALUES (?, ?, ?)", values)
        case _:
            pass


def model(
    path: Path,
    *,
    revision: int = 1,
    apply: Callable[[sqlite3.Connection, es.Recorded[es.Event]], None] = insert,
) -> pj.SqliteReadModel[es.Event]:
    """A table of iterations that have ended."""
    return pj.sqlite_read_model(path, name="done", schema=SCHEMA, apply=apply, revision=revision)


def query(path: Path, sql: str = "SELECT position FROM done ORDER BY rowid") -> list[Any]:
    """What any other program sees."""
    with closing(sqlite3.connect(path)) as db:
        return [row[0] if len(row) == 1 else row for row in db.execute(sql)]


async def follow(
    store: es.EventReader[es.LoopEvent], one: pj.SqliteReadModel[es.Event], position: int
) -> None:
    """Let a projector of its own bring it to a position."""
    async with pj.open_projector(store, read_models=[one]) as projector:
        with soon():
            await projector.wait_for(position)


async def test_each_event_is_applied_once_over_several_processes(
    backend: Backend, path: Path
) -> None:
    """The checkpoint is in the database, so nothing else has to be kept."""
    async with backend.open() as store:
        for _ in range(3):
            await follow(store, model(path), await append(store, 4))
    assert query(path) == list(range(1, 13))
    assert query(path, "SELECT name, position FROM loopledger_checkpoint") == [("done", 12)]


async def test_a_reader_sees_what_was_waited_for(backend: Backend, path: Path) -> None:
    """Read your own write, from any other connection."""
    one = model(path)
    async with backend.open() as store, pj.open_projector(store, read_models=[one]) as projector:
        for _ in range(3):
            with soon():
                await projector.wait_for(await append(store, 2), one)
            assert query(path) == list(range(1, store.position + 1))
        status = projector.status(one)
        assert (status.name, status.checkpoint, status.lag, status.revision) == ("done", 6, 0, 1)


async def test_code_that_raises_leaves_the_page_before(backend: Backend, path: Path) -> None:
    """It stops alone, with position and cause; nothing of its page is there; mended it goes on."""

    def breaks(db: sqlite3.Connection, recorded: es.Recorded[es.Event]) -> None:
        insert(db, recorded)
        if recorded.position == 9:
            db.execute("INSERT INTO nowhere VALUES (1)")

    async with backend.open() as store:
        await follow(store, model(path), await append(store, 6))
        broken = model(path, apply=breaks)
        async with pj.open_projector(store, COUNT, read_models=[broken]) as projector:
            with soon():
                position = await append(store, 5)
                await projector.wait_for(position, COUNT)
                with pytest.raises(pj.ProjectionFailedError, match="read model 'done' stopped at"):
                    await projector.wait_for(position)
                failure = projector.status(broken).failure
            assert failure is not None
            assert (failure.position, failure.what) == (9, "read model")
            assert isinstance(failure.cause, sqlite3.OperationalError)
        kept = query(path)
        assert kept == list(range(1, len(kept) + 1))
        assert 6 <= len(kept) < 9
        await follow(store, model(path), position)
    assert query(path) == list(range(1, 12))


@pytest.mark.parametrize("way", ["commit", "COMMIT", "ROLLBACK", "BEGIN", "executescript", "with"])
async def test_the_users_code_cannot_end_the_transaction(
    backend: Backend, path: Path, way: str
) -> None:
    """Effect and checkpoint would come apart."""

    def ends(db: sqlite3.Connection, recorded: es.Recorded[es.Event]) -> None:
        insert(db, recorded)
        match way:
            case "commit":
                db.commit()
            case "with":
                with db:
                    pass
            case "executescript":
                db.executescript("SELECT 1")
            case _:
                db.execute(way)

    one = model(path, apply=ends)
    async with backend.open() as store:
        position = await append(store, 3)
        async with pj.open_projector(store, read_models=[one]) as projector:
            with soon(), pytest.raises(pj.ProjectionFailedError, match="position 1: "):
                await projector.wait_for(position)
    assert query(path) == []


async def test_a_new_revision_is_built_beside_the_old_one(
    backend: Backend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers see the old rows, all of them, until they see the new ones, all of them."""
    monkeypatch.setattr("eventstore._log._reading.CHUNK_BYTES", 1_500)
    seen: set[tuple[int, int, int]] = set()

    def tenfold(db: sqlite3.Connection, recorded: es.Recorded[es.Event]) -> None:
        seen.update(query(path, "SELECT count(*), min(iteration), max(iteration) FROM done"))
        db.execute("INSERT INTO done VALUES (?, '', 1000)", (recorded.position,))

    async with backend.open() as store:
        position = await append(store, 40)
        await follow(store, model(path), position)
        await follow(store, model(path, revision=2, apply=tenfold), position)
    assert seen == {(40, 0, 39)}
    assert query(path, "SELECT count(*), min(iteration), max(iteration) FROM done") == [
        (40, 1000, 1000)
    ]
    assert query(path, "SELECT revision FROM loopledger_checkpoint") == [2]
    assert sorted(file.name for file in path.parent.glob("model.db*")) == ["model.db"]


async def test_a_database_of_another_log_is_built_anew(path: Path) -> None:
    """A log that was rolled back is not continued."""
    for count in (10, 4, 12):
        async with es.memory_store() as store:
            await follow(store, model(path), await append(store, count))
        assert query(path) == list(range(1, count + 1))


async def test_a_rebuild_is_swapped_in_at_once_and_goes_on_where_it_was_left(
    backend: Backend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over a reader that holds the database open."""
    monkeypatch.setattr(_rebuild, "_STEP_EVENTS", 5)
    monkeypatch.setattr("eventstore._log._reading.CHUNK_BYTES", 1_500)
    applied: list[int] = []

    def noted(db: sqlite3.Connection, recorded: es.Recorded[es.Event]) -> None:
        applied.append(recorded.position)
        insert(db, recorded)

    one = model(path, apply=noted)
    async with backend.open() as store:
        position = await append(store, 40)
        async with pj.open_projector(store, COUNT, read_models=[one]) as projector:
            with soon():
                await projector.wait_for(position)
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("DELETE FROM done WHERE position > 7")  # somebody spoiled it
            reader.commit()
            applied.clear()
            for lap in range(3):
                async with pj.open_projector(store, COUNT, read_models=[one]) as projector:
                    with soon():
                        await projector.wait_for(position)
                        async for progress in projector.rebuild(one, COUNT):
                            (found,) = reader.execute("SELECT count(*) FROM done").fetchone()
                            assert found == (40 if progress.is_done else 7)
                            if lap < 2:
                                break
                        await projector.wait_for(await append(store, 1) if lap == 2 else position)
    assert applied == list(range(1, 42))
    assert query(path) == list(range(1, 42))


async def test_a_rebuild_mends_what_has_failed(backend: Backend, path: Path) -> None:
    """The read model follows again after it."""
    broken = [True]

    def breaks(db: sqlite3.Connection, recorded: es.Recorded[es.Event]) -> None:
        if broken[0] and recorded.position == 3:
            raise KeyError(recorded.position)
        insert(db, recorded)

    one = model(path, apply=breaks)
    async with backend.open() as store, pj.open_projector(store, read_models=[one]) as projector:
        with soon():
            position = await append(store, 5)
            with pytest.raises(pj.ProjectionFailedError, match="position 3: KeyError"):
                await projector.wait_for(position)
            broken[0] = False
            async for _ in projector.rebuild(one):
                pass
            await projector.wait_for(await append(store, 2))
    assert query(path) == list(range(1, 8))


async def test_two_projectors_into_one_database_apply_nothing_twice(
    backend: Backend, path: Path
) -> None:
    """Each looks at the checkpoint inside its transaction."""
    async with backend.open() as store:
        first, second = model(path), model(path)
        async with (
            pj.open_projector(store, read_models=[first]) as one,
            pj.open_projector(store, read_models=[second]) as other,
        ):
            for _ in range(10):
                position = await append(store, 3)
                with soon():
                    await one.wait_for(position)
                    await other.wait_for(position)
    assert query(path) == list(range(1, 31))


@pytest.mark.parametrize("content", [b"this is no database, it is a letter\n" * 40, None])
async def test_what_is_no_database_of_ours_stays_as_it_is(
    backend: Backend, path: Path, content: bytes | None
) -> None:
    """A file of somebody else is never overwritten; the error says what it is."""
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    async with backend.open() as store:
        position = await append(store, 1)
        async with pj.open_projector(store, read_models=[model(path)]) as projector:
            with soon(), pytest.raises(pj.ProjectionFailedError, match="database"):
                await projector.wait_for(position)
    assert path.is_dir() if content is None else path.read_bytes() == content


async def test_leaving_closes_the_database(backend: Backend, path: Path) -> None:
    """No connection, no journal and no file in the making is left."""
    async with backend.open() as store:
        await append(store, 5)
        for _ in range(3):
            async with pj.open_projector(store, read_models=[model(path)]):
                await anyio.lowlevel.checkpoint()
        await follow(store, model(path), store.position)
    assert [file.name for file in path.parent.glob("model.db*")] == ["model.db"]
    assert query(path) == list(range(1, 6))
