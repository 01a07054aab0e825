"""Whether the schedules notice bugs that are planted in the writer, the store and the lock.

Run it to see the whole list: `python -m tests.schedules._planted_bugs`; with numbers, only those.
It checks seeds in this process, on whatever `eventstore` is imported, if called with `--check`.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

from tests import _mutants
from tests._mutants import SURVIVED, Mutant
from tests.schedules._scenario import Schedule, ViolationError

__all__ = ["MUTANTS", "killer_of"]

_MODULE: Final = "tests.schedules._planted_bugs"
_SEEDS: Final = 1_000

MUTANTS: Final = (
    Mutant(
        "a withdrawn append is recorded all the same",
        "_writer.py",
        "            batch.requests.remove(request)\n",
        "",
    ),
    Mutant(
        "close drops what waits",
        "_writer.py",
        "                if self._next.requests:\n"
        "                    self._hand_over()\n"
        "                elif self._closed is not None:\n"
        "                    return\n",
        "                if self._closed is not None:\n"
        "                    return\n"
        "                if self._next.requests:\n"
        "                    self._hand_over()\n",
    ),
    Mutant(
        "a waiter that was cancelled is woken",
        "_writer.py",
        "            if not future.done():  # its caller was cancelled\n"
        "                future.set_result(None)\n",
        "            future.set_result(None)\n",
    ),
    Mutant(
        "a subscriber is not woken",
        "_log_reader.py",
        "            self._appended.set()\n",
        "",
    ),
    Mutant(
        "a failure is taken for an acknowledgement",
        "_commit.py",
        "                    request.appended, request.failure = None, remake\n",
        "                    request.failure = None\n",
    ),
    Mutant(
        "the lock is not given back",
        "_commit.py",
        "                finally:\n                    self._lock.release()\n",
        "                finally:\n                    pass\n",
    ),
    Mutant(
        "a withdrawn append that was handed over frees its room twice",
        "_writer.py",
        "        if not batch.taken:\n",
        "        if batch.taken:\n            self._release(request.size)\n        else:\n",
    ),
    Mutant(
        "those without room are not woken",
        "_writer.py",
        "        self._pending_bytes -= size\n        self._wake_those_without_room()\n",
        "        self._pending_bytes -= size\n",
    ),
    Mutant(
        "a withdrawn append keeps its room",
        "_writer.py",
        "            batch.size -= request.size\n            self._release(request.size)\n",
        "            batch.size -= request.size\n",
    ),
    Mutant(
        "a closed store takes appends",
        "_writer.py",
        "        self.check_open()\n        batch = self._next\n",
        "        batch = self._next\n",
    ),
    Mutant(
        "one who waited for room does not look again",
        "_writer.py",
        "        while self._closed is None and not self.has_room(size):\n",
        "        if self._closed is None and not self.has_room(size):\n",
    ),
    Mutant(
        "a store that did not open keeps its handles",
        "_log_store.py",
        "        committer.close()\n        store._taker.close()",
        "        store._taker.close()",
    ),
    Mutant(
        "what comes while a commit is under way waits for one more append",
        "_writer.py",
        "        self._in_flight = False\n        if self._next.requests:\n",
        "        self._in_flight = False\n        if len(self._next.requests) > 1:\n",
    ),
    Mutant(
        "leaving does not wait for the thread",
        "_writer.py",
        "                    self._inbox.put(None)\n",
        "                    thread.cancel_scope.cancel()\n",
    ),
    Mutant(
        "an append tells its caller before the commit ended",
        "_writer.py",
        "        self._inbox.put(batch)\n",
        "        self._inbox.put(batch)\n        batch.wake()\n",
    ),
    Mutant(
        "versions within one commit are not counted",
        "_admission.py",
        "            versions[stream] = version = version + count\n",
        "            version = version + count\n",
    ),
    Mutant(
        "a repetition in the same commit is recorded again",
        "_admission.py",
        "        if twin is not None:\n",
        "        if twin is not None and False:\n",
    ),
)


def killer_of(mutant: Mutant) -> str | None:
    """The first seed that notices a planted bug, or None."""
    return _mutants.killer_of(mutant, module=_MODULE)


def _check() -> str:
    logging.getLogger("eventstore").disabled = True
    for seed in range(_SEEDS):
        try:
            Schedule(seed).check()
        except ViolationError as error:
            return str(error).splitlines()[0]
    return SURVIVED


def main(arguments: list[str]) -> int:
    """Print each planted bug and its killer; return how many survived."""
    return _mutants.run(arguments, mutants=MUTANTS, check=_check, module=_MODULE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
