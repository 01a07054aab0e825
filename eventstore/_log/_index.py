"""What the writer must know of the log's past: versions and keys. Pure.

The older part stands in runs on the disk (`_index_run`), what came since is kept here. It is fed
with every visible line, and gives up what it keeps as one more run from time to time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from eventstore._events import MAIN_STREAM, Appended
from eventstore._log._index_run import (
    BROKEN,
    LOG_START,
    IndexRun,
    Mark,
    encode_run,
    hash_key,
    hash_stream,
)
from eventstore._log._lines import Header

__all__ = ["Index", "IndexDamagedError", "RecentIndex"]

_STREAMS_KEPT: Final = 4_096  # versions that were looked up in the runs


class IndexDamagedError(Exception):
    """A run on the disk cannot be read: only the log itself tells."""


class _Stream:
    """What is known of one stream: its last version, and the log offsets of its events."""

    __slots__ = ("places", "version")

    def __init__(self, version: int, places: Iterable[int] = ()) -> None:
        self.version = version
        self.places = array("Q", places)  # a list would take five times the memory


class RecentIndex:
    """What a part of the log holds, in memory.

    Args:
        position: of the last line before that part.
    """

    __slots__ = ("keys", "main_is_ours", "position", "streams")

    def __init__(self, position: int) -> None:
        self.streams: dict[str, _Stream] = {}
        self.keys: dict[tuple[str, str], int] = {}
        self.main_is_ours = True
        self.position = position

    @property
    def versions(self) -> dict[str, int]:
        """The last version of each stream."""
        return {stream: known.version for stream, known in self.streams.items()}

    def add_lines(self, headers: Sequence[Header], offsets: Sequence[int], base: int) -> None:
        """Note visible lines. Those that are known already change nothing.

        Args:
            headers: in the log's order.
            offsets: where each begins in its segment.
            base: bytes of the log before that segment.
        """
        get, streams = self.streams.get, self.streams
        position = self.position
        for header, offset in zip(headers, offsets, strict=True):
            if header.position <= position:
                continue
            stream = header.stream
            known = get(stream)
            if known is None:
                known = streams[stream] = _Stream(header.version)
            else:
                known.version = header.version
            known.places.append(base + offset)
            if header.key is not None:
                self.keys.setdefault((stream, header.key), base + offset)
        if headers:
            self.position = max(position, headers[-1].position)

    def add_append(
        self, stream: str, key: str | None, offsets: list[int], appended: Appended | None
    ) -> None:
        """Note an append of this store.

        Args:
            stream: its stream.
            key: its key.
            offsets: log offsets of its lines.
            appended: its result.
        """
        assert appended is not None
        known = self.streams.get(stream)
        if known is None:
            self.streams[stream] = _Stream(appended.version, offsets)
        else:
            known.version = appended.version
            known.places.fromlist(offsets)
        if key is not None:
            self.keys[stream, key] = offsets[0]
        self.position = appended.position

    def set_version(self, stream: str, version: int) -> None:
        """Note how far a stream has come, whatever made it so."""
        known = self.streams.get(stream)
        if known is None:
            self.streams[stream] = _Stream(version)
        else:
            known.version = version

    def absorb(self, later: RecentIndex) -> None:
        """Take over what the next part of the log holds."""
        for stream, more in later.streams.items():
            known = self.streams.get(stream)
            if known is None:
                self.streams[stream] = more
            else:
                known.version = more.version
                known.places.extend(more.places)
        for names, offset in later.keys.items():
            self.keys.setdefault(names, offset)
        self.main_is_ours &= later.main_is_ours
        self.position = later.position


class Index:
    """Stream versions, and where the appends with a key stand.

    Args:
        runs: adjacent parts of the log, from its beginning.
    """

    def __init__(self, runs: Sequence[IndexRun] = ()) -> None:
        self._runs = list(runs)
        self._looked_up: dict[str, int] = {}
        self.recent = RecentIndex(self.mark.place.position)

    @property
    def runs(self) -> Sequence[IndexRun]:
        """The parts of the log that stand on the disk, oldest first."""
        return self._runs

    @property
    def mark(self) -> Mark:
        """Where the runs end."""
        return self._runs[-1].head.end if self._runs else LOG_START

    def version(self, stream: str) -> int:
        """How many events the stream holds.

        Raises:
            IndexDamagedError: nobody knows.
        """
        known = self.recent.streams.get(stream)
        if known is not None:
            return known.version
        version = self._looked_up.get(stream)
        if version is None:
            version = self._look_up(stream)
            if len(self._looked_up) >= _STREAMS_KEPT:
                self._looked_up.clear()
            self._looked_up[stream] = version
        return version

    def keyed(self, stream: str, key: str) -> Iterator[int]:
        """The log offsets at which an append of this stream with this key may begin.

        Raises:
            IndexDamagedError: nobody knows.
        """
        offset = self.recent.keys.get((stream, key))
        if offset is not None:
            yield offset
        elif self._runs:
            key_hash = hash_key(stream, key)
            try:
                found = [offset for run in self._runs for offset in run.keyed(key_hash)]
            except BROKEN as error:
                raise IndexDamagedError from error
            yield from found

    def set_main_version(self, version: int) -> None:
        """Note how many events and noise lines `main` holds."""
        if version > self.version(MAIN_STREAM):
            self.recent.set_version(MAIN_STREAM, version)

    # --- from memory to the disk ---

    def encode_recent(self, end: Mark) -> Iterator[bytes]:
        """What came since the last run, as the bytes of a run that ends here."""
        recent = self.recent
        streams = {
            stream: (known.version, known.places) for stream, known in recent.streams.items()
        }
        keys = [(hash_key(*names), offset) for names, offset in recent.keys.items()]
        start = self.mark.identity
        return encode_run(start, end, streams, keys, main_is_ours=recent.main_is_ours)

    def add_run(self, run: IndexRun) -> None:
        """From now on this run tells what was told from memory."""
        assert run.head.start == self.mark.identity, "the run begins elsewhere"
        assert run.head.end.place.position >= self.recent.position, "the run ends too soon"
        self._runs.append(run)
        self._looked_up.clear()
        self.recent = RecentIndex(run.head.end.place.position)

    def replace_runs(self, count: int, run: IndexRun) -> None:
        """From now on this run stands for the last ones."""
        assert run.head.end == self.mark, "the run ends elsewhere"
        self._runs[-count:] = [run]

    def _look_up(self, stream: str) -> int:
        if stream == MAIN_STREAM:
            return self.mark.place.main_version
        stream_hash = hash_stream(stream) if self._runs else b""
        try:
            for run in reversed(self._runs):
                found = run.stream(stream_hash)
                if found is not None:
                    return found.last_version
        except BROKEN as error:
            raise IndexDamagedError from error
        return 0
