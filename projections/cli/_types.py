"""Finding the event types a command line names, as `module:NAME`."""

from __future__ import annotations

import importlib
import sys
from typing import Any, TypeGuard

import eventstore as es
from projections.cli._errors import CliError, ExitCode

__all__ = ["find_types"]


def find_types(reference: str | None) -> es.EventTypes[Any]:
    """Import `module:NAME`, seen from the current directory; without one, the twelve kinds.

    Raises:
        CliError: there is no such module or name, it cannot be imported, or it is something else.
    """
    if reference is None:
        return es.LOOP_EVENTS
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise _refused(f"{reference!r} is not of the form module:NAME")
    if "" not in sys.path:
        sys.path.insert(0, "")  # an installed command does not look where it was called
    try:
        found: object = getattr(importlib.import_module(module_name), name)
        if _is_types(found):
            found.check_union()
            return found
    except Exception as error:
        raise _refused(f"{reference}: {type(error).__name__}: {error}") from error
    raise _refused(f"{reference} is of type {type(found).__name__}, not EventTypes")


def _is_types(found: object) -> TypeGuard[es.EventTypes[Any]]:
    return isinstance(found, es.EventTypes)


def _refused(message: str) -> CliError:
    next_step = "name the EventTypes that open_store gets, such as my_program.events:EVENTS"
    return CliError("E-TYPES", message, exit_code=ExitCode.USAGE, next_step=next_step)
