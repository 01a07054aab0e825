"""The two processes that are killed.

    python -m projections.cli.demo orchestrate PATH
    python -m projections.cli.demo import PATH

Each tells its parent on stdout what was acknowledged, one JSON line per event, after the await.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Final

import anyio
import msgspec

import eventstore as es
from projections._load import load_all
from projections._projection import Loaded
from projections._registry import REGISTRY
from projections.cli.demo._loops import LOOPS, Acknowledged, drive

__all__ = ["IMPORT_EVENTS", "IMPORT_EVENT_BYTES", "READY", "import_transcript", "orchestrate"]

_IMPORT_STREAM: Final = "transcript-import"
READY: Final = b"ready\n"
# 25 MB in one append: long enough to be hit in the middle.
IMPORT_EVENTS: Final = 50
IMPORT_EVENT_BYTES: Final = 500_000


async def orchestrate(path: str) -> None:
    """Drive all loops concurrently, each from where the log says it stands."""
    async with es.open_store(path) as store, anyio.create_task_group() as tasks:
        known = await load_all(store, REGISTRY)
        for loop in LOOPS:
            entry = known.get(loop.name, Loaded(REGISTRY.initial, 0, 0))
            tasks.start_soon(partial(drive, store, loop, _say, known=entry))


async def import_transcript(path: str) -> None:
    """Append one very large commit."""
    async with es.open_store(path) as store:
        events = [
            es.EventPublished(topic=f"transcript.{number}", payload="x" * IMPORT_EVENT_BYTES)
            for number in range(IMPORT_EVENTS)
        ]
        _write(READY)
        done = await store.append(_IMPORT_STREAM, events, expected_version=es.ANY)
        for number in range(IMPORT_EVENTS):
            ago = IMPORT_EVENTS - 1 - number
            _say(
                Acknowledged(
                    _IMPORT_STREAM, done.version - ago, done.position - ago, "event_published"
                )
            )


def _say(acknowledged: Acknowledged) -> None:
    _write(msgspec.json.encode(acknowledged) + b"\n")


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
