"""What the kernel says to a file system in user space, and the answers: `linux/fuse.h`, in part.

Only what a log needs. The binding libraries for Python go by paths, and cannot show a file that is
open and has lost its name, or one that has two; this log makes both. So there is none here.
"""

from __future__ import annotations

import ctypes
import enum
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

__all__ = [
    "REQUEST_BYTES_MAX",
    "ROOT_NODE",
    "Attributes",
    "Entry",
    "Operation",
    "Request",
    "attributes_answer",
    "directory_answer",
    "entry_answer",
    "init_answer",
    "mount",
    "names",
    "open_answer",
    "written_answer",
]

ROOT_NODE: Final = 1
_WRITE_BYTES_MAX: Final = 2**17
REQUEST_BYTES_MAX: Final = _WRITE_BYTES_MAX + 2**12
_VERSION: Final = (7, 31)
_BIG_WRITES: Final = 1 << 5
_KEEP_CACHE: Final = 1 << 1  # opening a file does not drop its pages, as on a real disk

_HEAD: Final = struct.Struct("=IIQQIIIHH")
_ANSWER_HEAD: Final = struct.Struct("=IiQ")
_ATTRIBUTES: Final = struct.Struct("=QQQ24xIIIIIIIIII")
_ENTRY: Final = struct.Struct("=QQQQII")
_DIRECTORY_ENTRY: Final = struct.Struct("=QQII")
_INIT: Final = struct.Struct("=IIIIHHII28x")


class Operation(enum.IntEnum):
    """What a request asks for; the kernel is told that all others do not exist."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    FSYNC = 20
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    BATCH_FORGET = 42


WITHOUT_ANSWER: Final = frozenset({Operation.FORGET, Operation.INTERRUPT, Operation.BATCH_FORGET})


class Request(msgspec.Struct, frozen=True):
    """One request of the kernel.

    Attributes:
        operation: a number of `Operation`, or another one.
        unique: to answer it.
        node: the file or directory that it is about.
        body: what stands behind the head.
    """

    operation: int
    unique: int
    node: int
    body: bytes

    @classmethod
    def decode(cls, data: bytes) -> Request:
        """Take apart what was read from the device."""
        _, operation, unique, node, *_ = _HEAD.unpack_from(data)
        return cls(operation, unique, node, data[_HEAD.size :])

    def fields(self, layout: str) -> tuple[int, ...]:
        """The numbers at the beginning of the body."""
        return struct.unpack_from(f"={layout}", self.body)

    def answer(self, body: bytes = b"", *, error: int = 0) -> bytes | None:
        """What to write to the device, or None if nothing is expected."""
        if self.operation in WITHOUT_ANSWER:
            return None
        return _ANSWER_HEAD.pack(_ANSWER_HEAD.size + len(body), -error, self.unique) + body


class Attributes(msgspec.Struct, frozen=True):
    """A file's attributes. All times are 0: a change of them would drop cached pages."""

    number: int
    size: int
    is_directory: bool

    def encode(self) -> bytes:
        """As the kernel wants it."""
        mode = stat.S_IFDIR | 0o700 if self.is_directory else stat.S_IFREG | 0o600
        owner = (os.getuid(), os.getgid())
        blocks = -(-self.size // 512)
        return _ATTRIBUTES.pack(
            self.number, self.size, blocks, 0, 0, 0, mode, 1, *owner, 0, 4_096, 0
        )


class Entry(msgspec.Struct, frozen=True):
    """A name in a directory, and what it names."""

    name: str
    node: int
    attributes: Attributes


def names(body: bytes) -> list[str]:
    """The names in the rest of a body."""
    return [os.fsdecode(name) for name in body.rstrip(b"\0").split(b"\0")]


def init_answer() -> bytes:
    """Agree on a version, and on writes as large as the engine's."""
    return _INIT.pack(*_VERSION, 2**17, _BIG_WRITES, 16, 12, _WRITE_BYTES_MAX, 1)


def attributes_answer(attributes: Attributes) -> bytes:
    """Attributes that may change at any time."""
    return bytes(16) + attributes.encode()


def entry_answer(node: int, attributes: Attributes) -> bytes:
    """A node found, or made, that may have another name at any time."""
    return _ENTRY.pack(node, 0, 0, 0, 0, 0) + attributes.encode()


def open_answer(handle: int) -> bytes:
    """A file or directory opened."""
    return struct.pack("=QIi", handle, _KEEP_CACHE, 0)


def written_answer(size: int) -> bytes:
    """How much was written."""
    return struct.pack("=II", size, 0)


def directory_answer(entries: Iterable[Entry], *, start: int, size: int) -> bytes:
    """As many entries as fit, from a place in the directory on."""
    answer = b""
    for place, entry in enumerate(entries):
        name = os.fsencode(entry.name)
        kind = stat.S_IFDIR if entry.attributes.is_directory else stat.S_IFREG
        head = _DIRECTORY_ENTRY.pack(entry.attributes.number, place + 1, len(name), kind >> 12)
        one = (head + name).ljust(-(-(len(head) + len(name)) // 8) * 8, b"\0")
        if place >= start:
            if len(answer) + len(one) > size:
                break
            answer += one
    return answer


def mount(directory: Path) -> int:
    """Mount a file system in user space.

    Returns:
        The device to read requests from and to write answers to.

    Raises:
        OSError: as the system says it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"forgetful", os.fsencode(directory), b"fuse", 0, options.encode()):
        error = ctypes.get_errno()
        os.close(device)
        raise OSError(error, os.strerror(error), str(directory))
    return device
