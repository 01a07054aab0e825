"""Text of others on its way to a terminal. Pure.

Prompts, stream names, file names and messages may hold what drives a terminal (colours, titles,
the clipboard), hides text, or reorders it. Every string that is printed passes `clean`.
"""

from __future__ import annotations

import re
import shlex
from datetime import datetime
from typing import Final, overload

__all__ = ["clean", "command_line", "count", "shown_time"]

_UNSAFE: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # bidi, zero width, line separators
    "\ud800-\udfff"  # halves of a pair: undecodable bytes of file names
    "]"
)
_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_BYTE_MAX: Final = 0xFF


def clean(text: str) -> str:
    r"""Show what a terminal would act upon as an escape: `\n`, `\x1b`, `\u202e`."""
    return _UNSAFE.sub(_escape, text)


def command_line(command: str, path: str) -> str:
    """Say how to run one of our commands on a path, as a shell takes it. Not cleaned."""
    if path.startswith("-"):
        path = f"./{path}"  # else it is an option
    return shlex.join(("loopledger", command, path))


def count(number: int, singular: str) -> str:
    """Say a number of things: `1 loop`, `2 loops`."""
    return f"{number} {singular}" if number == 1 else f"{number} {singular}s"


@overload
def shown_time(at: datetime) -> str: ...
@overload
def shown_time(at: None) -> None: ...
@overload
def shown_time(at: datetime | None) -> str | None: ...
def shown_time(at: datetime | None) -> str | None:
    """Say a time to the second: `2026-11-21 00:00:03Z`."""
    return None if at is None else at.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    return _SHORT.get(char) or (rf"\x{code:02x}" if code <= _BYTE_MAX else rf"\u{code:04x}")
