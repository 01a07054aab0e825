"""What is attacked beside the log: files that were computed from it, which nobody has to believe.

A changed file must not change an answer (I10). If its checksums were forged too it may, within
what the lines of the log prove by themselves; nothing else may happen.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import eventstore as es
from eventstore._codec import Codec
from eventstore._log._bookmarks import bookmark_at, prove
from eventstore._log._commit import Committer
from eventstore._log._files import Files
from eventstore._log._log_files import LogFiles
from eventstore._log._log_reader import LogReader
from eventstore._log._reading import ForwardCursor
from eventstore._log._snapshot import SnapshotTaker
from projections._projection import Loaded
from projections._snapshots import Saved, Snapshots
from tests._files import FilesAround
from tests.fuzz._parts import joined, mended_run, parted, parted_run
from tests.recovery._logs import (
    NAMES,
    append,
    append_raw,
    content,
    foreign,
    image_of,
    iterations,
    opened,
    overwrite,
    read,
    request,
    segments,
)

__all__ = ["FORGED", "PLAIN", "index", "index_files", "index_seeds", "snapshot", "snapshot_files"]

PLAIN: Final = b"\0"
"""Before the files of an input: they are taken as they are."""
FORGED: Final = b"\1"
"""Before the files of an input: their checksums are made right first."""
_CODEC: Final = Codec(es.LOOP_EVENTS)
_STREAMS: Final = tuple(f"loop-{number}" for number in range(12))
_ROUNDS: Final = 3
_FILES_MAX: Final = 4
_OFFSET_MAX: Final = 2**63 - 1
_ASKED_BYTES_MAX: Final = 64 * 2**20
_RANGE: Final = re.compile(
    rb'"start":\[0*([0-9]{1,20}),0*([0-9]{1,20}),.*?"position":([0-9]{1,20})'
)
_STATE_NAME: Final = "view of iterations"
_STATE_TYPE: Final = dict[str, int]


class _Strict(FilesAround):
    """Refuses what `pread(2)` refuses, and shows who asks for more memory than there may be."""

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """Read."""
        if not 0 <= offset <= _OFFSET_MAX:
            raise OverflowError(offset)
        assert 0 <= size <= _ASKED_BYTES_MAX, "more memory is asked for than there may be"
        return super().pread(handle, size, offset)


# --- the index ---


class _Answers(NamedTuple):
    """What a log says, and what it holds after it was asked to record."""

    read: list[list[es.Recorded[es.LoopEvent]]]
    versions: list[int]
    keys: list[es.Appended]
    appended: list[es.Appended]
    bytes: list[bytes]


def index(data: bytes) -> None:
    """Files in the index's directory: what is read, compared and recorded is as without them."""
    plain = data[:1] != FORGED
    files = image_of(_indexed()[0])
    names = index_files()
    for name in names:
        files.unlink(name)
    parts = parted(data[1:], _FILES_MAX)
    for number, part in enumerate(parts):
        if part:
            name, run = (names[number % len(names)], part) if plain else _forged(part)
            overwrite(files, run, name)
    if plain:
        assert _answers(files) == _right_answers(), "an index changed what the log says"
        return
    with contextlib.suppress(es.EventStoreError):
        _answers(files)


def index_files() -> list[str]:
    """The names of the index's files in their order, as the engine made them."""
    return _indexed()[1]


def index_seeds() -> tuple[bytes, bytes]:
    """The files as the engine made them, and the same as an input to forge."""
    runs = [content(_indexed()[0], name) for name in index_files()]
    return PLAIN + joined(*runs), FORGED + joined(*map(parted_run, runs))


def _forged(part: bytes) -> tuple[str, bytes]:
    """A file whose checksums hold, under the name that it says itself."""
    run = mended_run(part)
    found = _RANGE.search(part.partition(b"\n")[0])
    first, last = (int(found[2]), int(found[3])) if found else (0, 0)
    running = re.search(rb'"running":([0-9]{1,20})', part)
    crc = int(running[1]) if running else 0
    return f"{NAMES.cache}/index-{first:020}-{last:020}-{crc:08x}.run", run


@functools.cache
def _indexed() -> tuple[es.MemoryFiles, list[str]]:
    """A log of several segments with an index of three files, and lines behind it."""
    files = es.MemoryFiles()
    with opened(files, segment_bytes_max=3_000, index_bytes=1) as committer:
        for number in range(_ROUNDS):
            for stream in _STREAMS:
                append(committer, _repeatable(stream, number))
            committer.save_index()
    with opened(files) as committer:
        append(committer, request("loop-0", *iterations(1_000), key="behind"))
    append_raw(files, foreign(1) + b"\nnoise\n")
    return files, sorted(f"{NAMES.cache}/{name}" for name in files.listdir(NAMES.cache))


