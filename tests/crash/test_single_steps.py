"""What a commit and a repair ask of the disk, one fact at a time.

None of these needs a fixture: the planted bugs are tried on them too.
"""

from __future__ import annotations

import errno
import os

import eventstore as es
from eventstore._log._commit import Committer
from eventstore._log._lock_record import LockRecord, decode_record
from eventstore._log._request import Request
from tests.crash._disk import (
    Directory,
    Inode,
    KilledError,
    SimulatedDisk,
    SimulatedFiles,
    overwritten,
)
from tests.crash._model import (
    ACTIVE,
    LOCK_SECONDS,
    NAMES,
    Reader,
    foreign_record,
    read_backwards,
    request,
)


def test_a_commit_is_one_write_and_one_sync_between_two_notes() -> None:
    """Nothing is synced twice, and nothing is acknowledged before its sync."""
    disk = SimulatedDisk()
    store = _open(SimulatedFiles(disk))
    calls: list[str] = []
    disk.watch = lambda method, name: calls.append(f"{method} {name}")
    store.commit([request((1, 2)), request((3,))])
    disk.watch = None
    store.close()
    assert calls == [
        f"pwrite {NAMES.lock}",
        f"write {ACTIVE}",
        f"fdatasync {ACTIVE}",
        f"pwrite {NAMES.lock}",
    ]


def test_the_record_says_what_its_holder_is_at() -> None:
    """It is `writing` while the log's bytes are under way, and `idle` at the new end after that."""
    disk = SimulatedDisk()
    store = _open(SimulatedFiles(disk))
    states: list[tuple[str, int]] = []

    def watch(_method: str, name: str) -> None:
        if name == ACTIVE:
            record = _record(disk)
            states.append((record.state, record.end))

    disk.watch = watch
    store.commit([request((1,))])
    disk.watch = None
    assert set(states) == {("writing", 0)}
    assert (_record(disk).state, _record(disk).end) == ("idle", len(_active(disk).content))
    store.close()


def test_a_clean_log_is_opened_without_a_write_or_a_sync_of_a_file() -> None:
    """A recovery is noted: the next opening trusts the record, and only syncs the directory."""
    disk = SimulatedDisk()
    files = SimulatedFiles(disk)
    _tear(disk)
    files.write(files.open(ACTIVE, "append"), b"\n" + foreign_record(2) + b"\n")
    files.die()
    files = SimulatedFiles(disk)
    _open(files).close()
    calls: list[str] = []
    disk.watch = lambda method, name: calls.append(f"{method} {name}")
    _open(files).close()
    disk.watch = None
    assert set(calls) <= {"fsync_directory "}


def test_a_key_is_recorded_once() -> None:
    """A repeated append with its key gets the first result, and nothing is written."""
    disk = SimulatedDisk()
    store = _open(SimulatedFiles(disk))
    first, again = request((1, 2), key="k"), request((1, 2), key="k")
    store.commit([first])
    store.commit([again])
    store.close()
    assert again.appended == first.appended
    assert Reader(SimulatedFiles(disk)).read() == (1, 2)


def test_a_file_that_is_not_what_was_written_is_never_acknowledged() -> None:
    """Somebody who appends without the lock makes the outcome unknown."""
    disk = SimulatedDisk()
    files = SimulatedFiles(disk)
    store = _open(files)

    def intrude(method: str, name: str) -> None:
        if (method, name) == ("write", ACTIVE):
            disk.watch = None
            stranger = SimulatedFiles(disk)
            stranger.write(stranger.open(ACTIVE, "append"), b"hello\n")

    disk.watch = intrude
    asked = request((1,))
    store.commit([asked])
    store.close()
    assert asked.failure is not None
    assert isinstance(asked.failure(), es.CommitUnknownError)


