"""From a scan to a plan: what the next writer must do to the end of the active file. Pure.

A plan is a value; `_repair.py` carries it out. Nothing that was acknowledged is ever part of a
cut: where the evidence says so, the plan is damage instead, and the file is left alone.
"""

from __future__ import annotations

import msgspec

from eventstore._log._lock_record import LockRecord
from eventstore._log._scan import NUL, Damage, Place, ends_as_foreign_record

__all__ = ["Plan", "Recovery", "plan_recovery"]


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What to do to the end of the active file.

    Attributes:
        keep: bytes of the file that stay.
        cut: bytes behind them that go to the quarantine.
        terminate: the kept bytes end in a foreign record that lacks its LF: write one.
        damage: acknowledged data is damaged; nothing may be done at all.
    """

    keep: int
    cut: int
    terminate: bool = False
    damage: Damage | None = None

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.cut) or self.terminate


class Recovery(msgspec.Struct, frozen=True):
    """What opening (and adopting what others wrote) found and did; nothing of it was lost.

    Attributes:
        position: the log's position after it.
        cut_bytes: bytes of torn commits that were moved to the quarantine.
        quarantine: the files that hold them.
        terminated: complete foreign records that lacked their LF and got it.
        foreign: lines of a foreign writer, noise left out.
        noise: lines that are no record of anybody; kept, skipped.
        void: lines of commits that never became whole; kept, skipped.
        bad: lines that claim to be ours and are not; kept, skipped.
        renewed: how often the active file was copied to a new inode after an I/O error.
    """

    position: int = 0
    cut_bytes: int = 0
    quarantine: tuple[str, ...] = ()
    terminated: int = 0
    foreign: int = 0
    noise: int = 0
    void: int = 0
    bad: int = 0
    renewed: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing had to be repaired."""
        return not (self.cut_bytes or self.terminated or self.renewed)


def plan_recovery(
    *,
    settled: Place,
    sound: tuple[int, int],
    rest: bytes,
    rest_offset: int,
    size: int,
    record: LockRecord | None,
    contradicted: bool,
    damages: list[Damage],
) -> Plan:
    """Decide what becomes of the end of the active file.

    Args:
        settled: behind the last line that stays whatever comes.
        sound: offset and position up to which everything is proved; damage lies behind it.
        rest: the bytes after the last LF.
        rest_offset: where they begin.
        size: the file's size.
        record: the lock record if it speaks of this file and proved itself, else None.
        contradicted: the bytes before the record's end, which it calls durable, are not those it
            knew.
        damages: what the scan found.
    """
    if damages:
        return Plan(keep=size, cut=0, damage=damages[0])
    keep, terminate = settled.offset, False
    if ends_as_foreign_record(rest):
        keep, terminate = rest_offset + len(rest.rstrip(NUL)), True
    if record is not None and record.end > keep:
        return Plan(
            keep=size,
            cut=0,
            damage=Damage(
                offset=sound[0],
                position=sound[1] + 1,
                reason=(
                    f"the lock record says that byte {record.end} (position {record.position}) "
                    f"was durable, and only {keep} bytes are sound"
                ),
            ),
        )
    if record is not None and contradicted:
        return Plan(
            keep=size,
            cut=0,
            damage=Damage(
                offset=max(record.start, sound[0]),
                position=sound[1] + 1,
                reason=(
                    f"the lock record says that bytes {record.start} to {record.end} were "
                    "durable, and they have changed"
                ),
            ),
        )
    return Plan(keep=keep, cut=size - keep, terminate=terminate)
