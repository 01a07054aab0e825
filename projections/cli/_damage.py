"""What reading goes around, said after what could be read."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from projections.cli._errors import CliError, ExitCode
from projections.cli._text import command_line

__all__ = ["damage_found", "refuse_damage"]


@contextmanager
def damage_found() -> Generator[list[str]]:
    """Collect what a reader reports of damage; it goes on behind it."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, collector = logging.getLogger("eventstore"), Collector(logging.ERROR)
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)


def refuse_damage(messages: Sequence[str], path: str) -> None:
    """End with the exit code of a log that is not sound, if there was damage.

    Raises:
        CliError: there was.
    """
    if messages:
        raise CliError(
            "E-DAMAGE",
            f"{path}: {messages[0]}",
            exit_code=ExitCode.NOT_SOUND,
            next_step=f"what could be read is above; {command_line('verify', path)}",
        )