def test_after_a_failed_sync_the_log_goes_on_in_a_new_file() -> None:
    """The old inode, which may lie about what it holds, is kept in the quarantine."""
    disk = SimulatedDisk()
    files = SimulatedFiles(disk)
    old = _fail_a_sync(disk)
    kept: list[Inode | Directory] = []

    def watch(method: str, name: str) -> None:
        if (method, name) == ("rename", NAMES.temporary):  # from here on, it may have one name less
            directory = disk.root.durable[f"{ACTIVE}.d"]
            assert isinstance(directory, Directory)
            quarantine = directory.durable["quarantine"]
            assert isinstance(quarantine, Directory)
            kept.extend(quarantine.durable.values())

    disk.watch = watch
    store = _open(files)
    disk.watch = None
    assert any(node is old for node in kept)
    assert store.recovery.renewed == 1
    assert _active(disk) is not old
    store.commit([request((4,))])
    store.close()
    numbers = Reader(files).read()
    assert numbers[0] == 1
    assert numbers[-1] == 4


def test_a_store_that_was_open_notices_the_error_of_another() -> None:
    """It re-reads the medium before its next commit, and follows to the new file."""
    disk = SimulatedDisk()
    files = SimulatedFiles(disk)
    first = _open(files)
    first.commit([request((1,))])
    before = _active(disk)
    second = _open(files)
    files.gate = _fail_write
    second.commit([request((2,))])
    files.gate = None
    second.close()
    asked = request((3,))
    first.commit([asked])
    first.close()
    assert asked.failure is None
    assert _active(disk) is not before
    assert Reader(files).read() == (1, 3)


def test_a_file_that_was_rewritten_in_place_is_refused() -> None:
    """A restored backup of the same length under an open store is not written to."""
    disk = SimulatedDisk()
    store = _open(SimulatedFiles(disk))
    store.commit([request((1,))])
    _flip(disk, len(_active(disk).content) - 30)
    error = _failure_of(store, request((2,)))
    store.close()
    assert isinstance(error, es.CorruptLogError)


def test_what_an_error_did_to_older_events_is_found_before_the_next_commit() -> None:
    """After another store's failure everything is read again, not only what came since."""
    disk = SimulatedDisk()
    files = SimulatedFiles(disk)
    first = _open(files)
    first.commit([request((1,))])
    first.commit([request((2,))])
    other = SimulatedFiles(disk)
    second = _open(other)
    other.gate = _fail_write
    second.commit([request((3,))])
    second.close()
    _flip(disk, 10)
    error = _failure_of(first, request((4,)))
    first.close()
    assert isinstance(error, es.CorruptLogError)


def test_a_log_that_ends_before_its_record_is_refused() -> None:
    """An event that was acknowledged and is gone is never passed over."""
    disk = SimulatedDisk()
    files = SimulatedFiles(disk)
    store = _open(files)
    store.commit([request((1,))])
    end = len(_active(disk).content)
    store.commit([request((2,))])
    store.close()
    files.truncate(files.open(ACTIVE, "append"), end)
    try:
        _open(files)
    except es.CorruptLogError as error:
        assert error.position == 2  # noqa: PT017 - run without pytest too
    else:
        raise AssertionError("it was opened")


def test_a_reader_shows_nothing_of_a_commit_that_is_at_work() -> None:
    """It shows what the record vouches for, and waits no longer than it was told to."""
    disk = SimulatedDisk()
    store = _open(SimulatedFiles(disk))
    store.commit([request((1,))])
    shown: list[tuple[int, ...]] = []

    def watch(method: str, name: str) -> None:
        if (method, name) == ("write", ACTIVE):
            reader = Reader(SimulatedFiles(disk))
            shown.append(reader.read())
            reader.close()

    disk.watch = watch
    store.commit([request((2,))])
    disk.watch = None
    store.close()
    assert shown == [(1,)]


def test_nobody_writes_while_another_holds_the_lock() -> None:
    """Held exclusively or shared: a commit waits, and is rejected at its deadline."""
    for exclusive in (True, False):
        disk = SimulatedDisk()
        store = _open(SimulatedFiles(disk))
        stranger = SimulatedFiles(disk)
        assert stranger.try_lock(stranger.open(NAMES.lock, "update"), exclusive=exclusive)
        assert isinstance(_failure_of(store, request((1,))), es.StoreBusyError)
        assert disk.now >= LOCK_SECONDS
        stranger.die()
        assert _failure_of(store, request((2,))) is None
        store.close()
        assert Reader(SimulatedFiles(disk)).read() == (2,)


