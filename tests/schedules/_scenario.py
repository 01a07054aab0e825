"""One seed: stores on one log, callers, cancellations, a fault; then what must hold."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Final

import eventstore as es
from tests.schedules._faulty_files import Fault, ViolationError
from tests.schedules._inline_threads import Sizes, inline_threads, open_log
from tests.schedules._seeded_loop import SeededLoop, StuckError
from tests.schedules._session import Session, Setting

__all__ = ["Schedule", "ViolationError", "check_seeds"]

_ATTEMPT: Final = re.compile(rb'"attempt":"(\d+)"')
_SETTLE_STEPS: Final = 50  # of work whose caller was cancelled


class Schedule:
    """What one seed did, and whether every promise held.

    Args:
        seed: decides everything.
        shows_steps: whether `trace` tells each step of the event loop too.
    """

    def __init__(self, seed: int, *, shows_steps: bool = False) -> None:
        self._seed = seed
        self._setting = Setting(seed)
        self._errors: list[str] = []
        self._shows_steps = shows_steps
        self._pending_bytes_max = 0

    @property
    def trace(self) -> list[str]:
        """What happened, in order."""
        return self._setting.trace

    def check(self) -> None:
        """Run it.

        Raises:
            ViolationError: a promise was broken; `trace` tells how.
        """
        loop = SeededLoop(self._setting.rng, step=self._setting.note if self._shows_steps else None)
        loop.set_exception_handler(
            lambda _, context: self._errors.append(f"the event loop was told: {context['message']}")
        )
        main = self._run()
        try:
            with inline_threads(handed_over=self._note_hand_over):
                loop.run_until_complete(main)
        except Exception as error:
            command = f"python -m tests.schedules.replay {self._seed}"
            what = error if isinstance(error, (StuckError, ViolationError)) else repr(error)
            msg = f"seed {self._seed}: {what}; see it again with: {command}"
            raise ViolationError(msg) from error
        finally:
            main.close()
            loop.close()

    async def _run(self) -> None:
        setting = self._setting
        rng = setting.rng
        has_fault = setting.pick(0.4)
        sizes = Sizes(
            segment_bytes_max=rng.choice((None, 700, 3_000)),
            index_bytes=rng.choice((100, 500, 1_000_000)),
            pending_bytes_max=rng.choice((300, 1_000, 1_000_000)),
        )
        self._pending_bytes_max = sizes.pending_bytes_max
        setting.note(f"{sizes}")
        users_count = rng.choice((1, 1, 2))
        if has_fault:
            fault = Fault.of(rng)
            if fault.is_short and users_count > 1:
                # A subscriber may wait for ever if another store cuts a torn commit between its
                # look and its read.
                fault = fault._replace(code=None)
            setting.files.fault = fault
            setting.note(f"{fault}")
            if setting.pick(0.7):  # later: opening alone makes most of these calls
                setting.files.is_armed = False
                setting.after(rng.randrange(80), setting.files.arm)
        users = [
            setting.spawn(self._use(number, sizes), f"user {number}")
            for number in range(users_count)
        ]
        await asyncio.wait(users)
        for user in users:
            user.result()
        await self._look_again(sizes)

    async def _use(self, number: int, sizes: Sizes) -> None:
        """Open a store and leave it, once or twice."""
        setting = self._setting
        for turn in range(setting.rng.choice((1, 1, 2))):
            session = Session(self._setting, f"{number}{'ab'[turn]}")
            task = setting.spawn(session.run(sizes), f"session {session.name}")
            if setting.pick(0.15):
                setting.after(setting.rng.randrange(60), session.canceller(task))
            await asyncio.wait([task])
            if task.cancelled() and session.is_cancelled:
                setting.note(f"session {session.name} was cancelled")
            elif task.cancelled():
                raise ViolationError(f"session {session.name} ended as if it was cancelled")
            elif (error := task.exception()) is not None:
                # Opening failed; or the last sync of `written` events: that is raised at leaving.
                if not (setting.files.has_failed and isinstance(error, es.EventStoreError)):
                    raise ViolationError(f"session {session.name} ended with {error!r}")
                setting.note(f"session {session.name}: {error!r}")

    async def _look_again(self, sizes: Sizes) -> None:
        setting = self._setting
        setting.files.fault = None
        if setting.others:
            await asyncio.wait(setting.others)
        for _ in range(_SETTLE_STEPS):
            await asyncio.sleep(0)
        for task in setting.others:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise ViolationError(f"{task.get_name()} ended with {error!r}") from error
        if setting.files.open_handles:
            raise ViolationError(f"{setting.files.open_handles} handles are open after closing")
        async with open_log(setting.files, sizes) as store:
            setting.outcomes.compare([recorded async for recorded in store.read_all()])
        if self._errors:
            raise ViolationError("; ".join(self._errors))

    def _note_hand_over(self, lines: list[bytes], size: int) -> None:
        setting = self._setting
        found = [int(match[1]) for line in lines for match in _ATTEMPT.finditer(line)]
        setting.note(f"the thread is given attempts {found}, {size} bytes")
        setting.outcomes.handed_over.update(found)
        if size > self._pending_bytes_max and len(found) > 1:
            self._errors.append(f"{size} bytes waited")


def check_seeds(seeds: Iterable[int]) -> int:
    """Check many seeds; return how many."""
    count = 0
    for seed in seeds:
        Schedule(seed).check()
        count += 1
    return count
