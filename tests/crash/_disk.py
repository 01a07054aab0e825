"""A disk in memory that knows what a power cut would leave of it.

Every file has its content as processes see it (the page cache) and the content on the medium;
writes and truncations wait in between until a sync. Every directory has its entries twice in the
same way. What a power cut may leave is enumerated in `_crash_states.py`.

The rules of the model:

* a sync makes the dirty blocks of one file durable, whole blocks at a time, and its size;
* a failed sync (or one that nobody asked for) loses what was dirty, some blocks or all, while the
  cache goes on showing it; every handle that was open then is told once, one that is opened later
  only if nobody was told before; the next sync of the same handle succeeds;
* a lost block stays lost, however often it is rewritten, until the cache is dropped: measured on
  ext4, where such a rewrite reports success;
* dropping the cache reloads clean blocks only, and leaves the size as it is;
* entries of one directory become durable in any order until the directory is synced; a rename is
  one entry operation; the number of a removed file is given to the next one;
* a lock belongs to a handle, a handle to a process; killing a process closes its handles, and
  nothing else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Final, NoReturn

import msgspec

from eventstore._log._files import DIRECTORY_MODE, FileStat, OpenMode

__all__ = [
    "BLOCK_BYTES",
    "Directory",
    "EntryChange",
    "Gate",
    "Handle",
    "Inode",
    "KilledError",
    "SimulatedDisk",
    "SimulatedFiles",
    "overwritten",
    "with_blocks",
]

BLOCK_BYTES: Final = 64
"""The unit that reaches the medium or does not: small, so that one line spans several."""

Write = tuple[int, bytes | None]
"""An offset and what was written there; or a size and None for a truncation."""

Gate = Callable[[str, str], int | None]
"""Looks at a call (method, file name) before it happens.

