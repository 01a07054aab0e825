"""Saved states: believed only if everything fits, and never needed."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import logging
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
import pytest

import eventstore as es
import projections as pj
from projections import _snapshots
from projections._saver import Saver
from projections._snapshots import Saved, Snapshots
from projections._view import Table
from tests.contract._backends import Backend
from tests.projector._logs import BROKEN, COUNT, append, counting, folded, soon

ANYIO: Final = pytest.mark.anyio
BOOKMARK: Final = es.Bookmark(7, "1/2/3")

_BOMBS: Final = (
    *(b"", b"\0", b"\xff" * 40),
    b"\0\0\0\5\xdd\xff\xff\xff\xff",  # a list of four billion
    b"\0\0\x10\0" + b"\x91" * 4096,  # as deep as that
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="projections")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where states are saved."""
    return tmp_path / "saved"


def saved(states: Mapping[str, Any], *, position: int = 7, revision: int = 1) -> Saved:
    """Some states, as the projector hands them over."""
    return Saved(
        revision,
        es.Bookmark(position, "proof"),
        {key: pj.Loaded(state, 1, position) for key, state in states.items()},
    )


# --- the files alone ---


@pytest.mark.parametrize("keys", [0, 1, 999, 1_000, 1_001, 2_500])
def test_what_was_saved_is_loaded(directory: Path, keys: int) -> None:
    """States, their order, revision and bookmark come back equal."""
    states = saved({f"loop-{number}": number for number in reversed(range(keys))})
    assert Snapshots(directory).save("count", int, states)
    (loaded,) = Snapshots(directory).load("count", int)
    assert loaded == states
    assert list(loaded.states) == list(states.states)


@pytest.mark.parametrize(
    ("projection", "state"),
    [
        (pj.REGISTRY, pj.LoopEntry(state="running", prompt="\x1b[2J", run=3)),
        (pj.SUMMARY, pj.Summary(iterations_completed=2**60)),
        (pj.LAST_ITERATION, None),
        (pj.PROMPT, "x" * 100_000),
        (pj.TIMELINE, pj.Timeline(1, (pj.IterationSpan(1, 2),), 0)),
        (pj.COMPLETION, pj.Completion(is_completed=True, outcome="limit")),
    ],
)
def test_every_built_in_state_can_be_saved(
    directory: Path, projection: pj.Projection[Any, es.Event], state: object
) -> None:
    """Each built-in projection knows its state's type."""
    snapshots = Snapshots(directory)
    assert snapshots.save(projection.name, projection.state_type, saved({"otter": state}))
    (loaded,) = snapshots.load(projection.name, projection.state_type)
    assert loaded.states["otter"].state == state


@pytest.mark.parametrize(
    "state", [(1, 2), {1: (2,)}, object(), float("nan"), 2**70, {1, 2}, "\ud800"]
)
def test_a_state_that_does_not_read_back_equal_is_not_saved(
    directory: Path, state: object, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so and leaves what was there; the states are in the log."""
    caplog.set_level(logging.WARNING, logger="projections")
    snapshots = Snapshots(directory)
    assert snapshots.save("odd", object, saved({"a": 1}))
    assert not snapshots.save("odd", object, saved({"a": state}))
    assert "not saved" in caplog.text
    assert [one.states["a"].state for one in snapshots.load("odd", object)] == [1]
    assert [path.suffix for path in directory.iterdir()] == [".snapshot"]


def test_two_are_kept_and_the_newest_comes_first(directory: Path) -> None:
    """A damaged one has one to fall back to, and old ones take no room."""
    snapshots = Snapshots(directory)
    for position in range(1, 6):
        assert snapshots.save("count", int, saved({"a": position}, position=position))
    assert [one.bookmark.position for one in snapshots.load("count", int)] == [5, 4]
    assert len(list(directory.iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["../../up", "a/b", "", "\0", "ß" * 300, "-rf", "\x1b[2J", ".", "\n"]
)
def test_no_name_leaves_the_directory(directory: Path, name: str) -> None:
    """Whatever a projection is called, its file is one file in there, and nobody else's."""
    snapshots = Snapshots(directory)
    assert snapshots.save(name, int, saved({"a": 1}))
    assert snapshots.save(f"{name}x", int, saved({"a": 2}))
    assert [one.states["a"].state for one in snapshots.load(name, int)] == [1]
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]
    assert all(len(path.name) < 100 and path.name.isascii() for path in directory.iterdir())


