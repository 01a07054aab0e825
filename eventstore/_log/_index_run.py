"""One file of the index: where the streams and keys of a part of the log stand. Pure.

A *run* covers the log from one mark to the next and never changes. It holds

* an entry per stream: how many events the part holds, the last one's version, where its places
  begin; sorted by a 128-bit hash of the stream's name;
* an entry per append with an idempotency key: a 64-bit hash of stream and key, and the log offset
  of its first line; sorted by the hash;
* the places: for each event the log offset (bytes of the log before its line), stream by stream.

Entries lie in pages of 4 KiB, each with a checksum of its bytes, its number and the head, so that
a page that belongs elsewhere is noticed; the first hashes of all pages (the *fences*) stand behind
them, so that a lookup reads one page. Places and keys need no checksum: the line they
name proves them. An event takes 8 bytes, its key 16.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from eventstore._log._crc import crc32
from eventstore._log._scan import START, Counts, Place

__all__ = [
    "BROKEN",
    "LOG_START",
    "Identity",
    "IndexRun",
    "Mark",
    "RunHead",
    "StreamPlaces",
    "encode_run",
    "hash_key",
    "hash_stream",
    "merge_runs",
]

BROKEN: Final = (ValueError, OSError, msgspec.MsgspecError)
"""What reading a file that is not a run, or a damaged one, can raise."""

_HEAD_BYTES: Final = 4_096
_PAGE_BYTES: Final = 4_096
_PAGE_USED: Final = 4_080  # both sizes of an entry divide it
_MAGIC: Final = b"loopledger index 2\n"
_STREAM: Final = Struct(">16sQQQ")  # hash, first place, count, last version
_KEY: Final = Struct(">QQ")  # hash, log offset
_PAGE_CHECK: Final = Struct(">I12x")
_CHECK: Final = Struct(">I")
_PLACE_BYTES: Final = 8

Identity: TypeAlias = tuple[int, int, int]
"""Log offset, position and running CRC: what tells one point of one log from all others."""


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A point between two commits of the log, with all that is needed to go on from there.

    Attributes:
        log_offset: bytes of the log before it, those of sealed segments included.
        place: the same point in its segment.
        segment_start: where that segment begins.
        counts: lines of that segment, before the point, that are no events of ours.
    """

    log_offset: int
    place: Place
    segment_start: Place
    counts: Counts

    @property
    def identity(self) -> Identity:
        return self.log_offset, self.place.position, self.place.running


LOG_START: Final = Mark(log_offset=0, place=START, segment_start=START, counts=Counts())


class RunHead(msgspec.Struct, frozen=True, gc=False):
    """What a run says of itself.

    Attributes:
        start: where its part of the log begins.
        end: where that ends.
        main_is_ours: whether it holds no line of a foreign writer, and no noise.
        streams: number of entries.
        keys: the same.
        events: number of places.
    """

    start: Identity
    end: Mark
    main_is_ours: bool
    streams: int
    keys: int
    events: int


class StreamPlaces(NamedTuple):
    """What a run knows of a stream: where its places begin, how many, and the last version."""

    first: int
    size: int
    last_version: int


def hash_stream(stream: str) -> bytes:
    """What a stream is found by: long enough that no two names share it."""
    return blake2b(stream.encode(), digest_size=16).digest()


def hash_key(stream: str, key: str) -> int:
    """What an append with a key is found by; its line tells whether it is the one."""
    return int.from_bytes(blake2b(f"{stream}\0{key}".encode(), digest_size=8).digest())


def encode_run(
    start: Identity,
    end: Mark,
    streams: Mapping[str, tuple[int, Sequence[int]]],
    keys: Iterable[tuple[int, int]],
    *,
    main_is_ours: bool,
) -> Iterator[bytes]:
    """Write down one part of the log.

    Args:
        start: where it begins.
        end: where it ends.
        streams: the last version, and the log offsets of the events in order.
        keys: hash and log offset of each append that carries one.
        main_is_ours: as in `RunHead`.

    Yields:
        The bytes of the file.
    """
    ordered = sorted([(hash_stream(stream), *found) for stream, found in streams.items()])
    entries: list[tuple[bytes, int, int, int]] = []
    all_places = array("Q")
    for stream_hash, last_version, places in ordered:
        entries.append((stream_hash, len(all_places), len(places), last_version))
        all_places.extend(places)
    sorted_keys = sorted(keys)
    head = RunHead(start, end, main_is_ours, len(entries), len(sorted_keys), len(all_places))
    return _encode_file(head, entries, sorted_keys, [_encode_places(all_places)])


