"""Rounds of writing, killing and checking, until the time is up or a promise is broken."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

import anyio
import msgspec

from projections.cli.prove._check import Checked, check
from projections.cli.prove._crew import employ
from projections.cli.prove._cuts import cut_copies
from projections.cli.prove._writers import Done

__all__ = ["Campaign", "Figures"]

_ROUND_SECONDS: Final = 4.0
_LOG_BYTES_MAX: Final = 64 * 2**20  # then a new log begins, so that checking stays cheap
_CHUNK_BYTES: Final = 2**20


class Figures(msgspec.Struct):
    """What was done, and what was lost.

    Attributes:
        seconds: how long it took, checking included.
        acknowledged: appends whose await returned.
        events: in these.
        commits: in which everything recorded became durable.
        recorded: appends in the log, those included whose writer died before it was told.
        kills: writers ended by SIGKILL.
        reopenings: how often a log was opened again, by a writer or a checker.
        torn_tails: unfinished writes that recovery set aside.
        cuts: copies cut behind what was acknowledged, opened and compared.
        lost: acknowledged appends that were not there, or not as they were.
    """

    seconds: float = 0.0
    acknowledged: int = 0
    events: int = 0
    commits: int = 0
    recorded: int = 0
    kills: int = 0
    reopenings: int = 0
    torn_tails: int = 0
    cuts: int = 0
    lost: int = 0


class Campaign:
    """One campaign in a directory of its own.

    Attributes:
        figures: so far.
        faults: broken promises, in words; the campaign ends with the first round that has any.
    """

    def __init__(self, directory: Path) -> None:
        self.figures = Figures()
        self.faults: list[str] = []
        self._directory = directory
        self._dice = random.Random()  # noqa: S311 - where to cut is no secret
        self._serial = 0
        self._begin_log()

    def run(self, seconds: float, tell: Callable[[Figures], None]) -> None:
        """Do it.

        Args:
            seconds: for how long; the round at work then is still checked.
            tell: told the figures after every kill.
        """
        begun = time.monotonic()

        def update() -> None:
            self.figures.seconds = time.monotonic() - begun
            tell(self.figures)

        while not self.faults and time.monotonic() < begun + seconds:
            deadline = min(begun + seconds, time.monotonic() + _ROUND_SECONDS)
            acknowledged = self._write(deadline, update)
            self._check(acknowledged)
            if _bytes(self._log) > _LOG_BYTES_MAX and not self.faults:
                shutil.rmtree(self._log.parent)
                self._begin_log()
            update()

    def _begin_log(self) -> None:
        self._log = self._directory / f"log-{self._serial}" / "history.jsonl"
        self._log.parent.mkdir()
        self._position = 0  # up to which all was compared
        self._prefix = (0, 0)  # bytes, and their checksum, which never change again
        self._torn_tails = 0

    def _write(self, deadline: float, update: Callable[[], None]) -> list[Done]:
        """Let writers write and be killed; return what was acknowledged to any of them."""
        figures = self.figures
        kills = figures.kills
        with employ(self._log, self._serial) as crew:
            # On a busy machine it may take a while until the first one writes.
            while not crew.faults and (
                not crew.has_heard
                or (time.monotonic() < deadline and _bytes(self._log) < _LOG_BYTES_MAX)
            ):
                crew.harass()
                figures.kills = kills + crew.kills
                update()
            acknowledged = crew.end()
        self._serial = crew.serial
        self.faults += crew.faults
        figures.kills = kills + crew.kills
        figures.reopenings += crew.openings
        figures.acknowledged += len(acknowledged)
        figures.events += sum(done.events for done in acknowledged)
        return acknowledged

    def _check(self, acknowledged: Sequence[Done]) -> None:
        figures = self.figures
        for copy in cut_copies(self._log, self._directory / "cut", acknowledged, self._dice):
            checked = anyio.run(_check_all, copy, acknowledged, self._position)
            figures.cuts += 1
            figures.reopenings += 1
            if checked.faults:
                self.faults += [f"in a copy cut as by a power cut: {one}" for one in checked.faults]
                figures.lost += checked.lost
                return
        if not self._prefix_stands():
            self.faults.append(f"the first {self._prefix[0]} bytes of the log have changed")
        checked = anyio.run(_check_all, self._log, acknowledged, self._position)
        self.faults += checked.faults
        figures.reopenings += 1
        figures.lost += checked.lost
        figures.recorded += checked.appends
        figures.commits += checked.commits
        self._position = checked.position
        self._prefix = _prefix(self._log, _bytes(self._log))
        quarantine = self._log.with_name(f"{self._log.name}.d") / "quarantine"
        torn_tails = len(list(quarantine.glob("*.bin")))
        figures.torn_tails += torn_tails - self._torn_tails
        self._torn_tails = torn_tails

    def _prefix_stands(self) -> bool:
        return _prefix(self._log, self._prefix[0]) == self._prefix


async def _check_all(log: Path, acknowledged: Sequence[Done], after: int) -> Checked:
    return await check(log, acknowledged, after=after)


def _segments(log: Path) -> list[Path]:
    sealed = sorted(log.parent.glob(f"{log.stem}-*{log.suffix}"))
    return [*sealed, log] if log.exists() else sealed


def _bytes(log: Path) -> int:
    """How large the log is; a segment may be sealed between two looks, which does no harm here."""
    total = 0
    for segment in _segments(log):
        try:
            total += segment.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _prefix(log: Path, size: int) -> tuple[int, int]:
    """Size and checksum of the first bytes of a log, over all its segments."""
    checksum, left = 0, size
    for segment in _segments(log):
        with segment.open("rb") as file:
            while left and (data := file.read(min(_CHUNK_BYTES, left))):
                checksum = crc32(data, checksum)
                left -= len(data)
    return size - left, checksum