def test_a_restored_log_is_not_judged_by_the_record_of_another() -> None:
    """A record that does not fit the bytes it speaks of is no evidence of damage."""
    disks: list[SimulatedDisk] = []
    for count in (1, 3):
        disk = SimulatedDisk()
        store = _open(SimulatedFiles(disk))
        for number in range(count):
            store.commit([request((10 * count + number,))])
        store.close()
        disks.append(disk)
    backup, disk = disks
    _active(disk).content = _active(disk).durable = _active(backup).content
    files = SimulatedFiles(disk)
    store = _open(files)
    store.commit([request((99,))])
    store.close()
    assert Reader(files).read() == (10, 99)


def test_a_changed_byte_is_never_taken_for_an_event() -> None:
    """A line that still decodes, in the middle of lines that are right, is damage."""
    disk = SimulatedDisk()
    store = _open(SimulatedFiles(disk))
    for number in (1, 2, 3):
        store.commit([request((number,))])
    store.close()
    _flip(disk, _active(disk).content.index(b'"iteration":1') + len('"iteration":'))
    try:
        _open(SimulatedFiles(disk))
    except es.CorruptLogError as error:
        assert error.position == 1  # noqa: PT017 - run without pytest too
    else:
        raise AssertionError("it was opened")


def test_a_missing_segment_is_named() -> None:
    """A log whose first events were removed is not opened for writing."""
    disk = SimulatedDisk()
    files = SimulatedFiles(disk)
    store = _open(files, segment_bytes_max=1)
    for number in (1, 2, 3):
        store.commit([request((number,))])
    store.close()
    files.unlink(NAMES.sealed(1))
    try:
        _open(files)
    except es.CorruptLogError as error:
        assert "position 1 is missing" in error.reason  # noqa: PT017 - run without pytest too
    else:
        raise AssertionError("it was opened")


def test_a_repair_that_was_interrupted_anywhere_is_finished_by_the_next_opening() -> None:
    """A copy that a dead process left half done is in nobody's way."""
    for prepare in (_fail_a_sync, _tear):
        disk = SimulatedDisk()
        prepare(disk)
        moments: list[SimulatedDisk] = []
        disk.watch = lambda _method, _name, disk=disk, moments=moments: moments.append(disk.copy())
        _open(SimulatedFiles(disk)).close()
        disk.watch = None
        assert len(moments) > 5
        for moment in moments:
            again = SimulatedFiles(moment)
            _open(again).close()
            assert Reader(again).read() == (1,)
            left = [name for name, node in moment.walk() if isinstance(node, Inode)]
            assert not [name for name in left if name.endswith((NAMES.temporary, ".tmp"))]


def test_a_lost_directory_entry_never_takes_acknowledged_events_along() -> None:
    """Whoever follows the active file to another inode first makes its entry durable."""
    disk = SimulatedDisk()
    files = SimulatedFiles(disk)
    first = _open(files, segment_bytes_max=1)
    first.commit([request((1,))])
    sealing = SimulatedFiles(disk)
    second = _open(sealing, segment_bytes_max=1)
    sealing.gate = _Killer(sealing, behind="fsync_directory")
    try:
        second.commit([request((2,))])
    except KilledError:
        sealing.die()
    stranger = SimulatedFiles(disk)
    stranger.write(stranger.open(ACTIVE, "append", create=True), foreign_record(3) + b"\n")
    stranger.die()
    first.commit([request((4,))])
    assert not disk.root.pending
    first.close()
    assert Reader(files).read() == (1, 3, 4)
    assert read_backwards(files) == (1, 3, 4)


def test_a_sealed_file_has_its_name_before_another_takes_the_old_one() -> None:
    """Entries may become durable in any order: the rename comes first, whoever died before."""
    disk = SimulatedDisk()
    dying = SimulatedFiles(disk)
    store = _open(dying, segment_bytes_max=1)
    store.commit([request((1,))])
    dying.gate = _Killer(dying, behind="rename")
    try:
        store.commit([request((2,))])
    except KilledError:
        dying.die()
    assert disk.root.pending
    waiting: list[int] = []

    def watch(method: str, name: str) -> None:
        if (method, name) == ("create", ACTIVE):
            waiting.append(len(disk.root.pending))

    disk.watch = watch
    _open(SimulatedFiles(disk)).close()
    disk.watch = None
    assert waiting == [1]  # the new entry itself
    assert Reader(SimulatedFiles(disk)).read() == (1,)