def merge_runs(runs: Sequence[IndexRun]) -> Iterator[bytes]:
    """Make one run of adjacent ones."""
    joined: dict[bytes, tuple[list[bytes], list[int]]] = {}
    for run in runs:
        places = run.all_places()
        for stream_hash, first, size, last_version in run.stream_entries():
            found = joined.get(stream_hash)
            if found is None:
                found = joined[stream_hash] = ([], [])
            found[0].append(places[_PLACE_BYTES * first : _PLACE_BYTES * (first + size)])
            found[1].append(last_version)
    entries: list[tuple[bytes, int, int, int]] = []
    all_places: list[bytes] = []
    first = 0
    for stream_hash in sorted(joined):
        parts, versions = joined[stream_hash]
        places = b"".join(parts)
        size = len(places) // _PLACE_BYTES
        entries.append((stream_hash, first, size, versions[-1]))
        all_places.append(places)
        first += size
    head = RunHead(
        start=runs[0].head.start,
        end=runs[-1].head.end,
        main_is_ours=all(run.head.main_is_ours for run in runs),
        streams=len(entries),
        keys=sum(run.head.keys for run in runs),
        events=first,
    )
    keys = heapq.merge(*(run.key_entries() for run in runs))  # there may be many: never all at once
    return _encode_file(head, entries, keys, all_places)


