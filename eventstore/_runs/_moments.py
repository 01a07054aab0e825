"""Nanoseconds since 1970 as moments and as the texts of a run's files. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["format_offset", "format_utc", "moment_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_S: Final = 1_000_000_000
_NS_PER_US: Final = 1_000


def moment_of(unix_ns: int) -> datetime:
    """The aware UTC moment, cut (not rounded) to microseconds; no float is involved."""
    return _EPOCH + timedelta(microseconds=unix_ns // _NS_PER_US)


def format_utc(moment: datetime) -> str:
    """A moment as `2026-11-21T00:00:03.255970Z`, always six digits."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="microseconds") + "Z"


def format_offset(unix_ns: int) -> str:
    """The event-loop log's form: `+00:00`, and as few of 0, 3, 6, 9 digits as lose nothing."""
    seconds, fraction = divmod(unix_ns, _NS_PER_S)
    digits = f"{fraction:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    whole = moment_of(seconds * _NS_PER_S).replace(tzinfo=None).isoformat(timespec="seconds")
    return f"{whole}{'.' if digits else ''}{digits}+00:00"
