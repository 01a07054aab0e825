"""`loopledger schema`: what events look like, for programs in other languages."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

import eventstore as es
from projections.cli._errors import CliError, ExitCode

__all__ = ["print_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def print_schema(types: es.EventTypes[Any], *, kind: str | None) -> ExitCode:
    """Print the JSON Schema of a line's `type` member, or of one kind of it.

    Raises:
        CliError: the kind is not registered, or a field's type has no schema.
    """
    if kind is not None and kind not in types.by_kind:
        known = ", ".join(types.by_kind)
        raise _refused(f"the kind {kind!r} is not registered", f"name one of: {known}")
    target = types.union if kind is None else types.by_kind[kind]
    try:
        schema = msgspec.json.schema(target)
    except TypeError as error:
        raise _refused(f"a field has no JSON schema: {error}", "change its type") from error
    document = {"$schema": _DIALECT, **schema}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")  # ASCII only, as `show`
    return ExitCode.OK


def _refused(message: str, next_step: str) -> CliError:
    return CliError("E-TYPES", message, exit_code=ExitCode.USAGE, next_step=next_step)
