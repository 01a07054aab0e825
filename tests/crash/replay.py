"""See one failure again: `python -m tests.crash.replay SEED STEP STATE`.

STEP and STATE are printed by the failure; without them the whole workload is checked. The state
-1 is the kill of all processes.
"""

from __future__ import annotations

import logging
import sys

from tests.crash._checker import Checker, ViolationError
from tests.crash._crash_states import CrashStates
from tests.crash._disk import Inode, SimulatedDisk
from tests.crash._workloads import Workload

__all__ = ["main"]

_STATES_PER_POINT = 100


def main(arguments: list[str]) -> int:
    """Check again, and print what led to it."""
    logging.basicConfig(level=logging.ERROR)
    seed, step, state = (int(text) for text in (*arguments, "-2", "-2")[:3])
    workload = Workload(seed)
    _say(f"seed {seed}, {workload.profile}")
    found = False
    for point in workload.points():
        if step not in (-2, point.step):
            continue
        checker = Checker(
            seed, states_per_point=_STATES_PER_POINT, only=None if step < 0 else state
        )
        try:
            checker.check(point, workload.profile)
        except ViolationError as error:
            found = True
            _say("\n".join(workload.trace))
            _show("what the processes see:", point.disk, durable=False)
            states = CrashStates(
                point.disk,
                seed=(seed << 20) + (point.step << 32),
                budget=_STATES_PER_POINT,
                stale=not workload.profile.foreign,
            )
            if 0 <= state < states.count:
                _show("what the power cut left:", states.state(state), durable=True)
            _say(point.expected)
            _say(error)
            break
    if not found:
        _say("nothing is wrong here")
    return int(found)


def _show(title: str, disk: SimulatedDisk, *, durable: bool) -> None:
    _say(title)
    for name, node in disk.walk():
        if isinstance(node, Inode):
            _say(f"  {name} (inode {node.number}):")
            for line in (node.durable if durable else node.content).splitlines(keepends=True):
                _say(f"    {line!r}")


def _say(text: object) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
