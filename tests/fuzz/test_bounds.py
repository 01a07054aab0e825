"""No input of 64 KiB costs more than 50 ms of CPU each time it is read, nor 64 MiB of memory.

Of all that is tried here, these are the shapes that cost most; what is changed at random is
bounded too, where it is tried (`run_bounded`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Final

import pytest

import eventstore as es
from eventstore._log._verify import verify_files
from tests.fuzz._bounds import BYTES_MAX, best_seconds, peak_bytes, run_bounded
from tests.fuzz._seeds import HOSTILE
from tests.fuzz._targets import INPUT_BYTES_MAX, SECONDS_PER_PASS, TARGETS
from tests.recovery._logs import (
    NAMES,
    content,
    foreign,
    image_of,
    opened,
    overwrite,
    read,
    read_backwards,
)

_REPEATED_BYTES: Final = 8 * 1024  # a square shows, and the whole table takes seconds


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("eventstore"), "disabled", True)
    monkeypatch.setattr(logging.getLogger("projections"), "disabled", True)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("what", HOSTILE)
def test_many_of_one_thing_cost_little(what: str, name: str) -> None:
    """I17: alone, as data, and behind a log; nothing grows with the square of its length."""
    run_bounded(name, _many(what, _REPEATED_BYTES))
    run_bounded(name, _many_as_data(what, _REPEATED_BYTES))


def _recover(files: es.MemoryFiles) -> None:
    with contextlib.suppress(es.EventStoreError), opened(image_of(files)):
        pass


def _verify(files: es.MemoryFiles) -> None:
    verify_files(files, NAMES, lock_timeout_seconds=1.0)


_WAYS: Final[dict[str, tuple[Callable[[es.MemoryFiles], object], int]]] = {
    "read": (read, 1),
    "recover": (_recover, 1),
    "verify": (_verify, 2),  # it says of each line what is wrong with it
    "read backwards": (read_backwards, 3),  # in vain from the end, once through, and then again
}


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("what", HOSTILE)
def test_a_log_of_64_kib_takes_50_ms_and_64_mib(what: str, way: str) -> None:
    """I17: whatever it holds, to whoever reads it."""
    call, passes = _WAYS[way]
    bound = passes * SECONDS_PER_PASS
    for log in (_many(what, INPUT_BYTES_MAX), _many_as_data(what, INPUT_BYTES_MAX - 200)):
        files = es.MemoryFiles()
        overwrite(files, log)
        assert len(content(files)) <= INPUT_BYTES_MAX
        assert best_seconds(lambda: call(files), bound) <= bound  # noqa: B023 - called here
        assert peak_bytes(lambda: call(files)) <= BYTES_MAX  # noqa: B023


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("what", ["LFs", "open brackets", "tiny lines", "records"])
def test_a_target_takes_64_mib(what: str, name: str) -> None:
    """I17: what each of them does with an input, all in all."""
    data = _many(what, INPUT_BYTES_MAX)
    assert peak_bytes(lambda: TARGETS[name].run(data)) <= BYTES_MAX


def _many(what: str, size: int) -> bytes:
    return HOSTILE[what] * (size // len(HOSTILE[what]))


def _many_as_data(what: str, size: int) -> bytes:
    return foreign(1)[:-1] + b',"data": [' + _many(what, size) + b"0]}\n"