It may raise what the system would raise, or return how many bytes of a write are accepted.
"""


class KilledError(BaseException):
    """The process that makes this call no longer exists. No `except Exception` can stop it."""


class Inode:
    """A file, whatever its names are."""

    __slots__ = (
        "content",
        "durable",
        "errors",
        "exclusive",
        "is_error_seen",
        "lost",
        "number",
        "pending",
        "shared",
    )

    def __init__(self, number: int, content: bytes = b"") -> None:
        self.number = number
        self.content = content
        self.durable = content
        self.pending: list[Write] = []
        self.lost: frozenset[int] = frozenset()  # clean blocks that the medium does not have
        self.errors = 0
        self.is_error_seen = True
        self.exclusive: int | None = None
        self.shared: set[int] = set()

    @property
    def is_durable(self) -> bool:
        """Whether a power cut would change nothing of it."""
        return not self.pending and self.content == self.durable

    def dirty(self) -> list[int]:
        """The numbers of the blocks that a sync would write."""
        blocks: set[int] = set()
        for offset, data in self.pending:
            if data:
                blocks.update(range(offset // BLOCK_BYTES, _blocks(offset + len(data))))
        end = _blocks(len(self.content))
        return sorted(block for block in blocks if block < end)

    def sync(self) -> None:
        """Write the dirty blocks to the medium."""
        if not self.pending:
            return
        if not self.lost:
            self.durable = self.content
        else:
            dirty = [block for block in self.dirty() if block not in self.lost]
            self.durable = with_blocks(self.durable, self.content, dirty, size=len(self.content))
        self.pending = []

    def lose(self, random: Random) -> None:
        """Fail to write: some blocks arrive, the others never will, and nothing is dirty now."""
        dirty = self.dirty()
        share = random.choice((0.0, 0.5))
        size = random.choice((len(self.durable), len(self.content)))
        arrived = [
            block
            for block in dirty
            if random.random() < share
            and block not in self.lost
            and (size == len(self.content) or (block + 1) * BLOCK_BYTES <= size)
        ]
        self.durable = with_blocks(self.durable, self.content, arrived, size=size)
        self.pending = []
        self.lost |= {block for block in dirty if block not in arrived}
        self.errors += 1
        self.is_error_seen = False

    def drop_cache(self) -> None:
        """Reload the clean blocks from the medium."""
        if not self.lost:
            return
        clean = sorted(self.lost - set(self.dirty()))
        medium = self.durable.ljust(len(self.content), b"\0")
        self.content = with_blocks(self.content, medium, clean, size=len(self.content))
        self.lost -= set(clean)


class Directory:
    """A directory: its entries as processes see them, and on the medium."""

    __slots__ = ("durable", "entries", "pending")

    def __init__(self) -> None:
        self.entries: dict[str, Inode | Directory] = {}
        self.durable: dict[str, Inode | Directory] = {}
        self.pending: list[EntryChange] = []

    def change(self, change: EntryChange) -> None:
        """Change an entry, not durably yet."""
        change.apply(self.entries)
        self.pending.append(change)

    def sync(self) -> None:
        """Write the entries to the medium."""
        if self.pending:
            self.durable = dict(self.entries)
            self.pending = []


class EntryChange(msgspec.Struct, frozen=True, gc=False):
    """A new entry (`node`), a removed one (no `node`), or a rename (`old`)."""

    name: str
    node: Inode | Directory | None
    old: str | None = None

    def apply(self, entries: dict[str, Inode | Directory]) -> None:
        """Make the change. Changes before it may never have reached the medium."""
        if self.node is None:
            entries.pop(self.name, None)
            return
        if self.old is not None and entries.get(self.old) is self.node:
            del entries[self.old]
        entries[self.name] = self.node


class Handle:
    """One open file description."""

    __slots__ = ("errors", "inode", "name", "process")

    def __init__(self, inode: Inode, name: str, process: int) -> None:
        self.inode = inode
        self.name = name
        self.process = process
        self.errors = inode.errors if inode.is_error_seen else inode.errors - 1


class SimulatedDisk:
    """The files of one machine, and its clock.

    Attributes:
        watch: is told of each call that changed something: method and file name.
        random: decides what a failed sync loses.
    """

    def __init__(self, *, with_directory: bool = True, seed: int = 0) -> None:
        self.top = Directory()  # holds the log's directory, under "."
        self.handles: dict[int, Handle] = {}
        self.watch: Callable[[str, str], None] | None = None
        self.random = Random(seed)
        self.now = 0.0
        self.next_handle = 1
        self.next_process = 1
        if with_directory:
            self.top.entries["."] = self.top.durable["."] = Directory()

    @property
    def root(self) -> Directory:
        """The log's directory."""
        directory = self.top.entries.get(".")
        if directory is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "sim:")
        assert isinstance(directory, Directory)
        return directory

    def walk(self) -> Iterator[tuple[str, Inode | Directory]]:
        """Everything that has a name, directories before what they hold."""
        yield from _walk("", self.top)

    def kill(self, process: int) -> None:
        """End a process: its handles vanish, and what it wrote stays in the cache."""
        for number in [n for n, handle in self.handles.items() if handle.process == process]:
            release(self.handles.pop(number).inode, number)

    def kill_all(self) -> None:
        """End every process."""
        for number, handle in self.handles.items():
            release(handle.inode, number)
        self.handles.clear()

    def free_number(self) -> int:
        """The lowest number that no file has, on the medium or in the cache."""
        used: set[int] = {handle.inode.number for handle in self.handles.values()}
        _numbers(self.top, used)
        number = 1
        while number in used:
            number += 1
        return number

    def copy(self) -> SimulatedDisk:
        """The same disk once more, without its processes: as after a kill of all of them."""
        twins: dict[int, Inode | Directory] = {}
        disk = SimulatedDisk(with_directory=False)
        disk.top = _copy_directory(self.top, twins)
        disk.next_handle, disk.next_process = self.next_handle, self.next_process
        return disk