class IndexRun:
    """A run that is read page by page.

    Args:
        read: gives so many bytes at an offset of its file; fewer at the end.

    Raises:
        ValueError: the file is no run, or a damaged one. So do all methods; see `BROKEN`.
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        head = read(_HEAD_BYTES, 0)
        self.head = _decode_head(head)
        self._check = crc32(head)
        stream_pages = _pages(self.head.streams, _STREAM)
        key_pages = _pages(self.head.keys, _KEY)
        self._keys_at = _HEAD_BYTES + stream_pages * _PAGE_BYTES
        fences_at = self._keys_at + key_pages * _PAGE_BYTES
        size = (stream_pages + key_pages) * _PLACE_BYTES
        data = read(size + _CHECK.size, fences_at)
        if data[size:] != _CHECK.pack(crc32(data[:size], self._check)):
            msg = "the fences fail their checksum"
            raise ValueError(msg)
        fences = _decode_places(data[:size])
        self._stream_fences, self._key_fences = fences[:stream_pages], fences[stream_pages:]
        self._places_at = fences_at + len(data)

    def stream(self, stream_hash: bytes) -> StreamPlaces | None:
        """What the run knows of a stream."""
        for number in _pages_with(self._stream_fences, _fence(stream_hash)):
            for entry in _find(self._page(_HEAD_BYTES, number), stream_hash, _STREAM):
                return StreamPlaces(*entry[1:])
        return None

    def keyed(self, key_hash: int) -> Iterator[int]:
        """The log offsets of the appends that may carry a key."""
        for number in _pages_with(self._key_fences, key_hash):
            page = self._page(self._keys_at, number)
            for entry in _find(page, key_hash.to_bytes(_PLACE_BYTES), _KEY):
                yield entry[1]

    def places(self, stream: StreamPlaces, start: int, stop: int) -> array[int]:
        """The log offsets of a stream's events, those from `start` up to `stop` of this run."""
        assert 0 <= start <= stop <= stream.size
        size = _PLACE_BYTES * (stop - start)
        data = self._read(size, self._places_at + _PLACE_BYTES * (stream.first + start))
        if len(data) != size:
            msg = "the places end too soon"
            raise ValueError(msg)
        return _decode_places(data)

    def all_places(self) -> bytes:
        """All places, as they stand in the file."""
        size = _PLACE_BYTES * self.head.events
        data = self._read(size, self._places_at)
        if len(data) != size:
            msg = "the places end too soon"
            raise ValueError(msg)
        return data

    def stream_entries(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Hash, first place, number of places and last version of all streams, by their hash."""
        return self._entries(_HEAD_BYTES, self.head.streams, _STREAM)

    def key_entries(self) -> Iterator[tuple[int, int]]:
        """Hash and log offset of all keys, in the order of the hash."""
        return self._entries(self._keys_at, self.head.keys, _KEY)

    def _entries(self, at: int, count: int, form: Struct) -> Iterator[Any]:
        used = count * form.size
        for number in range(_pages(count, form)):
            yield from form.iter_unpack(self._page(at, number)[: used - number * _PAGE_USED])

    def _page(self, at: int, number: int) -> bytes:
        page = self._read(_PAGE_BYTES, at + number * _PAGE_BYTES)
        used = page[:_PAGE_USED]
        check = self._check ^ (at // _PAGE_BYTES + number)
        if page[_PAGE_USED:] != _PAGE_CHECK.pack(crc32(used, check)):
            msg = f"the page at byte {at + number * _PAGE_BYTES} fails its checksum"
            raise ValueError(msg)
        return used


# --- the file ---


def _encode_file(
    head: RunHead,
    streams: Iterable[tuple[bytes, int, int, int]],
    keys: Iterable[tuple[int, int]],
    places: Iterable[bytes],
) -> Iterator[bytes]:
    text = _MAGIC + msgspec.json.encode(head)
    text += b" " * (_HEAD_BYTES - _CHECK.size - len(text))
    text += _CHECK.pack(crc32(text))
    check = crc32(text)
    yield text
    fences = array("Q")
    for form, entries in ((_STREAM, streams), (_KEY, keys)):
        packed = (form.pack(*entry) for entry in entries)
        while page := b"".join(itertools.islice(packed, _PAGE_USED // form.size)):
            fences.append(_fence(page))
            page = page.ljust(_PAGE_USED, b"\0")
            yield page + _PAGE_CHECK.pack(crc32(page, check ^ len(fences)))
    data = _encode_places(fences)
    yield data + _CHECK.pack(crc32(data, check))
    yield from places


def _decode_head(data: bytes) -> RunHead:
    text = data[: -_CHECK.size]
    if len(data) != _HEAD_BYTES or data[-_CHECK.size :] != _CHECK.pack(crc32(text)):
        msg = "the head fails its checksum"
        raise ValueError(msg)
    if not text.startswith(_MAGIC):
        msg = "the file is of another kind or version"
        raise ValueError(msg)
    return msgspec.json.decode(text[len(_MAGIC) :], type=RunHead)


def _pages(count: int, form: Struct) -> int:
    return -(-count // (_PAGE_USED // form.size))


def _fence(entry: bytes) -> int:
    return int.from_bytes(entry[:_PLACE_BYTES])


def _pages_with(fences: array[int], fence: int) -> range:
    """Which pages may hold entries that begin with these bytes."""
    first = max(0, bisect.bisect_left(fences, fence) - 1)
    return range(first, bisect.bisect_right(fences, fence))


def _find(page: bytes, needle: bytes, form: Struct) -> Iterator[tuple[Any, ...]]:
    """The entries of a page that begin with these bytes."""
    at = page.find(needle)
    while at >= 0:
        if at % form.size == 0:
            yield form.unpack_from(page, at)
        at = page.find(needle, at + 1)


def _encode_places(places: Sequence[int]) -> bytes:
    packed = array("Q", places)
    if sys.byteorder == "big":  # places are little-endian in the file, whoever wrote it
        packed.byteswap()
    return packed.tobytes()


def _decode_places(data: bytes) -> array[int]:
    places = array("Q")
    places.frombytes(data)
    if sys.byteorder == "big":  # places are little-endian in the file, whoever wrote it
        places.byteswap()
    return places
