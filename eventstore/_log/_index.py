"""What the writer must know of the log's past: versions and keys. Pure.

It is rebuilt from the log when a store opens, and fed with every visible line after that.
"""

from __future__ import annotations

from typing import NamedTuple

from eventstore._log._lines import Header

__all__ = ["Index", "KeyedAppend"]


class KeyedAppend(NamedTuple):
    """Where an append with an idempotency key stands."""

    segment: int
    offset: int
    first_version: int
    last_version: int
    last_position: int


class Index:
    """Stream versions, and the appends that carry a key."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._keys: dict[tuple[str, str], KeyedAppend] = {}

    def version(self, stream: str) -> int:
        """How many events the stream holds."""
        return self._versions.get(stream, 0)

    def set_version(self, stream: str, version: int) -> None:
        """Note a stream's version; an event lost to damage never lowers it."""
        if version > self._versions.get(stream, 0):
            self._versions[stream] = version

    def keyed(self, stream: str, key: str) -> KeyedAppend | None:
        """The append of this stream that carries this key."""
        return self._keys.get((stream, key))

    def add_keyed(self, stream: str, key: str, append: KeyedAppend) -> None:
        """Note an append that carries a key."""
        self._keys[stream, key] = append

    def add(self, header: Header, *, segment: int, offset: int) -> None:
        """Note one visible line. Feeding the same line twice changes nothing."""
        stream, version, key = header.stream, header.version, header.key
        self.set_version(stream, version)
        if key is None:
            return
        place = self._keys.get((stream, key))
        if place is None or version <= place.first_version:
            first = KeyedAppend(segment, offset, version, version, header.position)
            self._keys[stream, key] = first
        elif version == place.last_version + 1:
            self._keys[stream, key] = place._replace(
                last_version=version, last_position=header.position
            )
