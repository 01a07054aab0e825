"""The files of a log as its readers see them: opened by what a snapshot says, and scanned."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Generic

from eventstore._codec import Codec, RecordedDecoder
from eventstore._events import E, Recorded
from eventstore._foreign import ForeignLine
from eventstore._log._files import Files
from eventstore._log._names import LogNames
from eventstore._log._scan import Damage, Place, Scanner
from eventstore._log._snapshot import Segment

__all__ = ["LogFiles"]

_logger: Final = logging.getLogger("eventstore")


class LogFiles(Generic[E]):
    """What a cursor needs: the files, their names and the codec."""

    def __init__(self, files: Files, names: LogNames, codec: Codec[E]) -> None:
        self.files = files
        self.names = names
        self._codec = codec

    def scanner(
        self,
        place: Place,
        *,
        data: bool,
        numbers: bool = True,
        verified_position: int | None = None,
    ) -> Scanner[Recorded[E]]:
        """A scanner that decodes events."""
        types = self._codec.types

        def foreign(line: ForeignLine, position: int, version: int) -> Recorded[E]:
            return Recorded(
                event=types.decode(line.payload),
                timestamp=line.timestamp,
                version=version if numbers else 0,
                position=position if numbers else 0,
                data=line.data,
                foreign_timestamp=line.timestamp_text,
            )

        return Scanner(
            decoder=self._codec.decoder(data=data),
            foreign=foreign,
            place=place,
            verified_position=verified_position,
        )

    def decoder(self, *, data: bool) -> RecordedDecoder[E]:
        """A decoder of verified lines of ours."""
        return self._codec.decoder(data=data)

    def report(self, segment: Segment, damages: list[Damage]) -> None:
        """Say what reading goes around."""
        for damage in damages:
            _logger.error(
                "%s: damage at byte %d, position %d: %s; reading goes on behind it",
                self.files.path(segment.name),
                damage.offset,
                damage.position,
                damage.reason,
            )

    @contextmanager
    def opened(self, segment: Segment) -> Generator[int]:
        """Open a segment of a snapshot, which may have been sealed or renewed since."""
        handle = self._open(segment)
        try:
            yield handle
        finally:
            self.files.close(handle)

    def _open(self, segment: Segment) -> int:
        files = self.files
        handle = None
        try:
            handle = files.open(segment.name, "read")
            if files.fstat(handle).inode == segment.inode:
                return handle
        except FileNotFoundError:
            pass  # sealed, and the next active file is not made yet
        try:
            name = self._name_now(segment)
            return files.open(name, "read")
        finally:
            if handle is not None:
                files.close(handle)

    def _name_now(self, segment: Segment) -> str:
        """Where a segment is, whose file is no longer the one of that name."""
        files, names = self.files, self.names
        sealed = names.sealed_positions(files.listdir(""))
        for first_position in reversed(sealed):
            status = files.stat(names.sealed(first_position))
            if status is not None and status.inode == segment.inode:
                return names.sealed(first_position)
        # It was copied to a new inode after an error, with the same bytes (if not, the checksums
        # say so), and that copy may have been sealed since.
        later = [first_position for first_position in sealed if first_position > segment.after]
        if segment.first_position or not later:
            return segment.name
        return names.sealed(later[0])
