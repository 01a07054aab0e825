"""Cut after cut on one machine: append, cut the power, start again, and look.

What is looked at, in the words of the format's invariants: what was acknowledged as synced is
there (I1); appends are there whole or not at all, each once, though half of them are tried again
with their key (I2, I4, I5); what a recovery exposed is there after the next cut; nothing is
refused, the log is sound, and takes appends.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, NoReturn, Protocol

import anyio
import msgspec

import eventstore as es
from tests.power._crew import Crew
from tests.power._writer import Acknowledged, Opened, Order, Report

__all__ = ["CREW_SIZE", "CUTS", "PROVES", "Campaign", "LossError", "Machine", "Totals"]

PROVES: Final = bool(os.environ.get("LOOPLEDGER_PROVE"))
CUTS: Final = int(os.environ.get("LOOPLEDGER_POWER_CUTS", "300" if PROVES else "6"))
"""In a test of a machine. One takes 0.1 to 0.2 s."""
CREW_SIZE: Final = 3
_MARKER: Final = "marker"
_APPENDS_MAX: Final = 400
_LOOK_SHARE: Final = 0.7
_SECONDS_MAX: Final = 0.005  # some commits: a cut that only followed reports would miss much


class LossError(AssertionError):
    """A promise was broken by a power cut."""


class Machine(Protocol):
    """Something whose power can be cut."""

    @property
    def directory(self) -> Path:
        """Where its file system is, while it runs."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether a sync that succeeds while the power is being cut can be believed."""
        ...

    def start(self) -> None:
        """Mount the file system, as the last cut has left it."""
        ...

    def disturb(self, random: Random) -> None:
        """Let syncs fail, if it is that kind of machine."""
        ...

    def cut(self, random: Random) -> None:
        """From now on, or very soon, nothing becomes durable, and every call fails.

        Args:
            random: decides what of all that was not synced is durable nevertheless.
        """
        ...

    def stop(self) -> None:
        """Unmount the file system. Nobody uses it any more."""
        ...


class Totals(msgspec.Struct):
    """What a campaign has seen, so that nobody mistakes an idle one for a good one."""

    cuts: int = 0
    acknowledged: int = 0
    recoveries: int = 0
    cuts_while_opening: int = 0
    sealed: int = 0
    noise: int = 0
    logs: int = 0


class _Event(NamedTuple):
    """One event that stands in a log."""

    position: int
    label: str


class _Log(msgspec.Struct):
    """One log, and what is known to be durable in it, by position."""

    path: Path
    exposed: list[_Event]
    durable: dict[int, str]


