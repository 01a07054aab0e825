"""What a power cut may leave: the log up to what was acknowledged, and any part of the rest.

The engine only ever appends, and syncs before it acknowledges. So a copy of the log that ends
anywhere behind the last acknowledged commit is a log that a power cut could have left.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from projections.cli.prove._check import last_acknowledged
from projections.cli.prove._writers import Done

__all__ = ["cut_copies"]

_COPIES: Final = 3


class _Line(msgspec.Struct):
    commit: tuple[int, int]


_decode: Final = msgspec.json.Decoder(_Line).decode


def cut_copies(
    log: Path, directory: Path, acknowledged: Sequence[Done], dice: random.Random
) -> Iterator[Path]:
    """Yield copies of a log whose writers are dead, each cut somewhere else; remove each after.

    The lock record is left out: it is never synced, so a power cut may leave an older one or none.
    """
    size = log.stat().st_size if log.exists() else 0
    end = _end_of(log, last_acknowledged(acknowledged)) if size else 0
    cuts = {end, size, *(dice.randint(end, size) for _ in range(_COPIES))}
    for cut in sorted(cuts)[:_COPIES]:
        directory.mkdir()
        for sealed in log.parent.glob(f"{log.stem}-*{log.suffix}"):
            os.link(sealed, directory / sealed.name)  # they never change again
        with log.open("rb") as source, (directory / log.name).open("xb") as copy:
            shutil.copyfileobj(source, copy)
            copy.truncate(cut)
        yield directory / log.name
        shutil.rmtree(directory)


def _end_of(log: Path, position: int) -> int:
    """The offset in the active segment behind the commit that holds an acknowledged position."""
    offset = 0
    with log.open("rb") as lines:
        for line in lines:
            try:
                if _decode(line).commit[0] > position:
                    break  # one sync made the commit durable, also what nobody was told of
            except msgspec.MsgspecError:
                break  # torn
            offset += len(line)
    return offset
