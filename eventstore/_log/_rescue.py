"""Which lines of a damaged log are still events, and which commits they belong to. Pure.

A line of ours whose own CRC holds is what was written, whatever happened around it; a foreign line
that decodes is one too. What must be decided is what becomes of a commit of ours that is not whole:

* Every line of ours, from its first to the next one behind it, continues the bytes before it: so
  those bytes are as they were when that next line was written, and the commit never was whole. It
  was never acknowledged, and its lines are no events.
* One of them does not: bytes have changed since. The commit's other lines are damage too, and
  these are kept.
* Nothing of ours follows: only the lock record can tell that it was acknowledged.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from typing import Any, Final, NamedTuple

import msgspec

from eventstore._events import MAIN_STREAM, Commit
from eventstore._foreign import Envelope, decode_foreign
from eventstore._log._crc import crc32
from eventstore._log._lines import (
    LF,
    SUFFIX_BYTES,
    Header,
    decode_header,
    has_suffix,
    is_intact,
    running_after,
)

__all__ = ["Found", "Kept", "Ranges", "Rescuer"]

_UNDECIDED_BYTES_MAX: Final = 64 * 2**20  # foreign lines that wait for a commit to be decided
_NUMBERS_BYTES_MAX: Final = 160
_NUMBERS: Final = re.compile(
    rb',"version":[0-9]+,"position":[0-9]+,"commit":\[[0-9]+,[0-9]+\](?:,"durable":[0-9]+)?\Z'
)
_NUMBER_NAMES: Final = frozenset({"version", "position", "commit", "durable", "crc"})

_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class Kept(NamedTuple):
    """A line that is an event.

    Attributes:
        content: of a line of ours everything before its numbers; a foreign line as it is.
        stream: it belongs to.
        position: it had, as far as that can be told.
        is_ours: or of a foreign writer.
    """

    content: bytes
    stream: str
    position: int
    is_ours: bool


class Found(msgspec.Struct, gc=False):
    """What became of the lines.

    Attributes:
        ours: lines of ours that are kept.
        foreign: records of a foreign writer that are kept.
        partial: of `ours`, those of commits that are no longer whole.
        unfinished: intact lines of commits that never were whole; not kept.
        repeated: lines that stand there a second time; not kept.
        bad: lines that claim to be ours, and whose checksum or form is wrong.
        noise: lines that are no record of anybody.
        position: of the last line, as far as that can be told.
    """

    ours: int = 0
    foreign: int = 0
    partial: int = 0
    unfinished: int = 0
    repeated: int = 0
    bad: int = 0
    noise: int = 0
    position: int = 0


class Ranges:
    """Which old positions are kept, and which new ones they have, as runs of adjacent ones."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        """Old first, old last, new first; in the order of the new log."""

    def add(self, old: int, new: int) -> None:
        """Note one event."""
        if self.runs:
            first, last, new_first = self.runs[-1]
            if old == last + 1 and new == new_first + old - first:
                self.runs[-1][1] = old
                return
        self.runs.append([old, old, new])


class _Seen:
    """The positions of lines of ours that were met, as runs."""

    def __init__(self) -> None:
        self._runs: list[list[int]] = []
        self._starts: list[tuple[int, int]] = []  # where a run begins and its index, in order

    def add(self, position: int, *, bridges: bool) -> None:
        """Note a position.

        Args:
            position: of a line.
            bridges: those between the last one and this belong to others, as the bytes prove.
        """
        if self._runs:
            last = self._runs[-1][1]
            if position == last + 1 or (bridges and position > last):
                self._runs[-1][1] = position
                return
        insort(self._starts, (position, len(self._runs)))
        self._runs.append([position, position])

    def __contains__(self, position: int) -> bool:
        at = bisect_right(self._starts, (position, len(self._runs)))
        return bool(at) and position <= self._runs[self._starts[at - 1][1]][1]


class Rescuer:
    """Takes the lines of a log in order, and says which of them are events.

    Args:
        durable_position: what a lock record of this log calls durable; 0 if there is none.

    After each call, `groups` holds what was decided: the lines of one commit, or one foreign line.
    The caller empties it, and notes in `ranges` where each line went.
    """

    def __init__(self, *, durable_position: int) -> None:
        self.groups: list[list[Kept]] = []
        self.found = Found()
        self.ranges = Ranges()
        self._durable_position = durable_position
        self._seen = _Seen()
        # What the running CRC may be here: as computed, and as the last line of ours claims.
        self._running: set[int] = {0}
        self._commit: Commit | None = None  # not whole yet
        self._waiting: list[Kept] = []  # its lines, and foreign ones behind them
        self._waiting_ours = 0
        self._waiting_bytes = 0
        self._misfits = False

    def take(self, line: bytes) -> None:
        """Take the next line, without its LF."""
        self.found.position += 1
        header = _header(line)
        if header is not None:
            self._take_ours(line, header)
            return
        self._running = {crc32(LF, crc32(line, running)) for running in self._running}
        verdict = decode_foreign(line)
        if has_suffix(line) or isinstance(verdict, Envelope):
            self.found.bad += 1
        elif verdict is None:
            self.found.noise += 1
        else:
            self._take_foreign(line)

    def skip(self) -> None:
        """Pass over a line that is too long to be anybody's."""
        self.found.position += 1
        self.found.noise += 1
        self._running = set()

    def finish(self) -> None:
        """Decide what is left at the end of the log."""
        if self._commit is not None:
            self._decide(acknowledged=self._commit.last <= self._durable_position)

    def _take_ours(self, line: bytes, header: Header) -> None:
        body, suffix = line[:-SUFFIX_BYTES], line[-SUFFIX_BYTES:] + LF
        computed = {crc32(body, running) for running in self._running}
        fits = int(line[-10:-2], 16) in computed
        after = running_after(suffix)
        assert after is not None, "an intact line ends in a suffix"
        self._running = {after}
        if not fits:  # these digits may be what is damaged
            self._running |= {crc32(suffix, running) for running in sorted(computed)[:2]}
        if self._commit is not None and header.commit != self._commit:
            self._decide(acknowledged=self._misfits or not fits)
        self.found.position = header.position
        is_repeated = header.position in self._seen
        self._commit = header.commit
        self._misfits = self._misfits or is_repeated or not fits
        if is_repeated:
            self.found.repeated += 1
            return
        self._seen.add(header.position, bridges=fits)
        kept = Kept(_content(line, body), header.stream, header.position, is_ours=True)
        self._waiting.append(kept)
        self._waiting_ours += 1
        self._waiting_bytes += len(line)
        if self._waiting_ours == header.commit.last - header.commit.first + 1:
            self._keep_waiting()

    def _take_foreign(self, line: bytes) -> None:
        kept = Kept(line, MAIN_STREAM, self.found.position, is_ours=False)
        self.found.foreign += 1
        if self._commit is None:
            self.groups.append([kept])
            return
        self._waiting.append(kept)
        self._waiting_bytes += len(line)
        if self._waiting_bytes > _UNDECIDED_BYTES_MAX:
            self._decide(acknowledged=self._misfits)

    def _decide(self, *, acknowledged: bool) -> None:
        """Say what becomes of a commit that is not whole."""
        if acknowledged:
            self.found.partial += self._waiting_ours
        else:
            self.found.unfinished += self._waiting_ours
            self._waiting = [kept for kept in self._waiting if not kept.is_ours]
            self._waiting_ours = 0
        self._keep_waiting()

    def _keep_waiting(self) -> None:
        ours = [kept for kept in self._waiting if kept.is_ours]
        if len(ours) == len(self._waiting):
            if ours:
                self.groups.append(ours)
        else:  # foreign lines stand between: a commit's lines are adjacent, so each is its own
            self.groups += [[kept] for kept in self._waiting]
        self.found.ours += self._waiting_ours
        self._commit, self._waiting = None, []
        self._waiting_ours = self._waiting_bytes = 0
        self._misfits = False


def _header(line: bytes) -> Header | None:
    """The numbers of a line of ours, if it is intact."""
    if not is_intact(line):
        return None
    try:
        header = decode_header(line)
        int(line[-10:-2], 16)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    commit = header.commit
    return header if commit.first <= header.position <= commit.last else None


def _content(line: bytes, body: bytes) -> bytes:
    """What a line of ours says besides its numbers, byte for byte."""
    numbers = _NUMBERS.search(body, max(0, len(body) - _NUMBERS_BYTES_MAX))
    if numbers is not None:
        return body[: numbers.start()]
    members: dict[str, Any] = _decode_members(line)  # in another order, or with members to come
    rest = [
        _encode(name) + b":" + bytes(value)
        for name, value in members.items()
        if name not in _NUMBER_NAMES
    ]
    return b"{" + b",".join(rest)
