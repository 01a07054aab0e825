"""A file system in user space that forgets what was not synced: `python -m tests.power._forgetful`.

The kernel sends the system calls of real processes here (FUSE), and the disk of the crash tests
answers them: a power cut leaves any subset of the unsynced directory entries, and of a file's
unsynced bytes a prefix, torn anywhere, or any subset of its blocks (`tests/crash/_disk.py`,
`tests/crash/_crash_states.py`). ext4 and XFS hide most of that by accident.

A sync may be told to fail. Then what was dirty is lost, while the page cache, the kernel's own,
goes on showing it until somebody drops it.
"""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Final, NoReturn

import msgspec

from tests.crash._crash_states import CrashStates
from tests.crash._disk import (
    Directory,
    EntryChange,
    Handle,
    Inode,
    SimulatedDisk,
    overwritten,
)
from tests.power import _fuse_protocol as fuse
from tests.power._fuse_protocol import Operation, Request

__all__ = ["Command", "Cut", "Fail", "Start"]

_STATES: Final = 400
_CORNERS: Final = 4  # of CrashStates: everything, nothing, and what lies between
_CORNER_SHARE: Final = 0.4
_SET_SIZE: Final = 1 << 3
_CHANGES: Final = frozenset(
    {
        Operation.SETATTR,
        Operation.MKDIR,
        Operation.CREATE,
        Operation.LINK,
        Operation.UNLINK,
        Operation.RENAME,
        Operation.WRITE,
        Operation.FSYNC,
        Operation.FSYNCDIR,
    }
)
_DIRECTORY_NUMBERS: Final = 2**40  # files have the numbers that the disk gives them


class Start(msgspec.Struct, frozen=True, tag=True):
    """Mount it, with what the last cut has left."""


class Cut(msgspec.Struct, frozen=True, tag=True):
    """After so many more changes let every call fail; once unmounted, choose what is left."""

    seed: str
    after: int


class Fail(msgspec.Struct, frozen=True, tag=True):
    """Let a later sync fail: the first one after `after` others, among those of files of a size."""

    bytes_min: int
    after: int


Command = Start | Cut | Fail
_COMMAND: Final = msgspec.json.Decoder[Command](Command)


