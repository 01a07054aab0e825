"""Which lines of a run form whole commits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eventstore._events import Commit

__all__ = ["Numbered", "count_whole"]


class Numbered(Protocol):
    """What a decoded line of ours must have."""

    @property
    def version(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def stream(self) -> str: ...
    @property
    def commit(self) -> Commit: ...


def count_whole(lines: Sequence[Numbered], position: int, open_commit: Commit | None) -> int | None:
    """How many lines, from the first, belong to commits that end among them.

    Args:
        lines: lines at adjacent positions.
        position: of the line before the first.
        open_commit: the commit that the first line must continue, if one is open.

    Returns:
        The count; what is behind it is one commit that goes on. None if the lines do not form
        commits: one begins in the middle, or is interrupted by another.
    """
    count = len(lines)
    index = 0
    if open_commit is not None:
        index = _end_of(open_commit, lines, position, 0)
        if not index:
            return None
    while index < count:
        commit = lines[index].commit
        first = position + index + 1
        if commit.first != first:
            return None
        if commit.last == first:  # most commits, and this loop is most of what a line costs
            index += 1
            continue
        end = _end_of(commit, lines, position, index)
        if not end:
            return None
        if end > count:
            return index
        index = end
    return index if index <= count else 0


def _end_of(commit: Commit, lines: Sequence[Numbered], position: int, index: int) -> int:
    """The index behind a commit's last line, perhaps beyond the lines; 0 if others interrupt it."""
    end = commit.last - position
    part = [line.commit for line in lines[index:end]]
    return end if end > index and part.count(commit) == len(part) else 0
