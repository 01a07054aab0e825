"""How payloads of earlier days become today's: chains of steps, checked when registered. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from eventstore._errors import EventTypesError

__all__ = ["Chain", "Upcast", "Upcasts", "chains_of"]

Upcast: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns one form of a payload (its fields, without `kind`) into the next. Pure; what it raises
means that the payload is not of the form it takes."""

Upcasts: TypeAlias = Mapping[str, Upcast | str | Sequence[Upcast | str]]
"""By kind on disk: the steps to today, oldest first. A name at the end is the kind it became."""


class Chain(msgspec.Struct, frozen=True):
    """All steps from the oldest form of a kind to a registered class.

    Attributes:
        steps: the functions, oldest first, those of the kinds it was renamed to included.
        kind: the registered kind it ends at.
    """

    steps: tuple[Upcast, ...]
    kind: str

    def suffixes(self) -> Iterator[tuple[Upcast, ...]]:
        """The ways a payload may have to go: from its newest old form to its oldest."""
        for count in range(len(self.steps) + 1):
            yield self.steps[len(self.steps) - count :]


def chains_of(upcasts: Upcasts, *, registered: Collection[str]) -> dict[str, Chain]:
    """Join the steps of each kind with those of the kinds it became.

    Raises:
        EventTypesError: a chain does not end at a registered kind, goes in a circle, or holds
            something that is neither a function nor, at its end, a name.
    """
    split = {kind: _split(kind, steps) for kind, steps in upcasts.items()}
    return {kind: _chain(kind, split, registered) for kind in split}


def _split(kind: str, given: Upcast | str | Sequence[Upcast | str]) -> tuple[list[Upcast], str]:
    """The functions of one kind, and the kind that comes out of them."""
    steps: list[Upcast | str] = [given] if isinstance(given, str) or callable(given) else [*given]
    if not steps:
        msg = f"upcasts[{kind!r}] is empty"
        raise EventTypesError(msg)
    target = kind
    last = steps[-1]
    if isinstance(last, str):
        target = last
        del steps[-1]
        if target == kind:
            msg = f"upcasts[{kind!r}] ends with its own name; leave it out"
            raise EventTypesError(msg)
    for step in steps:
        if not callable(step):
            msg = (
                f"upcasts[{kind!r}] holds {step!r}: a step is a function, and only the last one "
                "may be a name, of the kind it became"
            )
            raise EventTypesError(msg)
    return cast("list[Upcast]", steps), target


def _chain(
    kind: str, split: Mapping[str, tuple[list[Upcast], str]], registered: Collection[str]
) -> Chain:
    steps, target = split[kind]
    path = [kind]
    steps = list(steps)
    while target != path[-1]:
        if target in path:
            msg = f"upcasts go in a circle: {' -> '.join([*path, target])}"
            raise EventTypesError(msg)
        path.append(target)
        more, target = split.get(target, ([], target))
        steps += more
    if target not in registered:
        came = f"{kind!r} ends at {target!r}" if target != kind else repr(kind)
        msg = f"upcasts: {came}, which is no registered kind; end its steps with the name of one"
        raise EventTypesError(msg)
    return Chain(tuple(steps), target)