class SimulatedFiles:
    """`Files` as one process sees the disk.

    Args:
        disk: the machine's disk.
        gate: looks at each call first; may fail it, shorten it, or end the process.
    """

    def __init__(self, disk: SimulatedDisk, gate: Gate | None = None) -> None:
        self.disk = disk
        self.gate = gate
        self.process = disk.next_process
        disk.next_process += 1

    @property
    def open_handles(self) -> int:
        """How many handles this process has open."""
        return sum(handle.process == self.process for handle in self.disk.handles.values())

    def die(self) -> None:
        """Be killed: the handles vanish, and every later call fails to happen."""
        self.disk.kill(self.process)
        self.gate = _dead

    # --- the seam ---

    def path(self, name: str) -> str:
        return f"sim:{name}"

    def open(
        self, name: str, mode: OpenMode, *, create: bool = False, exclusive: bool = False
    ) -> int:
        del mode
        if self.gate is not None:
            self.gate("open", name)
        disk = self.disk
        directory, entry = self._place(name)
        node = directory.entries.get(entry)
        if node is None:
            if not (create or exclusive):
                _fail(errno.ENOENT, name)
            node = Inode(disk.free_number())
            directory.change(EntryChange(entry, node))
            self._tell("create", name)
        elif exclusive:
            _fail(errno.EEXIST, name)
        elif isinstance(node, Directory):
            _fail(errno.EISDIR, name)
        number = disk.next_handle
        disk.next_handle = number + 1
        disk.handles[number] = Handle(node, name, self.process)
        return number

    def close(self, handle: int) -> None:
        opened = self._handle("close", handle)
        del self.disk.handles[handle]  # closed even if an error is reported
        release(opened.inode, handle)
        if self.gate is not None:
            self.gate("close", opened.name)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        opened = self._handle("write", handle)
        if self.gate is not None and (limit := self.gate("write", opened.name)) is not None:
            data = data[:limit]
        inode = opened.inode
        written = bytes(data)
        if written:
            inode.pending.append((len(inode.content), written))
            inode.content += written
            self._tell("write", opened.name)
        return len(written)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        opened = self._handle("pwrite", handle)
        if self.gate is not None and (limit := self.gate("pwrite", opened.name)) is not None:
            data = data[:limit]
        inode = opened.inode
        if data:
            inode.pending.append((offset, data))
            inode.content = overwritten(inode.content, offset, data)
            self._tell("pwrite", opened.name)
        return len(data)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        opened = self._opened("pread", handle)
        return opened.inode.content[offset : offset + size]

    def stat(self, name: str) -> FileStat | None:
        if self.gate is not None:
            self.gate("stat", name)
        try:
            directory, entry = self._place(name)
        except FileNotFoundError:
            return None
        node = directory.entries.get(entry)
        if node is None:
            return None
        if isinstance(node, Directory):
            return FileStat(inode=0, size=0, kind="directory", permissions=DIRECTORY_MODE)
        return FileStat(inode=node.number, size=len(node.content))

    def fstat(self, handle: int) -> FileStat:
        opened = self._opened("fstat", handle)
        return FileStat(inode=opened.inode.number, size=len(opened.inode.content))

    def fdatasync(self, handle: int) -> None:
        self._sync("fdatasync", self._handle("fdatasync", handle))

    def fsync(self, handle: int) -> None:
        self._sync("fsync", self._handle("fsync", handle))

    def fsync_directory(self, name: str) -> None:
        if self.gate is not None:
            self.gate("fsync_directory", name)
        self._directory(name).sync()
        self._tell("fsync_directory", name)

    def drop_cache(self, handle: int) -> None:
        opened = self._opened("drop_cache", handle)
        opened.inode.drop_cache()
        self._tell("drop_cache", opened.name)

    def truncate(self, handle: int, size: int) -> None:
        opened = self._opened("truncate", handle)
        inode = opened.inode
        inode.pending.append((size, None))
        inode.content = inode.content[:size].ljust(size, b"\0")
        inode.lost = frozenset(block for block in inode.lost if block < _blocks(size))
        self._tell("truncate", opened.name)

    def rename(self, old: str, new: str) -> None:
        if self.gate is not None:
            self.gate("rename", old)
        directory, entry = self._place(old)
        target, new_entry = self._place(new)
        assert target is directory, "a rename stays within its directory"
        node = directory.entries.get(entry)
        if node is None:
            _fail(errno.ENOENT, old)
        directory.change(EntryChange(new_entry, node, old=entry))
        self._tell("rename", old)

    def link(self, old: str, new: str) -> None:
        if self.gate is not None:
            self.gate("link", old)
        directory, entry = self._place(old)
        target, new_entry = self._place(new)
        node = directory.entries.get(entry)
        if node is None:
            _fail(errno.ENOENT, old)
        if new_entry in target.entries:
            _fail(errno.EEXIST, new)
        target.change(EntryChange(new_entry, node))
        self._tell("link", old)

    def unlink(self, name: str) -> None:
        if self.gate is not None:
            self.gate("unlink", name)
        directory, entry = self._place(name)
        if entry not in directory.entries:
            _fail(errno.ENOENT, name)
        directory.change(EntryChange(entry, None))
        self._tell("unlink", name)

    def mkdir(self, name: str) -> bool:
        if self.gate is not None:
            self.gate("mkdir", name)
        made = False
        parent, path = self.disk.top, ""
        for entry in _entries(name):
            node = parent.entries.get(entry)
            if node is None:
                node = Directory()
                parent.change(EntryChange(entry, node))
                self._tell("mkdir", f"{path}/{entry}")
                parent.sync()
                self._tell("fsync_directory", path)
                made = True
            assert isinstance(node, Directory)
            parent, path = node, f"{path}/{entry}"
        return made

    def listdir(self, name: str) -> list[str]:
        if self.gate is not None:
            self.gate("listdir", name)
        return list(self._directory(name).entries)

    def try_lock(self, handle: int, *, exclusive: bool) -> bool:
        opened = self._opened("try_lock", handle)
        inode = opened.inode
        if inode.exclusive not in (None, handle) or (exclusive and inode.shared - {handle}):
            return False
        release(inode, handle)
        if exclusive:
            inode.exclusive = handle
        else:
            inode.shared.add(handle)
        return True

    def unlock(self, handle: int) -> None:
        opened = self._opened("unlock", handle)
        release(opened.inode, handle)

    def lock_holder(self, handle: int) -> int | None:
        opened = self._opened("lock_holder", handle)
        holder = opened.inode.exclusive
        return None if holder is None else self.disk.handles[holder].process

    def monotonic(self) -> float:
        return self.disk.now

    def pause(self, seconds: float) -> None:
        self.disk.now += seconds

    # --- inside ---

    def _opened(self, method: str, handle: int) -> Handle:
        opened = self._handle(method, handle)
        if self.gate is not None:
            self.gate(method, opened.name)
        return opened

    def _handle(self, method: str, handle: int) -> Handle:
        opened = self.disk.handles.get(handle)
        if opened is None:
            if self.gate is _dead:
                raise KilledError(method, handle)
            _fail(errno.EBADF, f"handle {handle}")
        return opened

    def _tell(self, method: str, name: str) -> None:
        if self.disk.watch is not None:
            self.disk.watch(method, name)

    def _sync(self, method: str, opened: Handle) -> None:
        inode = opened.inode
        if self.gate is not None:
            try:
                self.gate(method, opened.name)
            except OSError:
                inode.lose(self.disk.random)
                opened.errors = inode.errors
                inode.is_error_seen = True
                self._tell(method, opened.name)
                raise
        if opened.errors != inode.errors:
            # An error of the past is reported now, and to this handle never again.
            opened.errors = inode.errors
            inode.is_error_seen = True
            inode.sync()
            self._tell(method, opened.name)
            _fail(errno.EIO, opened.name)
        inode.sync()
        self._tell(method, opened.name)

    def _directory(self, name: str) -> Directory:
        node: Inode | Directory | None = self.disk.top.entries.get(".")
        for entry in name.split("/") if name else ():
            node = node.entries.get(entry) if isinstance(node, Directory) else None
        if not isinstance(node, Directory):
            _fail(errno.ENOENT, name)
        return node

    def _place(self, name: str) -> tuple[Directory, str]:
        """The directory of a name, and the entry in it."""
        parent, slash, entry = name.rpartition("/")
        if slash:
            return self._directory(parent), entry
        if not entry:
            return self.disk.top, "."
        return self.disk.root, entry


