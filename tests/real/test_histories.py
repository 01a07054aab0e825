"""The checker of histories: it accepts a right one, and finds each anomaly that is put into it."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest

from tests.real._histories import Line, Operation, anomalies

_RIGHT: Final = {
    # two processes meet at version 0; one is told of a conflict after the other was recorded
    "first": Operation(10, 20, "acknowledged", "a", 1, 1, "first", 1, expected=0),
    "late": Operation(11, 30, "conflict", "a", 1, 0, "late", 1, expected=0),
    # two events at once, seen by a look that overlaps
    "pair": Operation(35, 50, "acknowledged", "a", 3, 3, "pair", 2, expected=1),
    "old look": Operation(36, 45, "read", "a", 1),
    "new look": Operation(46, 47, "read", "a", 3),
    # one key, three times; the second is answered first
    "key 1": Operation(60, 80, "acknowledged", "b", 1, 4, "keyed", 1, key="k"),
    "key 2": Operation(65, 70, "acknowledged", "b", 1, 4, "keyed", 1, key="k"),
    "key 3": Operation(200, 210, "acknowledged", "b", 1, 4, "keyed", 1, key="k"),
    "empty": Operation(55, 62, "read", "b", 0),
    "any": Operation(71, 75, "acknowledged", "a", 4, 5, "any", 1),
}
_LOG: Final = [
    Line("a", 1, 1, "first"),
    Line("a", 2, 2, "pair"),
    Line("a", 3, 3, "pair"),
    Line("b", 1, 4, "keyed"),
    Line("a", 4, 5, "any"),
]


def changed(name: str, **fields: object) -> list[Operation]:
    """The right history with one operation different."""
    assert name in _RIGHT
    return [
        msgspec.structs.replace(one, **fields) if key == name else one
        for key, one in _RIGHT.items()
    ]


def test_a_linearizable_history_has_no_anomaly() -> None:
    """Overlapping calls may take effect in either order, and a key's repeats come at any time."""
    assert anomalies(list(_RIGHT.values()), _LOG) == []


@pytest.mark.parametrize("missing", range(len(_LOG)), ids=lambda at: f"line {at + 1}")
def test_a_line_that_is_missing_is_found(missing: int) -> None:
    """Lost: acknowledged, and not in the log; the numbers behind it tell too."""
    log = [line for at, line in enumerate(_LOG) if at != missing]
    found = anomalies(list(_RIGHT.values()), log)
    assert any("not there once, whole" in text for text in found)


@pytest.mark.parametrize(
    ("name", "log", "sentence"),
    [
        ("twice", [*_LOG, Line("a", 5, 6, "any")], "not there once, whole and in its place"),
        ("refused", [*_LOG, Line("a", 5, 6, "late")], "recorded, and nobody was told so"),
        ("unknown", [*_LOG, Line("c", 1, 6, "what")], "recorded, and nobody was told so"),
        ("moved", [*_LOG[:3], _LOG[4], _LOG[3]], "position 4, version 4 expected"),
        ("torn", [_LOG[0], _LOG[1], _LOG[3], _LOG[4]], "not there once, whole and in its place"),
        ("gap", [*_LOG[:4], Line("a", 5, 5, "any")], "position 5, version 4 expected"),
    ],
)
def test_a_log_that_differs_from_what_was_told_is_found(
    name: str, log: list[Line], sentence: str
) -> None:
    """Each append once, whole, in its place; nothing that was refused; no gap."""
    del name
    assert any(sentence in text for text in anomalies(list(_RIGHT.values()), log))


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("first", {"position": 2}, "not there once, whole and in its place"),
        ("key 3", {"version": 2}, "one key, two results"),
        ("pair", {"expected": 2}, "recorded behind version 1"),
        ("late", {"expected": 1}, "no conflict"),
        # the version it was told was there at no moment of the call
        ("late", {"version": 3, "returned": 30}, "stands behind it"),
        ("late", {"version": 2}, "no append led to this version"),
        ("old look", {"version": 2}, "no append led to this version"),
        ("old look", {"version": 9}, "no append led to this version"),
        # a stale look: the append had been answered before it began
        ("old look", {"invoked": 51, "returned": 52}, "stands behind it"),
        # a look into the future: answered before the append was called
        ("new look", {"invoked": 32, "returned": 33}, "stands behind it"),
        # two looks that see the versions in the wrong order: the new one first
        ("new look", {"invoked": 36, "returned": 37}, ""),
        ("empty", {"invoked": 71, "returned": 72}, "stands behind it"),
        # in the log behind one that was called after it had been answered
        ("any", {"invoked": 56, "returned": 58}, "stands behind it"),
        ("key 2", {"invoked": 1, "returned": 5}, "stands behind it"),
    ],
)
def test_an_answer_that_cannot_be_true_is_found(
    name: str, fields: dict[str, object], sentence: str
) -> None:
    """Conflicts, looks, keys and positions agree with the order of the log and with real time."""
    found = anomalies(changed(name, **fields), _LOG)
    assert any(sentence in text for text in found) if sentence else found == []


def test_two_looks_in_the_wrong_order_are_found() -> None:
    """Each may be true by itself; but who looks later never sees less."""
    operations = changed("new look", invoked=36, returned=37)
    at = list(_RIGHT).index("old look")
    operations[at] = msgspec.structs.replace(operations[at], invoked=38, returned=45)
    assert any("stands behind it" in text for text in anomalies(operations, _LOG))
