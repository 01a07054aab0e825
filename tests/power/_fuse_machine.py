"""A machine whose file system is a process of its own, `_forgetful.py`. It needs root and FUSE."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from tests._mutants import ROOT
from tests.power._forgetful import Command, Cut, Fail, Start
from tests.power._mounts import unmount

__all__ = ["FuseMachine", "open_fuse_machine", "why_no_fuse_machine"]

_STUCK_SECONDS: Final = 30.0
_FAIL_SHARE: Final = 0.7
_FAIL_AFTER_MAX: Final = 8
_CUT_AFTER_MAX: Final = 10  # a commit makes four changes, a seal ten
_LOCK_RECORD_BYTES: Final = 140  # a file that is larger is a log


class FuseMachine:
    """A file system that forgets what was not synced.

    Args:
        process: the file system.
        directory: where it is mounted while the machine runs.
        syncs_fail: whether a sync of the log fails now and then.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], directory: Path, *, syncs_fail: bool
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.directory = directory
        self._input = process.stdin
        self._output = process.stdout
        self._syncs_fail = syncs_fail

    @property
    def is_exact(self) -> bool:
        return True  # what is left is chosen after everything has ended

    def start(self) -> None:
        self._tell(Start())

    def disturb(self, random: Random) -> None:
        if self._syncs_fail and random.random() < _FAIL_SHARE:
            self._tell(Fail(_LOCK_RECORD_BYTES, after=random.randrange(_FAIL_AFTER_MAX)))

    def cut(self, random: Random) -> None:
        self._tell(Cut(str(random.random()), after=random.randrange(_CUT_AFTER_MAX)))

    def stop(self) -> None:
        done = subprocess.run(
            ["umount", "--no-canonicalize", str(self.directory)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise OSError(done.stderr.strip())
        self._expect_done()

    def _tell(self, command: Command) -> None:
        self._input.write(msgspec.json.encode(command) + b"\n")
        self._input.flush()
        self._expect_done()

    def _expect_done(self) -> None:
        readable, _, _ = select.select([self._output], [], [], _STUCK_SECONDS)
        if not readable or self._output.readline() != b"done\n":
            msg = "the file system ended, or is stuck"
            raise OSError(msg)


@contextmanager
def open_fuse_machine(
    directory: Path, *, syncs_fail: bool = False, quiet: bool = False
) -> Generator[FuseMachine]:
    """A machine whose file system begins empty; nothing is mounted after the block.

    Args:
        directory: where to mount; is created.
        syncs_fail: whether a sync of the log fails now and then.
        quiet: whether the file system keeps its complaints to itself.
    """
    directory.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.power._forgetful", str(directory)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
    )
    try:
        yield FuseMachine(process, directory, syncs_fail=syncs_fail)
    finally:
        unmount(directory)
        process.kill()
        process.communicate()


def why_no_fuse_machine(directory: Path) -> str | None:
    """Try it once; say what is missing here, or None.

    Args:
        directory: an empty one, to try it in.
    """
    if sys.platform != "linux":
        return "FUSE is Linux's"
    if os.geteuid() != 0:
        return "mounting needs root"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    if shutil.which("umount") is None:
        return "there is no umount"
    with open_fuse_machine(directory / "mounted", quiet=True) as machine:
        try:
            machine.start()
            machine.stop()
        except OSError as error:
            return f"FUSE cannot mount here: {error}"
    return None
