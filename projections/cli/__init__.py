"""`loopledger` on the command line; needs the `cli` extra (click and rich).

    loopledger show PATH                  the registry and each loop's summary
    loopledger resume PATH LOOP           where one loop was interrupted, and what next
    loopledger verify PATH                whether the log is sound
    loopledger repair PATH                what a repair would do; does it with --apply
    loopledger prove                      kills writers on this disk, and counts what was lost
    loopledger check-types PATH [TYPES]   whether today's event types read the log
    loopledger schema [TYPES]             the JSON Schema of events

None of them writes to a log but `repair --apply`.

What they print goes to stdout, what they say about it to stderr. Exit codes: 0 all is well; 1 a
bug of ours, or output that could not be written; 2 the command line; 3 there is no log at the
path; 4 the log is not sound; 5 a writer kept the lock; 7 the extra is missing; 130 Ctrl-C; 141
whoever read the output went away.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

_EXTRA_MISSING = 7


def main() -> None:
    """Run the command line of this process, and exit."""
    require_extra("loopledger")
    from projections.cli._app import run

    sys.exit(run(sys.argv[1:]))


def require_extra(what: str) -> None:
    """Exit with 7, saying what to install, if click or rich is missing."""
    if all(importlib.util.find_spec(name) for name in ("click", "rich")):
        return
    print(
        f"error[E-EXTRA] {what} needs the cli extra\n  next   pip install 'loopledger[cli]'",
        file=sys.stderr,
    )
    sys.exit(_EXTRA_MISSING)