def _repeatable(stream: str, number: int, expected_version: es.ExpectedVersion = es.ANY) -> Any:
    return request(
        stream, *iterations(number, number), key=f"key-{number}", expected_version=expected_version
    )


@functools.cache
def _right_answers() -> _Answers:
    files = image_of(_indexed()[0])
    for name in index_files():
        files.unlink(name)
    return _answers(files)


def _answers(memory: es.MemoryFiles) -> _Answers:
    files = _Strict(memory)
    shown = list(_streams(files))
    with opened(files) as committer:
        versions = [committer.version(stream) for stream in (*_STREAMS, "unheard-of", "main")]
        keys = [
            append(committer, _repeatable(stream, number, expected_version=7_777))[0]
            for number in range(_ROUNDS)
            for stream in _STREAMS[::4]
        ]
        recorded = [_next(committer, stream) for stream in ("loop-0", "loop-7", "new", "main")]
    return _Answers(
        shown, versions, keys, recorded, [content(memory, one) for one in segments(memory)]
    )


def _next(committer: Committer, stream: str) -> es.Appended:
    version = committer.version(stream)
    return append(committer, request(stream, *iterations(7), expected_version=version))[0]


def _streams(files: Files) -> Iterator[list[es.Recorded[es.LoopEvent]]]:
    """One stream read by the index and one that is not in it, both ways; only what is true."""
    truth = _truth()
    reader = LogReader(files, NAMES, _CODEC, lock_timeout_seconds=1.0)
    try:
        view = reader._taker.take()
        for stream in ("loop-0", "loop-7", "unheard-of"):
            for backwards in (False, True):
                pages = reader._pages(view, stream, 1, backwards=backwards, data=True, numbers=True)
                shown = [recorded for page in pages for recorded in page]
                assert all(truth.get(recorded.position) == recorded for recorded in shown)
                yield shown
    finally:
        reader._taker.close()


@functools.cache
def _truth() -> dict[int, es.Recorded[es.LoopEvent]]:
    return {recorded.position: recorded for recorded in read(_indexed()[0])}


# --- saved states ---


def snapshot(data: bytes) -> None:
    """Files of saved states: each is one that was saved, or refused; reading goes on behind it."""
    plain = data[:1] != FORGED
    files, was_saved = _saved_states()
    with _directory() as directory:
        for name, part in zip(sorted(files), parted(data[1:], len(files)), strict=True):
            digest = b"" if plain else hashlib.sha256(part).digest()
            (directory / name).write_bytes(part + digest)
        loaded = list(Snapshots(directory).load(_STATE_NAME, _STATE_TYPE))
    if plain:
        assert all(saved in was_saved for saved in loaded), "a changed state was believed"
    for saved in loaded:
        assert all(type(one.state) is dict for one in saved.states.values())
        _go_on(saved.bookmark)


def snapshot_files() -> dict[str, bytes]:
    """The files as they were saved, by name."""
    return _saved_states()[0]


def _go_on(bookmark: es.Bookmark) -> None:
    """Read on from a bookmark, if the log recognizes it."""
    files = _Strict(image_of(_indexed()[0]))
    log = LogFiles(files, NAMES, _CODEC)
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
    try:
        view = taker.take()
        beginning = prove(log, view, bookmark)
        if beginning is None:
            return
        cursor = ForwardCursor(log, beginning=beginning)
        positions = [recorded.position for page in cursor.pages(view) for recorded in page]
        assert positions == sorted(set(positions))
    finally:
        taker.close()


@functools.cache
def _saved_states() -> tuple[dict[str, bytes], Sequence[Saved]]:
    """Two files of one projection, and what was saved."""
    saved = [_state_at(pages) for pages in (1, 2)]
    with _directory() as directory:
        snapshots = Snapshots(directory)
        for one in saved:
            assert snapshots.save(_STATE_NAME, _STATE_TYPE, one)
        return {path.name: path.read_bytes() for path in directory.iterdir()}, saved


def _state_at(segment_count: int) -> Saved:
    """What a projection knows behind the first segments of the log."""
    files = _indexed()[0]
    taker = SnapshotTaker(files, NAMES, lock_timeout_seconds=1.0)
    try:
        cursor = ForwardCursor(LogFiles(files, NAMES, _CODEC))
        pages = cursor.pages(taker.take())
        shown = [recorded for _ in range(segment_count) for recorded in next(pages)]
    finally:
        taker.close()
    states = {
        recorded.stream: Loaded({"version": recorded.version}, recorded.version, recorded.position)
        for recorded in shown
    }
    return Saved(1, bookmark_at(cursor.reached), states)


@contextlib.contextmanager
def _directory() -> Generator[Path]:
    """In memory where there is such a place: an input is two small files."""
    within = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="loopledger-fuzz-", dir=within) as name:
        yield Path(name)