def _entries(name: str) -> list[str]:
    return [".", *name.split("/")] if name else ["."]


def _dead(method: str, name: str) -> int | None:
    raise KilledError(method, name)


def _fail(error: int, name: str) -> NoReturn:
    raise OSError(error, os.strerror(error), f"sim:{name}")


def release(inode: Inode, handle: int) -> None:
    """Give a handle's lock back."""
    inode.shared.discard(handle)
    if inode.exclusive == handle:
        inode.exclusive = None


def overwritten(content: bytes, offset: int, data: bytes) -> bytes:
    """A content with other bytes at a place, zeros before them if it was shorter."""
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


def with_blocks(base: bytes, source: bytes, blocks: list[int], *, size: int) -> bytes:
    """A content of another size, in which some blocks, in order, are those of another content."""
    base, source = base[:size].ljust(size, b"\0"), source[:size]
    pieces: list[bytes] = []
    done = first = after = 0  # the blocks from `first` to `after` are a run
    for block in (*blocks, -1):
        if block == after and block > 0:
            after += 1
            continue
        if after > first:
            piece = source[first * BLOCK_BYTES : after * BLOCK_BYTES]
            pieces += (base[done : first * BLOCK_BYTES], piece)
            done = max(done, first * BLOCK_BYTES) + len(piece)
        first, after = block, block + 1
    return b"".join(pieces) + base[done:]


