"""Run ids: `YYYY-MM-DD_HH-MM-SS.mmmZ`, and `-01` to `-99` for more in one millisecond. Pure.

No colon, so that an id is a file name everywhere; the text's order is the order in time, suffixes
included. An id names a directory, so one that does not match exactly is refused, never joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from eventstore._errors import RunContextError
from eventstore._runs._moments import moment_of

__all__ = ["RUN_ID_SUFFIX_MAX", "check_run_id", "is_run_id", "run_id_candidates", "run_started_at"]

RUN_ID_SUFFIX_MAX: Final = 99  # two digits; the original gives up after them too

_BASE_CHARACTERS: Final = len("YYYY-MM-DD_HH-MM-SS.mmmZ")
# [0-9], because \d accepts every script's digits; only ever used with fullmatch, because `$`
# accepts a newline at the end.
_PATTERN: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2}\.[0-9]{3}Z(-(0[1-9]|[1-9][0-9]))?"
)


def is_run_id(text: str) -> bool:
    """Whether the text is a run id: the exact format, and a moment the calendar knows."""
    return _PATTERN.fullmatch(text) is not None and _moment(text) is not None


def check_run_id(text: str) -> str:
    """Return the text if it is a run id.

    Raises:
        RunContextError: it is not.
    """
    if not is_run_id(text):
        raise RunContextError(
            f"{text!r} is not a run id; one looks like 2026-11-21_00-07-26.254Z, "
            "perhaps with -01 to -99; nothing was touched"
        )
    return text


def run_id_candidates(unix_ns: int) -> Iterator[str]:
    """The hundred ids a run that starts at this moment may take, in the order to try them."""
    moment = moment_of(unix_ns)
    milliseconds = moment.microsecond // 1_000
    base = f"{moment:%Y-%m-%d_%H-%M-%S}.{milliseconds:03}Z"
    yield base
    for suffix in range(1, RUN_ID_SUFFIX_MAX + 1):
        yield f"{base}-{suffix:02}"


def run_started_at(run_id: str) -> datetime:
    """The moment that a valid id names, to the millisecond, aware, in UTC."""
    moment = _moment(run_id)
    assert moment is not None, run_id
    return moment


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text[:_BASE_CHARACTERS], "%Y-%m-%d_%H-%M-%S.%fZ").replace(
            tzinfo=UTC
        )
    except ValueError:
        return None
