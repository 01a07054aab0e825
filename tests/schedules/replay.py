"""See one schedule again: `python -m tests.schedules.replay SEED`."""

from __future__ import annotations

import sys

from tests.schedules._scenario import Schedule, ViolationError

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run a seed, print its trace; return whether it failed."""
    schedule = Schedule(int(arguments[0]), shows_steps=True)
    verdict = "every promise held"
    try:
        schedule.check()
    except ViolationError as error:
        verdict = str(error)
    sys.stdout.write("\n".join((*schedule.trace, verdict, "")))
    return verdict != "every promise held"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
