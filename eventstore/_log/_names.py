"""The names of a log's files, all in one directory. Pure.

`history.jsonl` is the active segment, `history-<first position, 20 digits>.jsonl` a sealed one,
`history.jsonl.lock` the lock, `history.jsonl.d/` holds what can be rebuilt, what was set aside, and
who drives what.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

__all__ = ["LogNames", "lock_name"]

_POSITION_DIGITS: Final = 20
_OWNER_CHARACTERS: Final = 80  # of the stream's name, for people
_OWNER_DIGITS: Final = 32  # of its digest, which tells streams apart


def lock_name(name: str) -> str:
    """The lock file's name, exactly as the original derives it (I20).

    The last extension `ext` becomes `ext.lock`; a name without one counts as having an empty
    extension and still gets its dot: `tasks` -> `tasks..lock`, `.hidden` -> `.hidden..lock`.
    """
    name = name.rstrip("/")
    if not name.strip("."):  # only dots: "." and "..", but "..." has a stem
        if len(name) <= len(".."):
            return name
    elif name.startswith("..") and "." not in name[2:]:
        return ".."  # the original's own quirk; opening it then fails
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem:  # no dot at all, or only the leading one
        stem, extension = name, ""
    return f"{stem}.{extension}.lock"


class LogNames(msgspec.Struct, frozen=True):
    """The names that belong to the log whose active segment is `active`."""

    active: str

    @property
    def lock(self) -> str:
        """The advisory lock and its record; never deleted."""
        return lock_name(self.active)

    @property
    def directory(self) -> str:
        """Where `cache/`, `owners/` and `quarantine/` live."""
        return f"{self.active}.d"

    @property
    def quarantine(self) -> str:
        """Bytes that recovery set aside."""
        return f"{self.directory}/quarantine"

    @property
    def cache(self) -> str:
        """What can be computed again."""
        return f"{self.directory}/cache"

    @property
    def owners(self) -> str:
        """The claims on streams."""
        return f"{self.directory}/owners"

    def owner(self, stream: str) -> str:
        """The lock file of the claim on a stream; never deleted.

        Two streams never share one, though a name may be longer than a file system takes, and
        the file system may take upper and lower case for the same.
        """
        shown = re.sub("[^a-z0-9._-]", "_", stream.lower())[:_OWNER_CHARACTERS]
        digest = hashlib.sha256(stream.encode(errors="backslashreplace")).hexdigest()
        return f"{self.owners}/{shown}-{digest[:_OWNER_DIGITS]}.lock"

    @property
    def temporary(self) -> str:
        """The copy that replaces the active segment after an I/O error; written under the lock."""
        return f"{self.active}.new"

    def sealed(self, first_position: int) -> str:
        """The name of the sealed segment whose first line has this position."""
        stem, extension = self._split()
        return f"{stem}-{first_position:0{_POSITION_DIGITS}d}{extension}"

    def sealed_positions(self, names: list[str]) -> list[int]:
        """The first positions of the sealed segments among these file names, in order."""
        stem, extension = self._split()
        pattern = re.compile(
            rf"{re.escape(stem)}-([0-9]{{{_POSITION_DIGITS}}}){re.escape(extension)}"
        )
        matches = (pattern.fullmatch(name) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def quarantined(self, offset: int, size: int, checksum: int) -> str:
        """Where bytes cut at this offset are kept; the same bytes give the same name."""
        return f"{self.quarantine}/{self.active}-{offset}-{size}-{checksum:08x}.bin"

    def _split(self) -> tuple[str, str]:
        stem, dot, extension = self.active.rpartition(".")
        return (stem, dot + extension) if dot and stem else (self.active, "")
