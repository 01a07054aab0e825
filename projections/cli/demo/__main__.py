"""`python -m projections.cli.demo`: tells the story, or is one of the writers in it."""

from __future__ import annotations

import logging
import sys

import anyio

from projections.cli import require_extra
from projections.cli._errors import until_stopped


def _main() -> int:
    from projections.cli.demo._story import tell
    from projections.cli.demo._writers import import_transcript, orchestrate

    logging.getLogger("eventstore").addHandler(logging.NullHandler())  # the story tells it all
    match sys.argv[1:]:
        case []:
            return tell()
        case ["orchestrate", path]:
            anyio.run(orchestrate, path)
            return 0
        case ["import", path]:
            anyio.run(import_transcript, path)
            return 0
        case _:
            print("usage: python -m projections.cli.demo", file=sys.stderr)
            return 2


require_extra("the demo")
sys.exit(until_stopped(_main))
