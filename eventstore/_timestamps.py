"""Timestamps as text: exactly six fraction digits and `Z`. Pure.

One width for every line, because tools that guess the format from the first lines go wrong on a
file that mixes widths.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__all__ = ["UnixTimeText", "format_timestamp"]

_NS_PER_US: Final = 1_000
_NS_PER_S: Final = 1_000_000_000


def format_timestamp(moment: datetime) -> str:
    """Format an aware datetime as `2026-11-21T00:00:03.255970Z`.

    Raises:
        ValueError: `moment` has no timezone.
    """
    if moment.tzinfo is None:
        msg = f"{moment!r} has no timezone"
        raise ValueError(msg)
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class UnixTimeText:
    """Formats nanoseconds since 1970 as a line's timestamp, cut (not rounded) to microseconds.

    The text up to the second is kept: that is nearly all of the work.
    """

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def __call__(self, unix_ns: int) -> bytes:
        """The text of this moment."""
        second, ns = divmod(unix_ns, _NS_PER_S)
        if second != self._second:
            moment = datetime.fromtimestamp(second, UTC).replace(tzinfo=None)
            self._text = moment.isoformat(timespec="seconds").encode()
            self._second = second
        return b"%b.%06dZ" % (self._text, ns // _NS_PER_US)