def _blocks(size: int) -> int:
    """How many blocks hold this many bytes."""
    return (size + BLOCK_BYTES - 1) // BLOCK_BYTES


def _walk(path: str, directory: Directory) -> Iterator[tuple[str, Inode | Directory]]:
    for entry, node in directory.entries.items():
        name = f"{path}/{entry}" if path else entry
        yield name, node
        if isinstance(node, Directory):
            yield from _walk(name, node)


def _numbers(directory: Directory, used: set[int]) -> None:
    pending = [change.node for change in directory.pending]
    for node in (*directory.entries.values(), *directory.durable.values(), *pending):
        if isinstance(node, Inode):
            used.add(node.number)
        elif isinstance(node, Directory):
            _numbers(node, used)


def _copy_directory(directory: Directory, twins: dict[int, Inode | Directory]) -> Directory:
    known = twins.get(id(directory))
    if isinstance(known, Directory):
        return known
    twin = Directory()
    twins[id(directory)] = twin
    twin.entries = {name: _copy(node, twins) for name, node in directory.entries.items()}
    twin.durable = {name: _copy(node, twins) for name, node in directory.durable.items()}
    twin.pending = [
        msgspec.structs.replace(
            change, node=None if change.node is None else _copy(change.node, twins)
        )
        for change in directory.pending
    ]
    return twin


def _copy(node: Inode | Directory, twins: dict[int, Inode | Directory]) -> Inode | Directory:
    if isinstance(node, Directory):
        return _copy_directory(node, twins)
    known = twins.get(id(node))
    if known is not None:
        return known
    twin = Inode(node.number, node.content)
    twin.durable = node.durable
    twin.pending = list(node.pending)
    twin.lost = node.lost
    twin.errors = node.errors
    twin.is_error_seen = node.is_error_seen
    twins[id(node)] = twin
    return twin