class Campaign:
    """A series of power cuts.

    Args:
        machine: whose power is cut.
        crew: who appends.
        seed: decides what is appended, and after how many reports the power is cut.
        is_faulty: whether syncs fail; then appends that were only written may be lost at once.
        new_log_share: how often a cycle begins a new log.
    """

    def __init__(
        self,
        machine: Machine,
        crew: Crew,
        *,
        seed: int = 0,
        is_faulty: bool = False,
        new_log_share: float = 0.2,
    ) -> None:
        self.totals = Totals()
        self._machine = machine
        self._crew = crew
        self._seed = seed
        self._is_faulty = is_faulty
        self._new_log_share = new_log_share
        self._cycle = 0
        self._log: _Log | None = None

    def run(self, cuts: int) -> Totals:
        """Cut the power this many times.

        Raises:
            LossError: something was lost, torn, doubled or refused. The machine stays as it is.
        """
        for cycle in range(cuts):
            self._cycle = cycle
            random = Random(f"{self._seed}-{cycle}")
            self._machine.start()
            # Now and then the writers themselves recover, and the power is cut while they do.
            if random.random() < _LOOK_SHARE:
                self._look()
            reports = self._append(self._next_log(random), random)
            self._machine.stop()
            self.totals.cuts += 1
            self._note(reports)
        self._machine.start()
        self._look()
        self._machine.stop()
        return self.totals

    def _next_log(self, random: Random) -> _Log:
        if self._log is None or random.random() < self._new_log_share:
            if self._log is not None:
                self._look()
                shutil.rmtree(self._log.path.parent)
            path = self._machine.directory / f"log-{self._cycle}" / "history.jsonl"
            self._log = _Log(path, [], {})
            self.totals.logs += 1
        return self._log

    def _append(self, log: _Log, random: Random) -> list[Report]:
        order = Order(
            path=str(log.path),
            cycle=self._cycle,
            seed=self._seed + self._cycle,
            segment_bytes_max=random.choice((None, 3_000, 30_000)),
            tasks=random.choice((1, 2, 8)),
            appends_max=_APPENDS_MAX,
            written_share=random.choice((0.0, 0.0, 0.3)),
            bytes_max=random.choice((100, 20_000)),
        )
        self._machine.disturb(random)
        self._crew.order([order] * random.randint(1, CREW_SIZE))
        count = random.choice((0, 1, 2, 3, 4, 6, 10, 30, 100))
        reports = self._crew.receive(count=count, seconds=random.uniform(0.0, _SECONDS_MAX))
        self._machine.cut(random)
        if not any(isinstance(report, Opened) for report in reports):
            self.totals.cuts_while_opening += 1
        late = self._crew.finish()
        return reports + late if self._machine.is_exact else reports

    def _note(self, reports: Iterable[Report]) -> None:
        """Take what the writers reported for what must be there from now on."""
        assert self._log is not None
        promised = [report for report in reports if isinstance(report, Acknowledged)]
        synced = max((report.position for report in promised if report.synced), default=0)
        for report in promised:
            if report.synced or (report.position <= synced and not self._is_faulty):
                self.totals.acknowledged += 1
                first = report.position - report.count + 1
                for index in range(report.count):
                    label = f"{report.name}/{index}/{report.count}"
                    other = self._log.durable.setdefault(first + index, label)
                    if other != label:
                        self._fail(f"position {first + index} was given to {other} and to {label}")

    # --- looking ---

    def _look(self) -> None:
        """Open the log as the last cut has left it, and compare it with what is known."""
        log = self._log
        if log is None:
            return
        try:
            if log.path.exists():
                self._compare(log, anyio.run(_read, log.path))
            exposed, is_clean = anyio.run(_recover, log.path, self._cycle)
            self._compare(log, exposed)
            verified = es.verify_log(log.path)
        except es.EventStoreError as error:
            raise LossError(self._said(f"refused: {error}")) from error
        # What is malformed, a power cut has left: lines of zeros or garbage that end with an LF.
        worst = {finding.severity for finding in verified.findings} - {"malformed", "notice"}
        if worst or verified.events != len(exposed):
            self._fail(f"verify: {verified}")
        self.totals.noise += verified.noise + verified.bad + verified.void
        self.totals.recoveries += not is_clean
        self.totals.sealed += verified.segments - 1
        log.exposed = exposed
        log.durable.clear()

    def _compare(self, log: _Log, found: list[_Event]) -> None:
        known = len(log.exposed)
        if found[:known] != log.exposed:
            self._fail(f"{known} events were exposed, of which the first {len(found)} changed")
        there = dict(found)
        for position, label in sorted(log.durable.items()):
            if there.get(position) != label:
                self._fail(
                    f"{label} was acknowledged at position {position}; "
                    f"{there.get(position, 'nothing')} is there"
                )
        for label, times in Counter(event.label for event in found).items():
            if times != 1:
                self._fail(f"{label} is there {times} times")
        self._check_whole(found)

    def _check_whole(self, found: list[_Event]) -> None:
        start = 0
        while start < len(found):
            position, label = found[start]
            name, _, count = label.split("/")
            whole = [
                _Event(position + index, f"{name}/{index}/{count}") for index in range(int(count))
            ]
            there = found[start : start + len(whole)]
            if there != whole:
                self._fail(f"an append is not whole: {there}")
            start += len(whole)

    def _fail(self, reason: str) -> NoReturn:
        raise LossError(self._said(reason))

    def _said(self, reason: str) -> str:
        path = None if self._log is None else self._log.path
        return f"cut {self._cycle} of seed {self._seed}, {path}: {reason}; {self.totals}"


async def _read(path: Path) -> list[_Event]:
    """What a reader shows before anybody recovers."""
    async with es.open_store(path, read_only=True) as reader:
        return await _events(reader)


async def _recover(path: Path, cycle: int) -> tuple[list[_Event], bool]:
    """Recover, append a marker, and return what is there then."""
    async with es.open_store(path) as store:
        is_clean = store.recovery.is_clean
        marker = es.EventPublished(topic=f"{_MARKER}-{cycle}-{store.position}/0/1", payload="")
        await store.append(_MARKER, [marker], expected_version=es.ANY)
        return await _events(store), is_clean


async def _events(reader: es.EventReader[es.LoopEvent]) -> list[_Event]:
    """The events in order; their numbers and contents are checked on the way.

    A position may be missing: a line of the garbage that a power cut left keeps its number.
    """
    events = [_Event(0, "")]
    versions: Counter[str] = Counter()
    async for recorded in reader.read_all():
        versions[recorded.stream] += 1
        assert isinstance(recorded.event, es.EventPublished)
        assert not recorded.event.payload.strip("x")
        if (
            recorded.position <= events[-1].position
            or recorded.version != versions[recorded.stream]
        ):
            msg = f"after {events[-1]} comes {recorded}"
            raise LossError(msg)
        events.append(_Event(recorded.position, recorded.event.topic))
    return events[1:]
