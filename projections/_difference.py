"""What changed between two states, member by member. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeAlias, cast

import msgspec

__all__ = ["Change", "diff"]

_CHANGES_MAX: Final = 1_000
_DEPTH_MAX: Final = 64
_SHOWN_MAX: Final = 60

_Path: TypeAlias = tuple[str | int, ...]
_Members: TypeAlias = Mapping[Any, object]


class Change(msgspec.Struct, frozen=True):
    """One place where two states differ.

    Attributes:
        path: how to get there: names of members, keys of mappings, places in sequences; empty for
            the states themselves.
        old: what stood there, `msgspec.UNSET` if there was nothing.
        new: what stands there, `msgspec.UNSET` if there is nothing any more.
    """

    path: tuple[str | int, ...]
    old: object
    new: object

    def __str__(self) -> str:
        place = "".join(f"[{step!r}]" if _is_index(step) else f".{step}" for step in self.path)
        return f"{place.removeprefix('.') or 'state'}: {_shown(self.old)} -> {_shown(self.new)}"


def diff(old: object, new: object, *, changes_max: int = _CHANGES_MAX) -> tuple[Change, ...]:
    """Say in which places two states differ.

    Structs, dataclasses and mappings are compared member by member, lists and tuples place by
    place between what both begin with and what both end with. Everything else, and two values of
    different types, differ as a whole.

    Args:
        old: one state.
        new: the other.
        changes_max: stop after this many.

    Returns:
        The places, in the order of the members; a tuple of `changes_max` may not be all of them.
    """
    return tuple(islice(_changes((), old, new), changes_max))


def _changes(path: _Path, old: object, new: object) -> Iterator[Change]:
    if old is new:  # states share what did not change
        return
    parts = None
    if type(old) is type(new) and len(path) < _DEPTH_MAX:
        parts = _sequences(old, new) or _members(old, new)
    if parts is None:
        if not _same(old, new):
            yield Change(path, old, new)
        return
    before, after = parts
    names = dict.fromkeys([*before, *after])
    for name in names:
        step = name if isinstance(name, str | int) else str(name)
        inside = (before.get(name, msgspec.UNSET), after.get(name, msgspec.UNSET))
        yield from _changes((*path, step), *inside)


def _members(old: object, new: object) -> tuple[_Members, _Members] | None:
    """The members by name of two values of one type, if they have any."""
    if isinstance(old, Mapping):
        return cast("_Members", old), cast("_Members", new)
    names = _field_names(old)
    return None if names is None else (_named(names, old), _named(names, new))


def _field_names(value: object) -> tuple[str, ...] | None:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    return cast("tuple[str, ...] | None", getattr(value, "_fields", None))  # a named tuple's


def _named(names: tuple[str, ...], value: object) -> _Members:
    return {name: getattr(value, name, msgspec.UNSET) for name in names}


def _sequences(old: object, new: object) -> tuple[_Members, _Members] | None:
    """The items by place of two lists or tuples, without what both begin or end with."""
    if not isinstance(old, list | tuple) or _field_names(cast("object", old)) is not None:
        return None
    before = cast("list[object] | tuple[object, ...]", old)
    after = cast("list[object] | tuple[object, ...]", new)
    shorter = min(len(before), len(after))
    start = 0
    while start < shorter and _same(before[start], after[start]):
        start += 1
    end = 0
    while end < shorter - start and _same(before[-1 - end], after[-1 - end]):
        end += 1
    return (
        {place: before[place] for place in range(start, len(before) - end)},
        {place: after[place] for place in range(start, len(after) - end)},
    )


def _same(old: object, new: object) -> bool:
    return old is new or (type(old) is type(new) and old == new)


def _is_index(step: str | int) -> bool:
    return isinstance(step, int) or not step.isidentifier()


def _shown(value: object) -> str:
    """One line, cut; `repr` escapes what would drive a terminal."""
    if value is msgspec.UNSET:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
