"""A run of the index tells just what it was made of, or says that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore._log._index_run import (
    BROKEN,
    LOG_START,
    IndexRun,
    Mark,
    encode_run,
    hash_key,
    hash_stream,
    merge_runs,
)
from eventstore._log._scan import Counts, Place

_Streams = Mapping[str, tuple[int, Sequence[int]]]

_STREAMS: Final = st.dictionaries(
    st.text("abcdefg-.0", min_size=1, max_size=6),
    st.tuples(st.integers(0, 2**40), st.lists(st.integers(0, 2**60), max_size=5)),
    max_size=300,
)
_KEYS: Final = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**60)), max_size=600)


def mark(position: int) -> Mark:
    """A mark at a position; what else it says depends on that."""
    place = Place(offset=300 * position, position=position, running=7, main_version=position)
    return Mark(300 * position, place, LOG_START.segment_start, Counts(noise=position))


def run_of(
    streams: _Streams, keys: Sequence[tuple[int, int]], *, first: Mark = LOG_START, last: int = 9
) -> bytes:
    """The bytes of a run."""
    return b"".join(encode_run(first.identity, mark(last), streams, keys, main_is_ours=True))


def opened(data: bytes) -> IndexRun:
    """A run that is read from these bytes."""
    return IndexRun(reader(data))


def reader(data: bytes) -> Callable[[int, int], bytes]:
    """Reads as a file does."""
    return lambda size, offset: data[offset : offset + size]


def told(run: IndexRun, stream: str) -> tuple[int, list[int]] | None:
    """What a run knows of a stream."""
    found = run.stream(hash_stream(stream))
    return found and (found.last_version, list(run.places(found, 0, found.size)))


@given(_STREAMS, _KEYS)
def test_a_run_tells_what_it_was_made_of(
    streams: _Streams, keys: Sequence[tuple[int, int]]
) -> None:
    """Every stream with its version and places, every key with its place, and nothing else."""
    run = opened(run_of(streams, keys))
    assert run.head.end == mark(9)
    for stream, (version, places) in streams.items():
        assert told(run, stream) == (version, list(places))
    assert told(run, "unheard-of") is None
    for key_hash, offset in keys:
        assert offset in list(run.keyed(key_hash))
    assert list(run.key_entries()) == sorted(keys)


@given(st.lists(st.tuples(_STREAMS, _KEYS), min_size=1, max_size=4))
def test_joined_runs_tell_what_each_told(
    parts: list[tuple[_Streams, Sequence[tuple[int, int]]]],
) -> None:
    """The last version counts, the places follow one another, all keys are there."""
    runs: list[IndexRun] = []
    expected: dict[str, tuple[int, list[int]]] = {}
    at = LOG_START
    for number, (streams, keys) in enumerate(parts, 1):
        runs.append(opened(run_of(streams, keys, first=at, last=number)))
        at = runs[-1].head.end
        for stream, (version, places) in streams.items():
            before = expected.get(stream, (0, []))[1]
            expected[stream] = (version, [*before, *places])
    joined = opened(b"".join(merge_runs(runs)))
    assert (joined.head.start, joined.head.end) == (LOG_START.identity, mark(len(parts)))
    for stream, found in expected.items():
        assert told(joined, stream) == found
    assert joined.head.streams == len(expected)
    everything = sorted(key for _, keys in parts for key in keys)
    assert list(joined.key_entries()) == everything


def test_a_range_of_places_is_read_alone() -> None:
    """A reader of one page need not read all places of a stream."""
    run = opened(run_of({"a": (9, [1, 2, 3]), "b": (5, [10, 20, 30, 40, 50])}, []))
    found = run.stream(hash_stream("b"))
    assert found is not None
    assert list(run.places(found, 1, 3)) == [20, 30]
    assert list(run.places(found, 5, 5)) == []


def test_two_keys_with_one_hash_are_both_told() -> None:
    """Also where the entries lie on two pages; the lines tell which is meant."""
    keys = [*((7, number) for number in range(600)), (8, 1), (6, 2)]
    assert sorted(opened(run_of({}, keys)).keyed(7)) == list(range(600))


def test_an_event_takes_eight_bytes_and_its_key_sixteen() -> None:
    """With 100,000 events in 100 streams: under 24 bytes and a little for each."""
    streams = {f"loop-{n}": (1_000, list(range(1_000))) for n in range(100)}
    keys = [(hash_key("s", f"k{n}"), n) for n in range(100_000)]
    assert len(run_of(streams, keys)) < 100_000 * 24.3


_SMALL: Final = run_of(
    {f"stream-{n}": (n, [n, n + 1]) for n in range(120)}, [(n << 50, n) for n in range(300)]
)


def _answers(data: bytes) -> list[object]:
    run = opened(data)
    answers: list[object] = [run.head]
    for n in range(121):
        found = run.stream(hash_stream(f"stream-{n}"))
        answers.append(found)
    answers += [list(run.keyed(n << 50)) for n in range(301)]
    return answers


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_no_changed_byte_makes_a_run_lie(bit: int) -> None:
    """Head, pages and fences: a changed byte is noticed; places are proved by their lines."""
    true = _answers(_SMALL)
    places_at = len(_SMALL) - 240 * 8
    for offset in range(0, places_at, 37):
        changed = bytearray(_SMALL)
        changed[offset] ^= bit
        with pytest.raises(BROKEN):
            assert _answers(bytes(changed)) != true


def test_no_cut_makes_a_run_lie() -> None:
    """However short the file is, it says so where bytes are missing."""
    true = _answers(_SMALL)
    for size in range(0, len(_SMALL), 61):
        try:
            run = opened(_SMALL[:size])
        except BROKEN:
            continue
        assert _answers(_SMALL[:size]) == true  # only places are missing
        found = run.stream(hash_stream("stream-119"))
        assert found is not None
        with pytest.raises(BROKEN):
            run.all_places()


@given(st.binary(max_size=5_000))
def test_no_bytes_at_all_are_taken_for_a_run(data: bytes) -> None:
    """Whatever a file holds."""
    with pytest.raises(BROKEN):
        opened(data)
