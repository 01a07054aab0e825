"""One stream read by the index is what the whole log has of it, in either direction."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

import eventstore as es
from eventstore._codec import Codec
from eventstore._log._files import Files
from eventstore._log._log_reader import LogReader
from eventstore._log._stream_reading import find_stream
from tests._files import Call, FilesAround
from tests.recovery._logs import (
    ACTIVE,
    NAMES,
    append,
    append_raw,
    content,
    foreign,
    opened,
    overwrite,
    request,
)

_STREAMS = [f"loop-{number}" for number in range(40)]
_INDEXED = 30  # of 36 events of each stream


class Counted(FilesAround):
    """Counts how often bytes of the log are read."""

    reads = 0

    def before(self, call: Call) -> None:
        """Count."""
        self.reads += call == Call("pread", ACTIVE)


def sparse_log(*, segment_bytes_max: int | None = None, data: str = "") -> es.MemoryFiles:
    """Forty streams in turn, in one index but for the last events of each."""
    files = es.MemoryFiles()
    with opened(files, segment_bytes_max=segment_bytes_max, index_bytes=1) as committer:
        for number in range(1, 37):
            event = es.HistoryEvent(es.IterationStarted(iteration=number), data=data or None)
            append(committer, *(request(stream, event) for stream in _STREAMS))
            if number == _INDEXED:
                committer.save_index()
    return files


def read_stream(
    files: Files, stream: str, *, after: int = 0, backwards: bool = False
) -> list[tuple[int, int, object]]:
    """Version, iteration and data of what a reader shows of a stream."""
    reader = LogReader(files, NAMES, Codec(es.LOOP_EVENTS), lock_timeout_seconds=1.0)
    pages = reader._pages(
        reader._taker.take(), stream, after, backwards=backwards, data=True, numbers=True
    )
    try:
        return [
            (recorded.version, recorded.event.iteration, recorded.data)
            for page in pages
            for recorded in page
            if isinstance(recorded.event, es.IterationStarted)
        ]
    finally:
        reader._taker.close()


def is_found(files: Files, stream: str) -> bool:
    """Whether the index is used for a stream."""
    reader = LogReader(files, NAMES, Codec(es.LOOP_EVENTS), lock_timeout_seconds=1.0)
    try:
        return find_stream(reader._log, reader._taker.take(), stream) is not None
    finally:
        reader._taker.close()


@pytest.mark.parametrize("segment_bytes_max", [None, 20_000])
@pytest.mark.parametrize("after", [0, 1, 29, 30, 31, 36, 99])
def test_both_directions_show_the_stream_from_any_version(
    after: int, segment_bytes_max: int | None
) -> None:
    """Within the index, at its end, and behind it."""
    files = sparse_log(segment_bytes_max=segment_bytes_max)
    for stream in (_STREAMS[0], _STREAMS[17], _STREAMS[39]):
        assert is_found(files, stream)
        expected = [(number, number, None) for number in range(after + 1, 37)]
        assert read_stream(files, stream, after=after) == expected
        assert read_stream(files, stream, after=after, backwards=True) == expected[::-1]
    assert read_stream(files, "unheard-of") == []
    assert read_stream(files, "unheard-of", backwards=True) == []


def test_long_lines_are_read_whole() -> None:
    """A line may be longer than what is read of it at first."""
    files = sparse_log(data="x" * 5_000)
    assert is_found(files, "loop-3")
    assert read_stream(files, "loop-3") == [(n, n, "x" * 5_000) for n in range(1, 37)]


def test_only_lines_of_the_stream_are_read() -> None:
    """And the end of the log, which the index does not cover."""
    files = sparse_log(data="x" * 20_000)
    counted = Counted(files)
    assert len(read_stream(counted, "loop-3", after=25)) == 11
    assert counted.reads < 40  # of more than 100 chunks


def test_a_stream_with_most_of_the_events_is_read_with_all_others() -> None:
    """Line by line would be slower."""
    files = es.MemoryFiles()
    with opened(files, index_bytes=1) as committer:
        for number in range(20):
            append(committer, request("loop-1", es.IterationStarted(iteration=number)))
        committer.save_index()
    assert not is_found(files, "loop-1")


def test_lines_of_the_original_are_not_left_out() -> None:
    """They have no numbers of their own, so `main` is read from the beginning then."""
    files = sparse_log()
    append_raw(files, foreign(7) + b"\n")
    with opened(files, index_bytes=1) as committer:
        append(committer, request("main", es.IterationStarted(iteration=8)))
        committer.save_index()
    assert not is_found(files, "main")
    assert read_stream(files, "main") == [(1, 7, None), (2, 8, None)]
    assert is_found(files, "loop-1")


def flip_a_bit(line: bytes) -> bytes:
    """A line with one changed bit."""
    return line[:40] + bytes([line[40] ^ 1]) + line[41:]


def lose(line: bytes) -> bytes:
    """Nothing but its LF."""
    return b" " * (len(line) - 1) + line[-1:]


@pytest.mark.parametrize("change", [flip_a_bit, lose])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_damaged_line_ends_the_use_of_the_index(
    change: Callable[[bytes], bytes], backwards: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What is shown is what is shown without an index: everything that is not damaged, once."""
    files = sparse_log()
    lines = content(files).splitlines(keepends=True)
    index = next(
        number for number, line in enumerate(lines) if b'"stream":"loop-5","version":12,' in line
    )
    lines[index] = change(lines[index])
    files._names[ACTIVE].content[:] = b"".join(lines)
    assert is_found(files, "loop-5")
    with caplog.at_level(logging.WARNING, "eventstore"):
        shown = read_stream(files, "loop-5", backwards=backwards)
    assert "the index does not fit the log" in caplog.text
    for name in files.listdir(NAMES.cache):
        files.unlink(f"{NAMES.cache}/{name}")
    assert shown == read_stream(files, "loop-5", backwards=backwards)
    assert len(shown) == 35


@pytest.mark.parametrize("place", [b"\0\0\0\1\0\0\0\0", b"\xff" * 8], ids=["4 GiB", "far away"])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_place_beyond_the_log_ends_the_use_of_the_index(place: bytes, backwards: bool) -> None:
    """Places have no checksum: one that leads nowhere is as wrong as one that leads elsewhere."""
    files = sparse_log()
    right = read_stream(files, "loop-5", backwards=backwards)
    (name,) = files.listdir(NAMES.cache)
    name = f"{NAMES.cache}/{name}"
    data = content(files, name)
    count = _INDEXED * len(_STREAMS)
    overwrite(files, data[: -8 * count] + place * count, name)
    assert is_found(files, "loop-5")
    assert read_stream(files, "loop-5", backwards=backwards) == right