class _Forgetful:
    """One disk, and the requests about it since it was mounted."""

    def __init__(self) -> None:
        self._disk = SimulatedDisk()
        self._nodes: dict[int, Inode | Directory] = {fuse.ROOT_NODE: self._disk.root}
        self._cut: Cut | None = None
        self._fail: Fail | None = None

    def cut(self, cut: Cut) -> None:
        self._cut = cut

    def fail(self, fail: Fail) -> None:
        self._fail = fail

    def restart(self) -> None:
        """Keep only what the power cut leaves."""
        if self._cut is None:  # unmounted in peace
            self._disk = self._disk.copy()
        else:
            random = Random(self._cut.seed)
            states = CrashStates(
                self._disk, seed=random.randrange(2**32), budget=_STATES, stale=True
            )
            is_corner = random.random() < _CORNER_SHARE
            among = min(states.count, _CORNERS) if is_corner else states.count
            self._disk = states.state(random.randrange(among))
        self._nodes = {fuse.ROOT_NODE: self._disk.root}
        self._cut = self._fail = None

    def answer(self, request: Request) -> bytes | None:
        """Carry out a request of the kernel; None if it expects no answer."""
        try:
            if self._cut is not None and self._cut.after == 0:
                _refuse(errno.EIO)
            answer = request.answer(self._carry_out(request))
        except OSError as error:
            return request.answer(error=error.errno or errno.EIO)
        if self._cut is not None and request.operation in _CHANGES:
            self._cut = msgspec.structs.replace(self._cut, after=self._cut.after - 1)
        return answer

    def _carry_out(self, request: Request) -> bytes:
        node, body = request.node, request.body
        match request.operation:
            case Operation.INIT:
                return fuse.init_answer()
            case Operation.LOOKUP:
                return self._entry(self._found(node, fuse.names(body)[0]))
            case Operation.GETATTR:
                return fuse.attributes_answer(self._attributes(node))
            case Operation.SETATTR:
                valid, _, _, size = request.fields("IIQQ")
                if valid & _SET_SIZE:
                    _truncate(self._inode(node), size)
                return fuse.attributes_answer(self._attributes(node))
            case Operation.MKDIR:
                return self._entry(self._enter(node, fuse.names(body[8:])[0], Directory()))
            case Operation.CREATE:
                inode = Inode(self._disk.free_number())
                entry = self._entry(self._enter(node, fuse.names(body[16:])[0], inode))
                return entry + self._open(inode)
            case Operation.LINK:
                inode = self._inode(request.fields("Q")[0])
                return self._entry(self._enter(node, fuse.names(body[8:])[0], inode))
            case Operation.UNLINK | Operation.RMDIR:
                name = fuse.names(body)[0]
                self._found(node, name)
                self._directory(node).change(EntryChange(name, None))
            case Operation.RENAME:
                self._rename(node, request.fields("Q")[0], *fuse.names(body[8:]))
            case Operation.OPEN:
                return self._open(self._inode(node))
            case Operation.OPENDIR:
                return fuse.open_answer(0)
            case Operation.READDIR:
                _, start, size = request.fields("QQI")
                return fuse.directory_answer(self._entries(node), start=start, size=size)
            case Operation.READ:
                _, offset, size = request.fields("QQI")
                return self._inode(node).content[offset : offset + size]
            case Operation.WRITE:
                _, offset, size = request.fields("QQI")
                _write(self._inode(node), body[-size:] if size else b"", offset)
                return fuse.written_answer(size)
            case Operation.FSYNC:
                self._sync(self._inode(node))
            case Operation.FSYNCDIR:
                self._directory(node).sync()
            case Operation.RELEASE:
                del self._disk.handles[request.fields("Q")[0]]
            case Operation.RELEASEDIR | Operation.FORGET | Operation.BATCH_FORGET:
                pass
            case _:
                _refuse(errno.ENOSYS)
        return b""

    # --- files ---

    def _open(self, inode: Inode) -> bytes:
        number = self._disk.next_handle
        self._disk.next_handle += 1
        self._disk.handles[number] = Handle(inode, "", process=1)
        return fuse.open_answer(number)

    def _sync(self, inode: Inode) -> None:
        if self._fail is not None and len(inode.content) > self._fail.bytes_min and inode.pending:
            if self._fail.after == 0:
                self._fail = None
                inode.lose(self._disk.random)
                inode.drop_cache()  # this side's: the kernel's goes on showing what was lost
                _refuse(errno.EIO)
            self._fail = msgspec.structs.replace(self._fail, after=self._fail.after - 1)
        inode.sync()

    # --- directories ---

    def _found(self, node: int, name: str) -> Inode | Directory:
        found = self._directory(node).entries.get(name)
        if found is None:
            _refuse(errno.ENOENT)
        return found

    def _enter(self, node: int, name: str, new: Inode | Directory) -> Inode | Directory:
        self._directory(node).change(EntryChange(name, new))
        return new

    def _rename(self, node: int, new_node: int, old: str, new: str) -> None:
        if node != new_node:
            _refuse(errno.EXDEV)
        found = self._found(node, old)
        self._directory(node).change(EntryChange(new, found, old=old))

    # --- nodes ---

    def _number(self, node: Inode | Directory) -> int:
        """The kernel's number of a file or directory: the same as long as this is mounted."""
        for number, known in self._nodes.items():
            if known is node:
                return number
        number = len(self._nodes) + 1
        self._nodes[number] = node
        return number

    def _entry(self, node: Inode | Directory) -> bytes:
        number = self._number(node)
        return fuse.entry_answer(number, self._attributes(number))

    def _entries(self, node: int) -> list[fuse.Entry]:
        entries: list[fuse.Entry] = []
        for name, known in self._directory(node).entries.items():
            number = self._number(known)
            entries.append(fuse.Entry(name, number, self._attributes(number)))
        return entries

    def _attributes(self, number: int) -> fuse.Attributes:
        node = self._nodes[number]
        if isinstance(node, Directory):
            return fuse.Attributes(_DIRECTORY_NUMBERS + number, 0, is_directory=True)
        return fuse.Attributes(node.number, len(node.content), is_directory=False)

    def _inode(self, number: int) -> Inode:
        node = self._nodes[number]
        assert isinstance(node, Inode)
        return node

    def _directory(self, number: int) -> Directory:
        node = self._nodes[number]
        assert isinstance(node, Directory)
        return node


def _truncate(inode: Inode, size: int) -> None:
    inode.pending.append((size, None))
    inode.content = inode.content[:size].ljust(size, b"\0")


def _write(inode: Inode, data: bytes, offset: int) -> None:
    inode.pending.append((offset, data))
    inode.content = overwritten(inode.content, offset, data)


def _refuse(error: int) -> NoReturn:
    raise OSError(error, os.strerror(error))


def _serve(system: _Forgetful, device: int, commands: int) -> bool:
    """Answer the kernel, and follow commands, until it is unmounted.

    Returns:
        Whether there may be more commands.
    """
    while True:
        readable, _, _ = select.select([device, commands], [], [])
        if commands in readable and not _follow(system, commands):
            return False
        if device not in readable:
            continue
        try:
            data = os.read(device, fuse.REQUEST_BYTES_MAX)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return True
            if error.errno in {errno.ENOENT, errno.EINTR}:  # who asked was killed meanwhile
                continue
            raise
        answer = system.answer(Request.decode(data))
        if answer is not None:
            try:
                os.write(device, answer)
            except FileNotFoundError:  # as above
                continue


def _follow(system: _Forgetful, commands: int) -> bool:
    match _command(commands):
        case Cut() as cut:
            system.cut(cut)
        case Fail() as fail:
            system.fail(fail)
        case None:
            return False
        case Start():
            raise AssertionError
    _say("done")
    return True


def _command(commands: int) -> Command | None:
    """The next command; None at the end of all. Each is answered before the next one comes."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(commands, 2**12)
        if not data:
            return None
        line += data
    command: Command = _COMMAND.decode(line)
    return command


def _say(what: str) -> None:
    os.write(1, f"{what}\n".encode())


def main(directory: Path) -> None:
    """Mount, until unmounted, and again, until stdin ends."""
    system = _Forgetful()
    while _command(0) is not None:
        device = fuse.mount(directory)
        try:
            _say("done")
            if not _serve(system, device, commands=0):
                # Whoever started this is gone: leave nothing mounted.
                subprocess.run(["umount", "--lazy", str(directory)], check=False)
                return
        finally:
            os.close(device)
        system.restart()
        _say("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
