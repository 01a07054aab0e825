"""The seam under run contexts: what they need of a directory tree. Two ways to fill it exist.

It is synchronous on purpose: one operation of a run context is one hop to a worker thread. Names
are relative to the workspace's root, `/` between the parts, and were checked before they come
here. Errors are `OSError`, as the system raises them, or `RunContextError` for what is refused.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

__all__ = ["Clock", "EntryStat", "Workspace", "is_temporary", "temporary_name"]

Clock: TypeAlias = Callable[[], int]
"""Tells nanoseconds since 1970."""

_TEMPORARY: Final = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)


class EntryStat(msgspec.Struct, frozen=True):
    """What stands under a name; a symlink is `other`, whatever it leads to."""

    kind: Literal["file", "directory", "other"]
    size: int
    modified_unix_ns: int


class Workspace(Protocol):
    """A directory tree that nothing leads out of: no symlink in it is ever followed."""

    @property
    def root(self) -> Path:
        """The workspace itself; names are relative to it."""
        ...

    def make_root(self) -> None:
        """Make the root if it is not there, and its ancestors, each durable."""
        ...

    def mkdir(self, name: str) -> None:
        """Make one directory (0700); fails if anything has that name. Not durable yet."""
        ...

    def sync_directory(self, name: str) -> None:
        """Make the entries of a directory durable; "" is the root."""
        ...

    def stat(self, name: str) -> EntryStat | None:
        """What stands under the name, or None; "" is the root."""
        ...

    def listdir(self, name: str) -> list[str]:
        """The names in a directory, in any order."""
        ...

    def open_append(self, name: str, *, lock_timeout_seconds: float | None = None) -> io.RawIOBase:
        """Open a file for reading anywhere and writing at its end, made (0600) if absent.

        Args:
            name: of the file.
            lock_timeout_seconds: hold the file's exclusive lock until it is closed, and wait so
                long for it; None asks for no lock.

        Raises:
            RunContextError: it is a symlink, has a second name, or others can write it.
            BlockingIOError: somebody else held the lock all the time.
        """
        ...

    def open_read(self, name: str) -> io.BufferedIOBase:
        """Open a regular file for reading."""
        ...

    def replacing(self, name: str) -> AbstractContextManager[io.BufferedIOBase]:
        """Write a file that takes the name, durable and whole, when the body ends without error.

        Until then its bytes are in a file named `temporary_name(name)`, beside it.
        """
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename within one directory. Not durable yet."""
        ...

    def remove_file(self, name: str) -> None:
        """Remove a name that is not a directory's. Not durable yet."""
        ...

    def remove_tree(self, name: str) -> None:
        """Remove a directory and everything in it. Not durable yet."""
        ...

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold a directory's lock.

        Raises:
            BlockingIOError: somebody else holds it.
        """
        ...


def temporary_name(name: str, token: str) -> str:
    """The name of a file until it is whole; it begins with a dot, as no name of a run does.

    Args:
        name: what it will be called.
        token: sixteen hex digits that nobody else uses.
    """
    directory, slash, leaf = name.rpartition("/")
    return f"{directory}{slash}.{leaf}.{token}.tmp"


def is_temporary(leaf: str, *, of: str | None = None) -> bool:
    """Whether a file name is a temporary one, of this file or of any."""
    match = _TEMPORARY.fullmatch(leaf)
    return match is not None and (of is None or match[1] == of)
