"""Timestamps of a foreign line: the grammar of the Rust crate chrono (0.4.42). Pure.

The original reads a timestamp with chrono's relaxed RFC 3339 parser, so what that takes, we take:

* blanks before every number, before `-`, `:` and the offset, and around the whole; between date
  and time one `T`, `t` or space, then any blanks. A blank is a character of Unicode's
  White_Space, in which U+001C to U+001F are not (to Python's `str` they are);
* a year of one to four digits, or one with a sign and any number of digits;
* one or two digits for everything from month to second; second 60 in every minute;
* a fraction of at least one digit, of any length;
* `Z`, `UTC` in any case, or sign, two digits of hours (to 23), colons and blanks if any, two
  digits of minutes. The sign may be U+2212. The offset is never absent.

Years run from -262143 to 262142, in local time and in UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["parse_chrono"]

_YEAR_MIN: Final = -262_143
_YEAR_MAX: Final = 262_142
_YEAR_DIGITS_MAX: Final = 6
_OFFSET_HOURS_MAX: Final = 23
_LEAP_SECOND: Final = 60
_CALENDAR_YEARS: Final = 400
"""The Gregorian calendar repeats after 400 years: any such year stands in for one out of range."""
_STAND_IN_YEAR: Final = 2000

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)

_WRITTEN: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3,9})?Z"
)
"""What the original writes, and `datetime.fromisoformat` reads as chrono does."""

_BLANK: Final = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_GRAMMAR: Final = re.compile(  # `_` stands for any number of blanks, none included
    r"_([+-]?)([0-9]+)_-_([0-9]{1,2})_-_([0-9]{1,2})"
    r"[Tt ]_([0-9]{1,2})_:_([0-9]{1,2})_:_([0-9]{1,2})(?:\.([0-9]+))?"
    r"_(?:[Zz]|[Uu][Tt][Cc]|([+\-\u2212])([0-9]{2})[:BLANK]*([0-5][0-9]))_".replace(
        "BLANK", _BLANK
    ).replace("_", f"[{_BLANK}]*")
)


def parse_chrono(text: str) -> datetime | None:
    """Read a timestamp as the original does.

    Args:
        text: the timestamp, without the quotes around it.

    Returns:
        The moment in UTC, its fraction cut (not rounded) to microseconds, or None for a text the
        original refuses. What a datetime cannot hold becomes the nearest it can: second 60 is
        59.999999, a moment before year 1 or after year 9999 the first or last one.
    """
    if _WRITTEN.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:  # year 0, second 60, or no such day or time: the rules below decide
            pass
    found = _GRAMMAR.fullmatch(text)
    if found is None:
        return None
    sign, digits, month, day, hour, minute, second, fraction, *offset = found.groups()
    year = _year(sign, digits)
    leap = int(second) == _LEAP_SECOND
    if year is None or int(offset[1] or 0) > _OFFSET_HOURS_MAX:
        return None
    stand_in = _STAND_IN_YEAR + year % _CALENDAR_YEARS
    try:
        local = datetime(
            *(stand_in, int(month), int(day), int(hour), int(minute)),
            second=59 if leap else int(second),
            microsecond=999_999 if leap else int((fraction or "")[:6].ljust(6, "0")),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    moment = local - _offset(*offset)
    return _in_year(moment, year + moment.year - stand_in)


def _year(sign: str, digits: str) -> int | None:
    significant = digits.lstrip("0") or "0"
    # Before int(), whose time grows with the square of the length and which stops at 4,300 digits.
    if len(significant) > _YEAR_DIGITS_MAX or not (sign or len(digits) <= len("9999")):
        return None
    year = int(sign + significant)
    return year if _YEAR_MIN <= year <= _YEAR_MAX else None


def _offset(sign: str | None, hours: str | None, minutes: str | None) -> timedelta:
    east = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    return east if sign == "+" else -east


def _in_year(moment: datetime, year: int) -> datetime | None:
    if not _YEAR_MIN <= year <= _YEAR_MAX:
        return None
    if year < _EARLIEST.year:
        return _EARLIEST
    if year > _LATEST.year:
        return _LATEST
    return moment.replace(year=year)
