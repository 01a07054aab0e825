"""A machine with a real file system: an image file, mounted, and shut down by `FS_IOC_SHUTDOWN`.

The call ends a file system at once: what is not on the (loop) device by then never gets there, as
in a power cut, and mounting it again replays its journal. It needs root, Linux, and loop devices.

Unlike in a power cut the processes go on meanwhile, and a `fdatasync` that is under way may then
return success for what is lost: measured with nothing but system calls, 2 of 80 times on either
file system, and never for what was told before. So only that counts as acknowledged.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final, Literal

from tests.power._mounts import unmount

__all__ = ["FileSystem", "LoopMachine", "open_loop_machine", "why_no_loop_machine"]

FileSystem = Literal["ext4", "xfs"]

_MAKE: Final[dict[FileSystem, list[str]]] = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
}
_SIZE_MIB: Final[dict[FileSystem, int]] = {"ext4": 32, "xfs": 300}  # xfs accepts no smaller one
_FS_IOC_SHUTDOWN: Final = 0x8004587D
# What reaches the device besides what was synced: everything, the journal, nothing.
_SHUTDOWNS: Final = (0, 1, 2, 2)


class LoopMachine:
    """A file system in an image file.

    Args:
        image: is created.
        directory: where it is mounted while the machine runs; is created.
        kind: which file system.
    """

    def __init__(self, image: Path, directory: Path, kind: FileSystem) -> None:
        self._image = image
        self._kind: FileSystem = kind
        self.directory = directory
        directory.mkdir()
        with image.open("xb") as file:
            file.truncate(_SIZE_MIB[kind] * 2**20)
        _run(*_MAKE[kind], str(image))

    @property
    def is_exact(self) -> bool:
        return False

    def start(self) -> None:
        # The kernel lets go of the loop device when this is unmounted, whoever unmounts it.
        _run("mount", "-t", self._kind, "-o", "loop", str(self._image), str(self.directory))

    def disturb(self, random: Random) -> None:
        pass

    def cut(self, random: Random) -> None:
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, _FS_IOC_SHUTDOWN, struct.pack("=I", random.choice(_SHUTDOWNS)))
        finally:
            os.close(handle)

    def stop(self) -> None:
        _run("umount", str(self.directory))


@contextmanager
def open_loop_machine(directory: Path, kind: FileSystem) -> Generator[LoopMachine]:
    """A machine with a new, empty file system; nothing is mounted after the block.

    Args:
        directory: an empty one, for the image and to mount it in.
        kind: which file system.

    Raises:
        OSError: it cannot be made here.
    """
    machine = LoopMachine(directory / f"{kind}.image", directory / kind, kind)
    try:
        yield machine
    finally:
        unmount(machine.directory)


def why_no_loop_machine(kind: FileSystem, directory: Path) -> str | None:
    """Try it once; say what is missing here, or None.

    Args:
        kind: which file system.
        directory: an empty one, to try it in.
    """
    if sys.platform != "linux":
        return "FS_IOC_SHUTDOWN is Linux's"
    if os.geteuid() != 0:
        return "mounting needs root"
    for program in (_MAKE[kind][0], "mount", "umount"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    try:
        with open_loop_machine(directory, kind) as machine:
            machine.start()
            machine.cut(Random(0))
            machine.stop()
    except OSError as error:
        return f"{kind} cannot be shut down here: {error}"
    return None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        msg = f"{' '.join(command)}: {said[0]}"
        raise OSError(msg)
