"""Coverage-guided fuzzing of one target: `python -m tests.fuzz.atheris_fuzz log --seconds 60`.

Needs atheris (dependency group `prove`), which exists for some Pythons only.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Fuzz until the time is over; a broken promise ends it with its input in a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="begin with its files, and add to them")
    parser.add_argument("--artifacts", type=Path, help="where the input that fails is written")
    asked = parser.parse_args()
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["eventstore", "projections"]):
        # Nothing of the engine may be imported before this: it would not be instrumented.
        parts = importlib.import_module("tests.fuzz._parts")
        targets = importlib.import_module("tests.fuzz._targets")
        seeds = importlib.import_module("tests.fuzz._seeds")
    if asked.target not in targets.TARGETS:
        parser.error(f"no such target: {asked.target}; there are {', '.join(targets.TARGETS)}")
    for package in ("eventstore", "projections"):
        logging.getLogger(package).disabled = True

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        changed: bytes = atheris.Mutate(data, size_max)
        if seed % 2 and asked.target == "log":
            active, record = parts.parted(changed, 2)
            changed = parts.joined(parts.mended(active), parts.mended_record(record))
        elif seed % 2 and asked.target == "segments":
            changed = parts.joined(*map(parts.mended, changed.split(parts.SEPARATOR)))
        return changed[:size_max]

    corpus = asked.corpus
    if corpus is None:
        # The fuzzer ends the process by itself: it is removed by whoever gave TMPDIR, if at all.
        corpus = Path(tempfile.mkdtemp(prefix="loopledger-corpus-"))
        for number, seed in enumerate(seeds.SEEDS[asked.target]):
            (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [
        sys.argv[0],
        f"-max_len={targets.INPUT_BYTES_MAX}",
        f"-max_total_time={asked.seconds}",
        "-rss_limit_mb=1024",
        "-timeout=20",
        f"-seed={random.randrange(1, 2**31)}",
        *([f"-artifact_prefix={asked.artifacts}/"] if asked.artifacts else []),
        str(corpus),
    ]
    atheris.Setup(arguments, targets.TARGETS[asked.target].run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
