"""From chunks of bytes to verified lines: what is there, what is void, what is damaged. Pure.

The rules, in the order they bite (FORMAT.md has them numbered):

* A line ends at the byte LF and nowhere else; its position is its ordinal in the log.
* A line is *ours* if it ends in the `crc` member and its own CRC holds. A line that claims to be
  ours (a suffix, or a top-level member of our envelope) and is not, is *bad*. Any other line is
  foreign: an event of `main` if it decodes, *noise* if not; it uses up one version of `main`.
* A commit is visible when its lines follow one another directly, stand at their ordinals, and the
  running CRC each carries is the one computed from the bytes before it.
* Lines of ours that do not fit are *unsettled*. A foreign line after them makes them void: they
  keep their positions and are no events. At the end of the log they are a torn commit. A later
  line of ours that does fit proves that whatever stands before it stood there when it was written.
* Damage to acknowledged data needs proof: a line of ours whose running CRC contradicts the bytes,
  while the lines from what was durable at its writing up to itself are all there and chain among
  themselves. Then reading goes on from what that line claims.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from eventstore._events import MAIN_STREAM
from eventstore._foreign import Envelope, ForeignLine, decode_foreign
from eventstore._log._commits import Numbered, count_whole
from eventstore._log._crc import crc32
from eventstore._log._lines import (
    LF,
    LINE_BYTES_READ_MAX,
    SUFFIX_BYTES,
    SUFFIX_HEAD,
    decode_header,
    has_suffix,
    start_of_last,
)

__all__ = [
    "NUL",
    "START",
    "Counts",
    "Damage",
    "LineDecoder",
    "Place",
    "Scanner",
    "ends_as_foreign_record",
]

NUL: Final = b"\0"


_NOT_NOISE_BYTES_MIN: Final = len(b'{"crc":0}')  # what is shorter is no record, and claims nothing
_CRC_TEXT: Final = 18  # sixteen hex digits, a quote and a brace
_DAMAGES_KEPT: Final = 100  # a report of more is no longer read; the count goes on


class Place(msgspec.Struct, frozen=True, gc=False):
    """A point between two lines of one segment, with all that is needed to go on from it."""

    offset: int
    position: int
    running: int
    main_version: int


START: Final = Place(offset=0, position=0, running=0, main_version=0)


class Damage(msgspec.Struct, frozen=True, gc=False):
    """A place where acknowledged data is not what was written."""

    offset: int
    position: int
    reason: str


class Counts(msgspec.Struct, gc=False):
    """Lines that are no events of ours."""

    foreign: int = 0
    noise: int = 0
    void: int = 0
    bad: int = 0


L = TypeVar("L", bound=Numbered)


class LineDecoder(Protocol[L]):
    """Decodes lines of ours; raises a `MsgspecError`, `ValueError` or `RecursionError`."""

    def decode(self, line: bytes, /) -> L:
        """One line, with or without its LF."""
        ...

    def decode_lines(self, lines: bytes, /) -> list[L]:
        """Many lines at once; may refuse what `decode` takes."""
        ...


class _Held(NamedTuple, Generic[L]):
    """A line of ours that waits for a proof."""

    line: L
    before: Place
    end: int


class Scanner(Generic[L]):
    """Follows one log from a trusted place, segment by segment.

    Args:
        decoder: turns lines of ours into what the caller wants to have of them.
        foreign: the same for a decoded line of a foreign writer, with its position and version.
        place: where to begin; everything before it is taken as verified.
        watch: an offset of the first segment; the running CRC there is kept in `watched`.
        offsets: note where each visible line begins.
        verified_position: of the last line of ours that fitted, where that lies before `place`.

    After each `feed`, `lines` and `offsets` hold what became visible; the caller empties them.
    """

    def __init__(
        self,
        *,
        decoder: LineDecoder[L],
        foreign: Callable[[ForeignLine, int, int], L],
        place: Place = START,
        watch: int = -1,
        offsets: bool = False,
        verified_position: int | None = None,
    ) -> None:
        self.lines: list[L] = []
        self.offsets: list[int] = []
        self.counts = Counts()
        self.damages: list[Damage] = []
        self.damage_count = 0
        self.watched: int | None = place.running if watch == place.offset else None
        self._decoder = decoder
        self._with_offsets = offsets
        self._foreign = foreign
        self._watch = watch
        self._position = place.position
        self._running = place.running
        self._main_version = place.main_version
        self._offset = place.offset  # of the first byte of `_rest`
        self._rest = b""
        self._skipped = 0  # bytes of an over-long line that were let go
        self._verified_position = place.position
        self._verified_end = place.offset
        if verified_position is not None and verified_position < place.position:
            self._verified_position, self._verified_end = verified_position, 0
        self._unsettled: Place | None = None
        self._unsettled_lines = 0
        self._unsettled_bad = 0
        self._proved_from: int | None = None  # verified position, if what is unsettled is damage
        self._commit: list[L] = []  # of a commit that is not whole yet
        self._commit_offsets: list[int] = []
        self._chain: list[_Held[L]] = []  # lines of ours that only chain among themselves
        self._chain_running = 0

    # --- what the caller asks ---

    @property
    def place(self) -> Place:
        """Behind the last complete line."""
        return Place(
            offset=self._offset,
            position=self._position,
            running=self._running,
            main_version=self._main_version,
        )

    @property
    def settled(self) -> Place:
        """Behind the last line that stays whatever comes: where recovery would cut."""
        return self._unsettled or self.place

    @property
    def verified_position(self) -> int:
        """Of the last line of ours that fitted, before `settled`: who begins there needs it."""
        if self._proved_from is not None:
            return self._proved_from
        return min(self._verified_position, self.settled.position)

    @property
    def sound(self) -> tuple[int, int]:
        """Offset and position up to which everything is proved: damage lies behind it."""
        settled = self.settled
        return min(
            (self._verified_end, self._verified_position), (settled.offset, settled.position)
        )

    @property
    def rest(self) -> bytes:
        """What stands after the last LF."""
        return self._rest

    @property
    def rest_size(self) -> int:
        """How many bytes stand after the last LF, those of an over-long line included."""
        return self._skipped + len(self._rest)

    def next_segment(self) -> None:
        """Go on at the first byte of the next segment.

        A rest without its LF is a line that lost it: nothing of the next segment belongs to it.
        """
        if self._skipped or self._rest:
            self._position += 1
            self._running = crc32(self._rest, self._running)
            self._rest = b""
            self._skipped = 0
            self._count_noise()
        self._void_unsettled()  # nothing is torn before the end of the log
        self._chain = []
        self._offset = 0
        self._verified_end = 0
        self._watch = -1

    def finish_foreign_record(self) -> bool:
        """Give a complete foreign record at the end its LF; NULs behind it are a torn part.

        Returns:
            Whether there was one.
        """
        if not ends_as_foreign_record(self._rest):
            return False
        self._rest = self._rest.rstrip(NUL)
        self.feed(LF)
        return True

    # --- feeding ---

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the segment."""
        ahead = self._watch - self._offset - self.rest_size
        if 0 < ahead <= len(chunk):
            watch, self._watch = self._watch, -1
            self.feed(chunk[:ahead])
            if self._offset == watch:  # a line begins there
                self.watched = self._running
            chunk = chunk[ahead:]
        if self._skipped:
            chunk = self._skip_to_lf(chunk)
            if not chunk:
                return
        data = self._rest + chunk if self._rest else chunk
        end = data.rfind(LF) + 1
        if end:
            whole, self._rest = (data, b"") if end == len(data) else (data[:end], data[end:])
            if not self._take_clean(whole):
                self._take_lines(whole)
        else:
            self._rest = data
        if len(self._rest) > LINE_BYTES_READ_MAX:
            self._skipped = len(self._rest)
            self._running = crc32(self._rest, self._running)
            self._rest = b""

    def _take_clean(self, data: bytes) -> bool:
        """Take lines that are all ours and all fit, with a handful of calls for all of them.

        One CRC up to the last line's suffix verifies every byte, and the numbers show that the
        commits are whole. A line of ours that is void never hides in such a chunk: it is always
        followed by a foreign line, which has no numbers.

        Returns:
            False if there is anything else among them; nothing was taken then.
        """
        cut = len(data) - SUFFIX_BYTES - 1
        if self._unsettled is not None and not self._commit:
            return False
        if cut <= 0 or data[cut : cut + len(SUFFIX_HEAD)] != SUFFIX_HEAD:
            return False
        view = memoryview(data)
        at_cut = crc32(view[:cut], self._running)
        own = crc32(view[data.rfind(LF, 0, cut) + 1 : cut])
        if data[-_CRC_TEXT - 1 : -1] != b'%08x%08x"}' % (own, at_cut):
            return False
        try:
            lines = self._decoder.decode_lines(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        position, count = self._position, len(lines)
        if [line.position for line in lines] != list(range(position + 1, position + count + 1)):
            return False
        open_commit = self._commit[0].commit if self._commit else None
        whole = count_whole(lines, position, open_commit)
        if whole is None:
            return False
        offsets = self._line_offsets(data)
        if whole:
            self._show_whole(lines[:whole], offsets[:whole])
        if whole < count:
            self._keep_open(lines[whole:], offsets[whole:], data, whole)
        self._running = crc32(view[cut:], at_cut)
        self._position = self._verified_position = position + count
        self._offset += len(data)
        self._verified_end = self._offset
        self._chain = []
        return True

    def _line_offsets(self, data: bytes) -> list[int]:
        """Where lines begin, or nothing if nobody asks."""
        if not self._with_offsets:
            return []
        start, size, find = self._offset, len(data), data.find
        offsets: list[int] = []
        at = 0
        while at < size:
            offsets.append(start + at)
            at = find(LF, at) + 1
        return offsets

    def _show_whole(self, lines: list[L], offsets: list[int]) -> None:
        """Show lines that end a commit; those before them that wait for it too."""
        if self._commit:
            lines, offsets = self._commit + lines, self._commit_offsets + offsets
            self._commit, self._commit_offsets = [], []
            self._unsettled = self._proved_from = None
            self._unsettled_lines = 0
        if MAIN_STREAM in [line.stream for line in lines]:
            self._main_version = next(
                line.version for line in reversed(lines) if line.stream == MAIN_STREAM
            )
        self.lines += lines
        self.offsets += offsets

    def _keep_open(self, lines: list[L], offsets: list[int], data: bytes, index: int) -> None:
        """Keep the lines of a commit whose end is in a later chunk."""
        if self._unsettled is None:
            start = start_of_last(data, len(data), len(lines))
            self._unsettled = Place(
                offset=self._offset + start,
                position=self._position + index,
                running=crc32(memoryview(data)[:start], self._running),
                main_version=self._main_version,
            )
        self._commit += lines
        self._commit_offsets += offsets
        self._unsettled_lines += len(lines)

    def _take_lines(self, data: bytes) -> None:
        """Take whole lines one by one, whatever they are; runs of tiny ones at once."""
        tiny: list[bytes] = []
        for line in data[:-1].split(LF):
            if len(line) < _NOT_NOISE_BYTES_MIN:
                tiny.append(line)
                continue
            if tiny:
                self._take_noise(tiny)
                tiny = []
            self._position += 1
            self._running = self._take_line(line, self._offset, self._running)
            self._offset += len(line) + 1
        if tiny:
            self._take_noise(tiny)

    def _take_noise(self, lines: list[bytes]) -> None:
        data = LF.join([*lines, b""])
        self._position += len(lines)
        self._running = crc32(data, self._running)
        self._offset += len(data)
        self._count_noise(len(lines))

    def _take_line(self, line: bytes, offset: int, running: int) -> int:
        """Take any line.

        Returns:
            The running CRC after it: computed, or as the line claims it if it proves damage.
        """
        before = Place(
            offset=offset,
            position=self._position - 1,
            running=running,
            main_version=self._main_version,
        )
        end = offset + len(line) + 1
        if not has_suffix(line):
            self._other(line, before)
            return crc32(LF, crc32(line, running))
        body, suffix = line[:-SUFFIX_BYTES], line[-SUFFIX_BYTES:] + LF
        at_cut = crc32(body, running)
        own, claimed = line[-_CRC_TEXT:-10], line[-10:-2]
        decoded = None
        if own == b"%08x" % crc32(body):
            try:
                decoded = self._decoder.decode(line)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                decoded = None
        if decoded is None:
            self._bad(before)
        elif claimed == b"%08x" % at_cut and decoded.position == self._position:
            self._verified_position, self._verified_end = self._position, end
            self._take_fitting(decoded, before)
        else:
            held = _Held(decoded, before, end)
            after = self._suspect(held, body=body, suffix=suffix, claimed=_claimed_running(claimed))
            if after is not None:
                return after
        return crc32(suffix, at_cut)

    def _skip_to_lf(self, chunk: bytes) -> bytes:
        """Let go of the rest of an over-long line; return what stands behind it."""
        lf = chunk.find(LF)
        size = len(chunk) if lf < 0 else lf + 1
        self._running = crc32(memoryview(chunk)[:size], self._running)
        self._skipped += size
        if lf < 0:
            return b""
        self._position += 1
        self._offset += self._skipped
        self._skipped = 0
        self._count_noise()
        return chunk[size:]

    # --- lines that are not ours ---

    def _other(self, line: bytes, before: Place) -> None:
        verdict = None if len(line) > LINE_BYTES_READ_MAX else decode_foreign(line)
        if isinstance(verdict, Envelope):
            self._bad(before)
        elif verdict is None:
            self._count_noise()
        else:
            self._void_unsettled()
            self.counts.foreign += 1
            self._main_version += 1
            self.lines.append(self._foreign(verdict, self._position, self._main_version))
            self.offsets.append(before.offset)

    def _count_noise(self, lines: int = 1) -> None:
        self._void_unsettled()
        self.counts.noise += lines
        self._main_version += lines

    def _bad(self, before: Place) -> None:
        self._chain = []
        self._drop_commit()
        self._unsettle(before, lines=0)
        self._unsettled_bad += 1

    # --- lines of ours ---

    def _take_fitting(self, line: L, before: Place) -> None:
        """Take a line of ours that stands where it says and continues the bytes before it."""
        self._chain = []
        first, last = line.commit.first, line.commit.last
        if self._commit and line.commit == self._commit[0].commit:
            if line.position == last:
                self._show_whole([line], [before.offset])
            else:
                self._commit.append(line)
                self._commit_offsets.append(before.offset)
                self._unsettled_lines += 1
        elif line.position != first:  # the middle of a commit that has no beginning
            self._drop_commit()
            self._unsettle(before)
        else:
            self._void_unsettled()  # this line fits, so what stands before it was there already
            if first == last:
                self._show_whole([line], [before.offset])
            else:
                self._unsettle(before)
                self._commit = [line]
                self._commit_offsets = [before.offset]

    def _suspect(self, held: _Held[L], *, body: bytes, suffix: bytes, claimed: int) -> int | None:
        """Take a line of ours that does not fit the bytes before it.

        Returns:
            The running CRC after it, as it claims, if it proves damage; else None.
        """
        try:
            durable = decode_header(body + b"}").durable_position
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._bad(held.before)  # it has what a reader needs, and not what a commit needs
            return None
        line = held.line
        chain = self._chain
        follows = (
            bool(chain)
            and chain[-1].end == held.before.offset
            and line.position == chain[-1].line.position + 1
            and crc32(body, self._chain_running) == claimed
        )
        if follows:  # so what stands before it is as the line before claims, not as was computed
            before = msgspec.structs.replace(
                held.before, position=line.position - 1, running=self._chain_running
            )
            held = held._replace(before=before)
        else:
            chain = self._chain = []
        chain.append(held)
        self._chain_running = crc32(suffix, claimed)
        self._drop_commit()
        self._unsettle(held.before)
        verified = self._verified_position
        if chain[0].line.position > durable + 1 or verified + 1 > durable:
            return None
        self._damage(
            Damage(
                offset=self._verified_end,
                position=verified + 1,
                reason=(
                    f"the line at byte {held.before.offset} (position {line.position}) was written "
                    f"when position {durable} was durable, and the bytes before it have changed"
                ),
            )
        )
        self._unsettled_lines -= len(chain)  # these are shown below
        doubted, first = self._unsettled, chain[0].before.offset
        self._void_unsettled()
        self._chain = []
        self._verified_position, self._verified_end = line.position, held.end
        for good in chain:
            if good.line.position <= verified:
                continue
            self._position = good.line.position
            self._take_fitting(good.line, good.before)
        if self._unsettled is not None and self._unsettled.offset == first:
            # What stands before the first of them is not known. Whoever begins anew with this
            # commit must begin before the damage, and find it again.
            self._unsettled, self._proved_from = doubted, verified
        return self._chain_running

    def _damage(self, damage: Damage) -> None:
        self.damage_count += 1
        if len(self.damages) < _DAMAGES_KEPT:
            self.damages.append(damage)

    # --- what is not settled ---

    def _drop_commit(self) -> None:
        """An open commit will not become whole; its lines stay unsettled."""
        self._commit, self._commit_offsets = [], []

    def _unsettle(self, before: Place, *, lines: int = 1) -> None:
        if self._unsettled is None:
            self._unsettled = before
        self._unsettled_lines += lines

    def _void_unsettled(self) -> None:
        self.counts.void += self._unsettled_lines
        self.counts.bad += self._unsettled_bad
        self._unsettled = self._proved_from = None
        self._unsettled_lines = self._unsettled_bad = 0
        self._drop_commit()


def ends_as_foreign_record(rest: bytes) -> bool:
    """Whether bytes without an LF are a complete foreign record; NULs after it do not count."""
    return isinstance(decode_foreign(rest.rstrip(NUL)), ForeignLine)


def _claimed_running(text: bytes) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return -1  # no CRC has this value
