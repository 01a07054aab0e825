"""The writer processes of a round: started, listened to, killed, started again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from projections.cli.prove._writers import Begun, Done, Opened, Told

__all__ = ["Crew", "employ"]

_WRITERS: Final = 3
_KILL_AFTER_SECONDS: Final = (0.02, 0.3)  # between two kills at random
_LARGE_SPARED: Final = 0.5  # of the large appends; the others are killed in their first moments
_LARGE_SECONDS: Final = 0.01

# A union is no class, so the decoder's type is told, not inferred.
_decode: Final[Callable[[bytes], Told]] = msgspec.json.Decoder(Told).decode


class _Writer:
    """One process, and the thread that hears what it tells."""

    def __init__(self, log: Path, serial: int) -> None:
        self.acknowledged: list[Done] = []
        self.has_opened = threading.Event()
        self._process = subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", "projections.cli.prove", str(log), str(serial)],
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for the parent, which kills them all
        )
        self._dice = random.Random(serial)  # noqa: S311 - when to kill is no secret
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def runs(self) -> bool:
        """Whether it has not died yet."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()

    def mourn(self) -> int:
        """Wait until it is dead and everything it told was heard; return how it ended."""
        code = self._process.wait()
        self._thread.join()
        return code

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                match _decode(line):
                    case Opened():
                        self.has_opened.set()
                    case Begun():
                        if self._dice.random() >= _LARGE_SPARED:
                            time.sleep(self._dice.uniform(0, _LARGE_SECONDS))
                            self.kill()
                    case Done() as done:
                        self.acknowledged.append(done)


class Crew:
    """A few writers of one log.

    Attributes:
        kills: how many were killed.
        openings: how often one of them opened the log.
        faults: what a writer did that none should do.
    """

    def __init__(self, log: Path, serial: int) -> None:
        self.kills = 0
        self.openings = 0
        self.faults: list[str] = []
        self.serial = serial
        self._log = log
        self._acknowledged: list[Done] = []
        self._dice = random.Random(serial)  # noqa: S311 - as above
        self._writers = [self._start() for _ in range(_WRITERS)]

    @property
    def has_heard(self) -> bool:
        """Whether anything was acknowledged to any of them."""
        return bool(self._acknowledged) or any(writer.acknowledged for writer in self._writers)

    def harass(self) -> None:
        """Let them write for a moment, kill one, and replace whoever is dead."""
        time.sleep(self._dice.uniform(*_KILL_AFTER_SECONDS))
        victim = self._dice.choice(self._writers)
        if victim.has_opened.is_set():
            victim.kill()
        for writer in [writer for writer in self._writers if not writer.runs]:
            self._bury(writer)
            self._writers.append(self._start())

    def end(self) -> list[Done]:
        """Kill all; return what all of them were told, in no order."""
        for writer in self._writers:
            writer.kill()
        while self._writers:
            self._bury(self._writers[0])
        return self._acknowledged

    def _start(self) -> _Writer:
        self.serial += 1
        return _Writer(self._log, self.serial)

    def _bury(self, writer: _Writer) -> None:
        self._writers.remove(writer)
        code = writer.mourn()
        if code == -signal.SIGKILL:
            self.kills += 1
        else:
            self.faults.append(f"a writer ended by itself, with {code}; it said why on stderr")
        self.openings += writer.has_opened.is_set()
        self._acknowledged += writer.acknowledged


@contextmanager
def employ(log: Path, serial: int) -> Generator[Crew]:
    """Writers that are all dead at the end, however that comes."""
    crew = Crew(log, serial)
    try:
        yield crew
    finally:
        crew.end()
