"""`python -m projections.cli.prove PATH SERIAL`: one of the writers that are killed."""

from __future__ import annotations

import logging
import signal
import sys

import anyio

from projections.cli.prove._writers import write

_ARGUMENTS = 3

if len(sys.argv) != _ARGUMENTS:
    sys.exit("usage: loopledger prove")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # without a parent nothing is left to do
logging.getLogger("eventstore").addHandler(logging.NullHandler())  # the parent counts it all
anyio.run(write, sys.argv[1], int(sys.argv[2]))