def test_files_are_private(directory: Path) -> None:
    """States hold what events hold."""
    Snapshots(directory).save("count", int, saved({"a": 1}))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in directory.iterdir()] == [0o600]


def test_what_a_dead_process_was_writing_is_removed_and_what_a_live_one_writes_is_not(
    directory: Path,
) -> None:
    """The lock on a temporary file says whether somebody still writes it."""
    snapshots = Snapshots(directory)
    assert snapshots.save("count", int, saved({"a": 1}))
    stem = next(directory.iterdir()).name.split(".")[0]
    dead, live = directory / f"{stem}.00.tmp", directory / f"{stem}.11.tmp"
    dead.write_bytes(b"half")
    with live.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert snapshots.save("count", int, saved({"a": 2}))
        assert not dead.exists()
        assert live.exists()


def _damaged(data: bytes, generator: random.Random) -> Iterator[bytes]:
    """Every prefix of a file, and every byte changed."""
    yield from (data[:size] for size in range(len(data)))
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ (1 << generator.randrange(8))]) + data[at + 1 :]


def _forged(data: bytes, generator: random.Random) -> Iterator[bytes]:
    """Changed bytes, and some that were made for the purpose, with checksums that hold."""
    body = data[:-32]
    header = body[: 4 + int.from_bytes(body[:4], "big")]
    for at in range(len(body)):
        yield body[:at] + bytes([body[at] ^ (1 << generator.randrange(8))]) + body[at + 1 :]
    for bomb in _BOMBS:
        yield bomb
        yield header + bomb


def _two_loops(snapshots: Snapshots, directory: Path) -> Path:
    states = saved({"otter": pj.LoopEntry(), "heron": pj.LoopEntry(run=1)})
    assert snapshots.save("loops", pj.LoopEntry, states)
    (path,) = directory.iterdir()
    return path


def test_damaged_bytes_are_refused(directory: Path) -> None:
    """Cut anywhere or changed anywhere, a file is not used."""
    snapshots = Snapshots(directory)
    path = _two_loops(snapshots, directory)
    for data in _damaged(path.read_bytes(), random.Random(7)):
        path.write_bytes(data)
        assert list(snapshots.load("loops", pj.LoopEntry)) == []


def test_hostile_bytes_are_refused_or_read_as_states(directory: Path) -> None:
    """Whoever can forge the checksum gets states of the right type and nothing else."""
    snapshots = Snapshots(directory)
    path = _two_loops(snapshots, directory)
    for data in _forged(path.read_bytes(), random.Random(7)):
        path.write_bytes(data + hashlib.sha256(data).digest())
        for loaded in snapshots.load("loops", pj.LoopEntry):
            assert all(isinstance(one.state, pj.LoopEntry) for one in loaded.states.values())


