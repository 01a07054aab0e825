"""What is wrong in a log, and where: a scanner that takes it down. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from eventstore._events import NO_COMMIT
from eventstore._foreign import ForeignLine
from eventstore._log._lines import LINE_BYTES_READ_MAX, Header, header_decoder
from eventstore._log._scan import Damage, Place, Scanner

__all__ = ["Finding", "Note", "NotingScanner", "Severity"]

Severity: TypeAlias = Literal["damage", "torn", "malformed", "notice"]
"""`damage`: acknowledged data is changed or gone. `torn`: an end that was never acknowledged and
that the next writer sets aside. `malformed`: a line that nobody can read; it is skipped. `notice`:
worth knowing, nothing is wrong."""


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One thing that is not as it should be, and where.

    Attributes:
        file: its path.
        offset: byte in that file.
        position: of the line there, in the log.
        reason: what it is.
        severity: how bad that is.
    """

    file: str
    offset: int
    position: int
    reason: str
    severity: Severity


Note: TypeAlias = Callable[[int, int, str, Severity], None]
"""Takes down offset, position, reason and severity."""


class NotingScanner(Scanner[Header]):
    """A scanner that takes down where the lines stand that are no events."""

    def __init__(
        self,
        note: Note,
        place: Place,
        *,
        watch: int,
        offsets: bool,
        verified_position: int | None = None,
    ) -> None:
        super().__init__(
            decoder=header_decoder,
            foreign=_header,
            place=place,
            watch=watch,
            offsets=offsets,
            verified_position=verified_position,
        )
        self._note = note
        self._bad_places: list[Place] = []  # in an end that may still be cut
        self._is_damage = False  # what is unsettled

    def note_bad_end(self) -> None:
        """Take down the bad lines of an end that will not be cut."""
        for before in self._bad_places:
            reason = "a line that claims to be ours, and whose checksum or form is wrong"
            severity: Severity = "damage" if self._is_damage else "malformed"
            self._note(before.offset, before.position + 1, reason, severity)
        self._bad_places = []

    def _other(self, line: bytes, before: Place) -> None:
        noise = self.counts.noise
        super()._other(line, before)
        if self.counts.noise > noise:
            self._note_noise(line, before.offset, self._position)

    def _take_noise(self, lines: list[bytes]) -> None:
        offset, before = self._offset, self._position
        super()._take_noise(lines)
        for position, line in enumerate(lines, before + 1):
            self._note_noise(line, offset, position)
            offset += len(line) + 1

    def _note_noise(self, line: bytes, offset: int, position: int) -> None:
        severity: Severity = "malformed" if line.strip() else "notice"
        self._note(offset, position, _describe(line), severity)

    def _skip_to_lf(self, chunk: bytes) -> bytes:
        offset, noise = self._offset, self.counts.noise
        behind = super()._skip_to_lf(chunk)
        if self.counts.noise > noise:
            reason = f"a line of more than {LINE_BYTES_READ_MAX} bytes"
            self._note(offset, self._position, reason, "malformed")
        return behind

    def _bad(self, before: Place) -> None:
        super()._bad(before)
        self._bad_places.append(before)

    def _damage(self, damage: Damage) -> None:
        super()._damage(damage)
        self._is_damage = True
        self._note(damage.offset, damage.position, damage.reason, "damage")

    def _void_unsettled(self) -> None:
        before, void = self._unsettled, self.counts.void
        super()._void_unsettled()
        self.note_bad_end()
        void = self.counts.void - void
        if before is not None and void:
            reason = f"{void} lines of a commit that never became whole; they are no events"
            if self._is_damage:
                reason = f"{void} lines of a commit that is no longer whole; they are not shown"
            self._note(before.offset, before.position + 1, reason, "notice")

    def _take_line(self, line: bytes, offset: int, running: int) -> int:
        after = super()._take_line(line, offset, running)
        self._is_damage = self._is_damage and self._unsettled is not None
        return after


def _describe(line: bytes) -> str:
    """Why a line is no record, as far as that can be told."""
    if not line.strip():
        return "an empty line"
    if b"\0" in line:
        return "no record: the line holds NUL bytes, as a crash leaves them"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "no record: the line is not UTF-8"
    try:
        msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return "no record: the line is not JSON; it is torn, or holds two records"
    return "no record: the line is JSON of another form"


def _header(line: ForeignLine, position: int, version: int) -> Header:
    del line
    return Header(version=version, position=position, commit=NO_COMMIT)
