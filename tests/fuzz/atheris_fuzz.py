"""Coverage-guided fuzzing of one target: `python -m tests.fuzz.atheris_fuzz log --seconds 60`.

Needs atheris (dependency group `prove`), which exists for some Pythons only.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import random
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Fuzz until the time is over; a broken promise ends it with its input in a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path)
    asked = parser.parse_args()
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["eventstore"]):
        # Nothing of the engine may be imported before this: it would not be instrumented.
        parts = importlib.import_module("tests.fuzz._parts")
        targets = importlib.import_module("tests.fuzz._targets")
    if asked.target not in targets.TARGETS:
        parser.error(f"no such target: {asked.target}; there are {', '.join(targets.TARGETS)}")
    logging.getLogger("eventstore").disabled = True

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        changed: bytes = atheris.Mutate(data, size_max)
        if seed % 2 and asked.target == "log":
            active, record = parts.parted(changed, 2)
            changed = parts.joined(parts.mended(active), parts.mended_record(record))
        return changed[:size_max]

    arguments = [
        sys.argv[0],
        f"-max_len={targets.INPUT_BYTES_MAX}",
        f"-max_total_time={asked.seconds}",
        "-rss_limit_mb=1024",
        "-timeout=20",
        f"-seed={random.randrange(1, 2**31)}",
        *([str(asked.corpus)] if asked.corpus else []),
    ]
    atheris.Setup(arguments, targets.TARGETS[asked.target].run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