def test_a_copy_that_differs_never_takes_the_place() -> None:
    """Bytes that change while they are copied leave the old file active, and nothing recorded."""
    disk = SimulatedDisk()
    old = _fail_a_sync(disk)

    def watch(method: str, name: str) -> None:
        if (method, name) == ("create", NAMES.temporary):
            disk.watch = None
            _flip(disk, 10)

    disk.watch = watch
    try:
        _open(SimulatedFiles(disk))
    except es.StoreUnavailableError:
        assert _active(disk) is old
    else:
        raise AssertionError("it was opened")


def test_a_renamed_copy_is_durable_before_anything_is_acknowledged_in_it() -> None:
    """Whoever made it may have died before syncing the directory."""
    disk = SimulatedDisk()
    first = _open(SimulatedFiles(disk))
    first.commit([request((1,))])
    failing = SimulatedFiles(disk)
    second = _open(failing)
    failing.gate = _fail_write
    second.commit([request((2,))])
    second.close()
    dying = SimulatedFiles(disk)
    dying.gate = _Killer(dying, behind="rename")
    try:
        _open(dying)
    except KilledError:
        dying.die()
    assert disk.root.pending
    assert _failure_of(first, request((3,))) is None
    assert not disk.root.pending
    first.close()


def _open(files: SimulatedFiles, *, segment_bytes_max: int | None = None) -> Committer:
    store = Committer(
        files, NAMES, lock_timeout_seconds=LOCK_SECONDS, segment_bytes_max=segment_bytes_max
    )
    store.open()
    return store


def _failure_of(store: Committer, asked: Request) -> es.EventStoreError | None:
    store.commit([asked])
    return None if asked.failure is None else asked.failure()


def _flip(disk: SimulatedDisk, offset: int) -> None:
    """Change a bit of the active file, in the cache and on the medium."""
    node = _active(disk)
    changed = bytes([node.content[offset] ^ 1])
    node.content = node.durable = overwritten(node.content, offset, changed)


def _active(disk: SimulatedDisk) -> Inode:
    node = disk.root.entries[ACTIVE]
    assert isinstance(node, Inode)
    return node


def _record(disk: SimulatedDisk) -> LockRecord:
    node = disk.root.entries[NAMES.lock]
    assert isinstance(node, Inode)
    record = decode_record(node.content)
    assert record is not None
    return record


def _fail_a_sync(disk: SimulatedDisk) -> Inode:
    """One event acknowledged, one lost to an error; the store is closed."""
    files = SimulatedFiles(disk)
    store = _open(files)
    store.commit([request((1,))])
    old = _active(disk)
    files.gate = _fail_fdatasync
    lost = request((2,), size=200)
    store.commit([lost])
    files.gate = None
    store.close()
    assert lost.failure is not None
    assert isinstance(lost.failure(), es.CommitUnknownError)
    return old


def _tear(disk: SimulatedDisk) -> Inode:
    """One event acknowledged, half a line behind it."""
    files = SimulatedFiles(disk)
    store = _open(files)
    store.commit([request((1,))])
    store.close()
    files.write(files.open(ACTIVE, "append"), b'{"ts":"2026-')
    files.die()
    return _active(disk)


def _fail_fdatasync(method: str, name: str) -> int | None:
    if method == "fdatasync":
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)
    return None


def _fail_write(method: str, name: str) -> int | None:
    if method == "write":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    return None


class _Killer:
    def __init__(self, files: SimulatedFiles, *, behind: str) -> None:
        self._files = files
        self._behind = behind
        self._is_next = False

    def __call__(self, method: str, name: str) -> int | None:
        if self._is_next:
            self._files.die()
            raise KilledError(method, name)
        self._is_next = method == self._behind
        return None