@pytest.mark.parametrize("plant", ["directory", "symlink", "fifo", "large"])
def test_what_is_no_file_of_ours_is_not_read(
    directory: Path, plant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No link is followed, nothing is waited for, and nothing large is loaded."""
    snapshots = Snapshots(directory)
    snapshots.save("count", int, saved({"a": 1}))
    (path,) = directory.iterdir()
    if plant == "large":
        monkeypatch.setattr(_snapshots, "_BYTES_MAX", path.stat().st_size - 1)
    else:
        data = path.read_bytes()
        path.unlink()
        (directory.parent / "elsewhere").write_bytes(data)
    if plant == "directory":
        path.mkdir()
    elif plant == "symlink":
        path.symlink_to(directory.parent / "elsewhere")
    elif plant == "fifo":
        os.mkfifo(path)
    assert list(snapshots.load("count", int)) == []


def test_a_full_disk_leaves_what_was_saved(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is a warning, and nothing half is left behind."""
    snapshots = Snapshots(directory)
    assert snapshots.save("count", int, saved({"a": 1}))
    before = sorted(directory.iterdir())

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("projections._snapshots.os.write", full)
    assert not snapshots.save("count", int, saved({"a": 2}))
    monkeypatch.undo()
    assert sorted(directory.iterdir()) == before
    assert [one.states["a"].state for one in snapshots.load("count", int)] == [1]


def test_a_file_is_synced_before_it_gets_its_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its name before anything relies on it: a power cut leaves no empty file by that name."""
    calls: list[str] = []

    def noting(name: str) -> None:
        real = getattr(os, name)

        def noted(*args: Any) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(f"projections._snapshots.os.{name}", noted)

    for name in ("write", "fsync", "rename", "unlink"):
        noting(name)
    for _ in range(3):
        calls.clear()
        assert Snapshots(directory).save("count", int, saved({"a": 1}))
    parts = [name for name, _ in itertools.groupby(calls)]
    assert parts == ["write", "fsync", "rename", "fsync", "unlink"]


# --- a projector that begins with them ---


async def run_once(
    backend: Backend, directory: Path, count: int, *projections: pj.Projection[Any, es.Event]
) -> None:
    """Append, let a projector see it, and leave."""
    async with backend.open() as store:
        position = await append(store, count)
        async with pj.open_projector(store, *projections, snapshots=directory) as projector:
            with soon():
                await projector.wait_for(position)


class Watched:
    """How many events a projection was given, by a projection that tells."""

    def __init__(self, *, revision: int = 1) -> None:
        self.positions: list[int] = []
        self.projection = pj.Projection[int, es.Event](
            name="count", initial=0, evolve=self._evolve, revision=revision
        )

    def _evolve(self, state: int, recorded: es.Recorded[es.Event]) -> int:
        self.positions.append(recorded.position)
        return state + 1


@ANYIO
async def test_a_projector_goes_on_where_the_last_one_stopped(
    backend: Backend, directory: Path
) -> None:
    """Only what the log got since is folded, and the states are what a whole fold gives."""
    await run_once(backend, directory, 10, COUNT)
    watched = Watched()
    async with backend.open() as store:
        await append(store, 3)
        opened = pj.open_projector(store, watched.projection, snapshots=directory)
        async with opened as projector:
            with soon():
                await projector.wait_for(13)
            assert dict(projector.view(watched.projection)) == await folded(store, COUNT)
    assert watched.positions[:3] == [11, 12, 13]


@ANYIO
@pytest.mark.parametrize("damage", ["newest", "both"])
async def test_a_damaged_file_costs_a_longer_catching_up(
    backend: Backend, directory: Path, damage: str
) -> None:
    """The older one is used, or the log."""
    await run_once(backend, directory, 10, COUNT)
    await run_once(backend, directory, 5, COUNT)
    files = sorted(directory.iterdir())
    assert len(files) == 2
    for file in files if damage == "both" else files[1:]:
        file.write_bytes(file.read_bytes()[:-1])
    watched = Watched()
    async with backend.open() as store:
        opened = pj.open_projector(store, watched.projection, snapshots=directory)
        async with opened as projector:
            with soon():
                await projector.wait_for(15)
            assert dict(projector.view(watched.projection)) == await folded(store, COUNT)
    assert watched.positions[0] == (1 if damage == "both" else 11)


@ANYIO
async def test_a_log_that_was_rolled_back_is_folded_anew(directory: Path) -> None:
    """A position beyond the log, or another past, is never continued from."""
    async with es.memory_store() as store:
        position = await append(store, 10)
        async with pj.open_projector(store, COUNT, snapshots=directory) as projector:
            await projector.wait_for(position)
    for count in (4, 10, 12):
        async with es.memory_store() as other:
            position = await append(other, count, streams=2)
            async with pj.open_projector(other, COUNT, snapshots=directory) as projector:
                with soon():
                    await projector.wait_for(position)
                assert dict(projector.view(COUNT)) == await folded(other, COUNT)


@ANYIO
async def test_states_of_another_revision_are_shown_until_the_new_ones_are_there(
    backend: Backend, directory: Path
) -> None:
    """Readers see the old view, whole, and then the new one, whole; a wait is for the new one."""
    await run_once(backend, directory, 10, counting(revision=1))
    new = counting(revision=2, step=100)
    async with backend.open() as store:
        async with pj.open_projector(store, new, snapshots=directory) as projector:
            view = projector.view(new)
            assert (view.revision, view.position, view["loop-0"].state) == (1, 10, 4)
            assert projector.status(new).revision == 1
            position = await append(store, 1)
            with soon():
                await projector.wait_for(position)
            view = projector.view(new)
            assert (view.revision, view.position, view["loop-0"].state) == (2, 11, 500)
            assert projector.status(new).revision == 2
        async with pj.open_projector(store, new, snapshots=directory) as projector:
            assert projector.view(new)["loop-0"].state == 500


@ANYIO
async def test_a_projection_that_failed_is_saved_before_the_event_it_failed_at(
    backend: Backend, directory: Path
) -> None:
    """Once it is mended, it goes on there."""
    async with backend.open() as store:
        position = await append(store, 8)
        async with pj.open_projector(store, BROKEN, COUNT, snapshots=directory) as projector:
            with soon():
                await projector.wait_for(position, COUNT)
        mended = counting("broken")
        async with pj.open_projector(store, mended, snapshots=directory) as projector:
            with soon():
                await projector.wait_for(position)
            assert dict(projector.view(mended)) == await folded(store, mended)


@ANYIO
async def test_states_are_saved_while_it_runs(backend: Backend, directory: Path) -> None:
    """Every so many events; a process that is killed later begins there."""
    async with backend.open() as store:
        opened = pj.open_projector(store, COUNT, snapshots=directory, save_every_events=5)
        async with opened as projector:
            with soon():
                await projector.wait_for(await append(store, 12))
                while not list(Snapshots(directory).load("view of count", int)):
                    await anyio.lowlevel.checkpoint()


@ANYIO
async def test_names_that_look_like_ours_are_no_trouble(backend: Backend, directory: Path) -> None:
    """A projection called like another one's rebuild is saved beside it."""
    names = ("count", "half of count", "view of count", "handler count")
    projections = [counting(name, step=step) for step, name in enumerate(names, 1)]
    await run_once(backend, directory, 6, *projections)
    async with (
        backend.open() as store,
        pj.open_projector(store, *projections, snapshots=directory) as projector,
    ):
        for projection in projections:
            view = projector.view(projection)
            assert view.position == 6
            assert dict(view) == await folded(store, projection)


@ANYIO
async def test_a_directory_that_cannot_be_used_costs_nothing_but_time(
    backend: Backend, tmp_path: Path
) -> None:
    """Views are right without anything saved."""
    (tmp_path / "file").touch()
    for _ in range(2):
        await run_once(backend, tmp_path / "file" / "saved", 3, COUNT)


@ANYIO
@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
async def test_what_no_directory_can_be_called_is_refused(backend: Backend, path: str) -> None:
    """At once, by a sentence; not later, by whatever the operating system says."""
    async with backend.open() as store:
        with pytest.raises(ValueError, match=r"^snapshots=.* is no path"):
            async with pj.open_projector(store, COUNT, snapshots=path):
                pytest.fail("it was opened")


@ANYIO
async def test_what_could_not_be_saved_is_saved_at_the_end(
    backend: Backend, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk has room again: states of the same position are tried once more."""
    caplog.set_level(logging.WARNING, logger="projections")
    directory.touch()  # a file where the directory should be cannot be written into by anybody
    async with backend.open() as store:
        await append(store, 5)
        opened = pj.open_projector(store, COUNT, snapshots=directory, save_every_events=5)
        async with opened:
            with soon():
                while "not saved" not in caplog.text:
                    await anyio.lowlevel.checkpoint()
            directory.unlink()
        async with pj.open_projector(store, COUNT, snapshots=directory) as projector:
            assert projector.view(COUNT).position == 5


@ANYIO
async def test_a_rebuild_that_could_not_be_saved_is_saved_at_the_end(
    backend: Backend, directory: Path
) -> None:
    """What an older file holds is of the same position, and is wrong."""
    await run_once(backend, directory, 5, counting())
    mended = counting(step=100)
    async with backend.open() as store:
        async with pj.open_projector(store, mended, snapshots=directory) as projector:
            aside = directory.rename(directory.with_name("aside"))
            directory.touch()
            with soon():
                async for _ in projector.rebuild(mended):
                    pass
            directory.unlink()
            aside.rename(directory)
        async with pj.open_projector(store, mended, snapshots=directory) as projector:
            assert projector.view(mended)["loop-0"].state == 200


@ANYIO
async def test_a_saving_that_was_cancelled_is_not_taken_for_done(directory: Path) -> None:
    """The last saving, when everything ends, does it."""
    async with es.memory_store() as store:
        saver = Saver(store, Snapshots(directory))
        table: Table[int, es.LoopEvent]
        table = Table(COUNT, {"a": pj.Loaded(1, 1, 7)}, BOOKMARK)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await saver.save([table])
        assert scope.cancelled_caught
        await saver.save([table])
    (loaded,) = Snapshots(directory).load("view of count", int)
    assert loaded.states == {"a": pj.Loaded(1, 1, 7)}


def test_a_state_without_a_type_is_read_as_what_it_began_as() -> None:
    """The class of the initial state, unless `state_type` says more."""
    assert COUNT.state_type is int
    assert pj.LAST_ITERATION.state_type == int | None
    assert msgspec.convert(None, pj.PROMPT.state_type) is None
