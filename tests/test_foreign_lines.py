"""Lines of another writer: what the original takes we take, what it skips is noise."""

from __future__ import annotations

import json
import runpy
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore._events import Unknown
from eventstore._foreign import (
    Envelope,
    ForeignLine,
    decode_canonical,
    decode_exact,
    decode_foreign,
)
from eventstore._loop import LOOP_EVENTS, EventPublished, LoopStarted, MergeQueued

FIXTURES = Path(__file__).parent / "fixtures"
ORDINARY = (FIXTURES / "foreign.jsonl").read_bytes().splitlines()
ODD = (FIXTURES / "foreign-odd.jsonl").read_bytes().removesuffix(b"\n").split(b"\n")
GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
TS = '"ts":"2026-01-02T03:04:05Z"'
QUEUED = '"type":{"kind":"merge_queued"}'


def line_of(*members: str) -> bytes:
    """Make an object of members as they stand."""
    return ("{" + ",".join(members) + "}").encode()


def recorded(line: bytes) -> ForeignLine:
    """Decode a line that holds a record."""
    found = decode_foreign(line)
    assert isinstance(found, ForeignLine)
    return found


def exactly(line: bytes) -> ForeignLine | Envelope | None:
    """Give the exact path's verdict, without the quick one before it."""
    try:
        return decode_exact(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def in_full(found: ForeignLine | Envelope | None) -> str:
    """Tell 1 from 1.0 and True, and 0.0 from -0.0, where `==` does not."""
    return repr(found)


def test_the_fixtures_are_what_their_writer_writes() -> None:
    """The kept lines come from running code, and have not changed since."""
    writer = runpy.run_path(str(FIXTURES / "write_foreign_lines.py"))
    assert writer["_ordinary"]().encode() == (FIXTURES / "foreign.jsonl").read_bytes()
    assert writer["_odd"]().encode() == (FIXTURES / "foreign-odd.jsonl").read_bytes()


@pytest.mark.parametrize("line", ORDINARY)
def test_a_line_of_the_original_is_read_whole(line: bytes) -> None:
    """Event, data and the timestamp's nine digits come back as they stand in the line."""
    record = json.loads(line)
    found = recorded(line)
    assert found.timestamp_text == record["ts"]
    assert found.timestamp == datetime.fromisoformat(record["ts"])
    assert found.data == record.get("data")
    assert msgspec.to_builtins(LOOP_EVENTS.decode(found.payload)) == record["type"]
    assert found.payload in line


@pytest.mark.parametrize("line", ORDINARY)
def test_a_line_of_the_original_takes_the_quick_path(line: bytes) -> None:
    """What the original writes is read in one decode, and the exact path agrees with it."""
    quick = decode_canonical(line)
    assert quick is not None
    assert in_full(quick) == in_full(exactly(line))


@pytest.mark.parametrize("line", ODD)
def test_what_the_original_reads_but_never_writes_is_read(line: bytes) -> None:
    """Sequence forms, any order, unknown members, blanks, CRLF and every spelling of a time."""
    assert decode_canonical(line) is None
    event = LOOP_EVENTS.decode(recorded(line).payload)
    assert not isinstance(event, Unknown)
    assert recorded(line).data is None


NOISE = {
    "empty": b"",
    "blank": b" \t\r",
    "NULs": b"\0" * 40,
    "not an object": b'"2026-01-02T03:04:05Z"',
    "cut": line_of(TS, QUEUED)[:-1],
    "two records": line_of(TS, QUEUED) * 2,
    "trailing text": line_of(TS, QUEUED) + b" x",
    "trailing NUL": line_of(TS, QUEUED) + b"\0",
    "a BOM": b"\xef\xbb\xbf" + line_of(TS, QUEUED),
    "trailing comma": line_of(TS, QUEUED, ""),
    "single quotes": line_of(TS, QUEUED).replace(b'"', b"'"),
    "no ts": line_of(QUEUED),
    "no type": line_of(TS),
    "no kind": line_of(TS, '"type":{}'),
    "no field": line_of(TS, '"type":{"kind":"loop_started"}'),
    "ts null": line_of('"ts":null', QUEUED),
    "ts number": line_of('"ts":1767323045', QUEUED),
    "ts without offset": line_of('"ts":"2026-01-02T03:04:05"', QUEUED),
    "type string": line_of(TS, '"type":"merge_queued"'),
    "type null": line_of(TS, '"type":null'),
    "kind number": line_of(TS, '"type":{"kind":3}'),
    "ts twice": line_of(TS, TS, QUEUED),
    "type twice": line_of(TS, QUEUED, QUEUED),
    "data twice": line_of(TS, QUEUED, '"data":null', '"data":null'),
    "ts twice, once escaped": line_of(TS, r'"\u0074s":"2026-01-02T03:04:05Z"', QUEUED),
    "kind twice": line_of(TS, '"type":{"kind":"merge_queued","kind":"merge_queued"}'),
    "kind twice, unknown": line_of(TS, '"type":{"kind":"x","kind":"y"}'),
    "field twice": line_of(TS, '"type":{"kind":"merge_started","pid":1,"pid":1}'),
    "raw tab": line_of(TS, '"type":{"kind":"loop_started","prompt":"a\tb"}'),
    "half a surrogate": line_of(TS, r'"type":{"kind":"loop_started","prompt":"\ud83d"}'),
    "halves reversed": line_of(TS, QUEUED, r'"data":"\udd80\ud83e"'),
    "a half, then a pair": line_of(TS, QUEUED, r'"data":"\ud83e\ud83e\udd80\udd80"'),
    "half a surrogate, overwritten": line_of(TS, QUEUED, r'"data":{"a":"\ud83d","a":1}'),
    "half a surrogate in a key": line_of(TS, QUEUED, r'"\ud83d":1'),
    "1e400": line_of(TS, QUEUED, '"data":[1e400]'),
    "400 digits": line_of(TS, QUEUED, '"data":' + "1" * 400),
    "1e400, overwritten": line_of(TS, QUEUED, '"data":{"a":1e400,"a":1}'),
    "1e400 in an unknown field": line_of(TS, '"type":{"kind":"merge_queued","x":1e400}'),
    "closed by the other bracket": line_of(TS, QUEUED)[:-1] + b"]",
    "sequence closed by a brace": b'["2026-01-02T03:04:05Z",{"kind":"merge_queued"},null}',
    "sequence of two": b'["2026-01-02T03:04:05Z",{"kind":"merge_queued"}]',
    "sequence of four": b'["2026-01-02T03:04:05Z",{"kind":"merge_queued"},null,1]',
    "sequence cut": b'["2026-01-02T03:04:05Z",{"kind":"merge_queued"},null',
    "type sequence too short": line_of(TS, '"type":["loop_started"]'),
    "type sequence too long": line_of(TS, '"type":["merge_queued",1]'),
    "type sequence of an unknown kind": line_of(TS, '"type":["loop_exploded"]'),
    "type sequence empty": line_of(TS, '"type":[]'),
    "form feed between members": line_of(TS, "\f" + QUEUED),
    "bracket never closed": b"[" * 100_000,
}


@pytest.mark.parametrize("line", NOISE.values(), ids=NOISE)
def test_what_the_original_skips_is_noise(line: bytes) -> None:
    """A line that holds no record, holds it twice, or holds something that is none, is noise."""
    assert decode_foreign(line) is None


@pytest.mark.parametrize("member", [b"data", b"unknown"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            b"",
            b"nul",
            b"NaN",
            b"-Infinity",
            b"True",
            b"'x'",
            b"01",
            b"1.",
            b".1",
            b"+1",
            b"1e",
            b"- 1",
        ),
        *(b"[1,]", b"[,1]", b"[1 1]", b"[1", b"1]", b"[}", b"[{]}", b'{"a":[}]', b'[{"a":1]}'),
        *(b'{"a"}', b'{"a":}', b'{"a":1,}', b"{1:1}", b"{a:1}", b'{"a" 1}', b'{"a":1 "b":1}'),
        *(
            b'"',
            b'"\\"',
            b'"\\x41"',
            b'"\\u12"',
            b'"\\u12G4"',
            b'"\\\\""',
            b'"a\tb"',
            b'"\x00"',
            b"\\n",
        ),
        *(b'"\xc3"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xff"'),
        *(b"\x0c1", b"\xc2\xa01", b"\xef\xbb\xbf1", b"1\x00", b"/**/1"),
    ],
)
def test_a_value_that_is_not_json_is_noise(value: bytes, member: bytes) -> None:
    """By the grammar of RFC 8259, in UTF-8, for a member the original ignores as well."""
    line = line_of(TS, QUEUED, '"?":!').replace(b"?", member).replace(b"!", value)
    assert decode_foreign(line) is None


@pytest.mark.parametrize("value", ["-1", "-0", "1.0", "1e0", "1e3", "4294967296", "true", '"1"'])
@pytest.mark.parametrize("form", ['{{"kind":"merge_started","pid":{}}}', '["merge_started",{}]'])
def test_a_u32_is_digits_in_its_range(form: str, value: str) -> None:
    """A sign, a point, an exponent or a 33rd bit makes the line noise."""
    assert decode_foreign(line_of(TS, f'"type":{form.format(value)}')) is None


@pytest.mark.parametrize("value", ["1", "0", "null", '"true"'])
def test_a_bool_is_true_or_false(value: str) -> None:
    """Nothing else counts as success."""
    kind = f'"type":{{"kind":"iteration_completed","iteration":1,"success":{value}}}'
    assert decode_foreign(line_of(TS, kind)) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", -(2.0**63)),
        ("1" * 300, float("1" * 300)),
        ("-0", -0.0),
        ("-0.0", -0.0),
        ("1e-400", 0.0),
        ("0e400", 0.0),
        ("0.1234567890123456789012345", 0.1234567890123456789012345),
        ("[1.0,1e3,1e21,1e-5]", [1.0, 1000.0, 1e21, 1e-5]),
        ('{"a":1,"b":2,"a":{"c":[]}}', {"a": {"c": []}, "b": 2}),
        (r'"\ud83e\udd80 \u00e9 \/ \b\f\\ud83d"', "\U0001f980 \u00e9 / \b\f\\ud83d"),
    ],
)
def test_data_is_the_value_the_original_keeps(text: str, value: object) -> None:
    """An integer beyond 64 bits is a float, the last equal key wins, and null is none."""
    found = recorded(line_of(TS, QUEUED, f'"data":{text}'))
    assert repr(found.data) == repr(value)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("prefix", ["", " "])
def test_data_nests_to_126(prefix: str, opening: str, closing: str) -> None:
    """126 arrays or objects within each other are read, 127 are noise, 100,000 are no crash."""
    innermost = "[]"
    for deep, read in ((126, True), (127, False), (100_000, False)):
        data = opening * (deep - 1) + innermost + closing * (deep - 1)
        line = line_of(TS, QUEUED, f'{prefix}"data":{data}')
        assert (decode_foreign(line) is not None) is read


def test_many_shallow_values_are_not_deep() -> None:
    """It is the nesting that is bounded, not the number of brackets."""
    found = recorded(line_of(TS, QUEUED, f'"data":[{",".join(["{}"] * 1_000)}]'))
    assert found.data == [{}] * 1_000


@pytest.mark.parametrize("value", ["[" * 5_000 + "]" * 5_000, "1e400", r'"\ud83d"', "{}"])
def test_an_unknown_member_is_skipped_whatever_it_holds(value: str) -> None:
    """The original only looks for the end of what it ignores, and it may stand there twice."""
    line = line_of(TS, f'"x":{value}', QUEUED, f'"x":{value}')
    assert LOOP_EVENTS.decode(recorded(line).payload) == MergeQueued()


def test_unknown_fields_of_a_known_kind_are_ignored() -> None:
    """The kind may stand behind them, and they may be repeated."""
    kind = '"type":{"more":{},"kind":"loop_started","more":[-0],"prompt":"x"}'
    assert LOOP_EVENTS.decode(recorded(line_of(TS, kind)).payload) == LoopStarted("x")


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ('{"kind":"loop_exploded","x":1}', {"x": 1}),
        ('{"x":1,"kind":"loop_exploded","x":[2]}', {"x": [2]}),
        ('{"kind":"loop_exploded","prompt":null}', {"prompt": None}),
        ('{"kind":"loop_exploded","x":-0,"y":18446744073709551616}', {"x": -0.0, "y": 2.0**64}),
        ('{"kind":"loop_exploded","x":' + "1" * 300 + "}", {"x": float("1" * 300)}),
    ],
)
def test_an_unknown_kind_survives(event: str, fields: dict[str, Any]) -> None:
    """The original skips a kind it does not know; here it is an event, its fields unchecked."""
    found = LOOP_EVENTS.decode(recorded(line_of(TS, f'"type":{event}')).payload)
    assert isinstance(found, Unknown)
    assert (found.name, repr(found.fields)) == ("loop_exploded", repr(fields))


@pytest.mark.parametrize("name", ["version", "position", "commit", "crc", r"\u0063rc"])
@pytest.mark.parametrize("line", [line_of(TS, QUEUED), line_of("", QUEUED, QUEUED), b"{,}", b"{ }"])
def test_a_line_with_a_member_of_ours_claims_to_be_ours(line: bytes, name: str) -> None:
    """It is not foreign, and not noise either, whether the rest of it is a record or not."""
    claiming = line.replace(b"{", b'{"%b":null,' % name.encode(), 1).replace(b",,", b",")
    claiming = claiming.replace(b",}", b"}").replace(b", }", b"}")
    assert decode_foreign(claiming) is Envelope.CLAIMED
    assert decode_foreign(claiming[:-1]) is None


def test_a_member_of_ours_deeper_down_claims_nothing() -> None:
    """`merge_completed` has a field `commit`, and data may hold anything."""
    data = '"data":{"crc":"0","version":1,"position":1,"commit":[1,1]}'
    line = line_of(TS, '"type":{"kind":"merge_completed","commit":"abc"}', data)
    assert recorded(line).data == {"crc": "0", "version": 1, "position": 1, "commit": [1, 1]}


@pytest.mark.parametrize("line", ORDINARY + ODD)
def test_no_prefix_raises_and_none_is_a_record(line: bytes) -> None:
    """A record cut anywhere is noise, unless only blanks are missing."""
    whole = line.rstrip()
    assert all(decode_foreign(whole[:end]) is None for end in range(len(whole)))


@pytest.mark.parametrize("line", ORDINARY[:12])
def test_no_flipped_bit_raises_and_both_paths_agree(line: bytes) -> None:
    """Whatever one bit does to a record of any kind, there is a verdict, and only one."""
    for bit in range(len(line) * 8):
        flipped = bytearray(line)
        flipped[bit // 8] ^= 1 << bit % 8
        agree(bytes(flipped))


def agree(line: bytes) -> None:
    """Check that there is one verdict, and that a record's payload is an event."""
    found = decode_foreign(line)
    assert in_full(found) == in_full(exactly(line))
    if isinstance(found, ForeignLine):
        LOOP_EVENTS.decode(found.payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


def in_64_bits(digits: str) -> int | float:
    """Keep an integer of 64 bits, and make a larger one a float, as the original does."""
    return int(digits) if -(2**63) <= int(digits) < 2**64 else float(digits)


@given(
    st.text(),
    JSON,
    st.booleans(),
    st.datetimes(),
    st.sampled_from(["", " "]),
)
def test_any_record_reads_back_by_both_paths(
    text: str, data: object, ascii_only: bool, moment: datetime, blank: str
) -> None:
    """Whatever the original may write is read as written, escaped or not, quickly or exactly."""
    event = {"kind": "event_published", "topic": text, "payload": text}
    record = {"ts": moment.isoformat() + "Z", "type": event, "data": data}
    written = json.dumps(record, ensure_ascii=ascii_only, separators=("," + blank, ":"))
    try:
        line = written.encode()
    except UnicodeEncodeError:
        return
    found = decode_foreign(line)
    assert in_full(found) == in_full(exactly(line))
    if isinstance(found, ForeignLine):
        assert found.timestamp == moment.replace(tzinfo=UTC)
        assert LOOP_EVENTS.decode(found.payload) == EventPublished(text, text)
        assert found.data == json.loads(written, parse_int=in_64_bits)["data"]
    else:
        assert ascii_only  # half a surrogate, written as an escape


TOKENS = st.sampled_from(
    [*b'{}[],:"\\ \t\r0123456789-+.eE\0\x1f\x80\xff', *b"nulltruefalse", 0xED, 0xA0, 0xC3, 0xA9]
)
PIECES = st.sampled_from(
    [
        *(b'"ts":"2026-01-02T03:04:05Z",', b'"kind":"merge_queued",', b'"data":1,', b'"crc":0,'),
        *(b"1e400", b"-0", b"1" * 20, b"null", b"[]", b"{}", b'"":0,'),
        *(b"\\ud83d", b"\\udd80", b"\\n", b"\\u0074"),
    ]
)


@given(
    st.sampled_from(ORDINARY + ODD),
    st.lists(
        st.tuples(
            st.integers(0, 400),
            st.integers(0, 3),
            st.binary(max_size=3) | st.lists(TOKENS, max_size=3).map(bytes) | PIECES,
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_no_change_to_a_record_raises_and_both_paths_agree(
    line: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    """Bytes cut out, put in and replaced anywhere: one verdict, by whichever path."""
    for place, cut, put in changes:
        at = place % (len(line) + 1)
        line = line[:at] + put + line[at + cut :]
    agree(line)


@given(st.binary() | st.lists(TOKENS | st.sampled_from(ORDINARY[0])).map(bytes))
def test_no_bytes_raise(line: bytes) -> None:
    """There is a verdict on any bytes."""
    agree(line)


def test_deep_data_does_not_raise_on_a_full_stack() -> None:
    """A caller without stack to spare loses the deep line, not its process."""
    line = line_of(TS, QUEUED, f'"data":{"[" * 126}{"]" * 126}')

    def descend(frames: int) -> None:
        if frames:
            descend(frames - 1)
        else:
            decode_foreign(line)

    depth = 0
    frame = sys._getframe()
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    for spare in (100, 60, 30):
        descend(sys.getrecursionlimit() - depth - spare)


def golden(folder: str) -> list[Any]:
    """List lines the original judged, each with the record it keeps, or None."""
    if not (GOLDEN / folder).is_dir():
        reason = "the data that the original wrote is not beside this project (../shared/golden)"
        return [pytest.param(b"", None, marks=pytest.mark.skip(reason=reason))]
    if folder == "parse":
        lines = (GOLDEN / folder / "lines.txt").read_bytes().splitlines()
        verdicts = (GOLDEN / folder / "expected.txt").read_bytes().splitlines()
        return [
            pytest.param(line, verdict[4:] if verdict.startswith(b"OK  ") else None)
            for line, verdict in zip(lines, verdicts, strict=True)
            if b"unknown variant" not in verdict  # the deviation, tested above
        ]
    kept = [
        (path.read_bytes(), path.with_suffix(".accepted.jsonl").read_bytes().splitlines())
        for path in sorted((GOLDEN / folder).glob("*[!d].jsonl"))
        if b"error" not in path.with_suffix(".read.json").read_bytes()
    ]
    return [
        pytest.param(line, line if line in accepted else None)
        for whole, accepted in kept
        for line in whole.split(b"\n")
    ]


@pytest.mark.parametrize(("line", "kept"), golden("parse") + golden("history"))
def test_the_original_and_we_give_the_same_verdict(line: bytes, kept: bytes | None) -> None:
    """On every line of the corpus: skipped by both, or the same record to both."""
    found = decode_foreign(line)
    if kept is None:
        assert found is None
        return
    assert isinstance(found, ForeignLine)
    same = recorded(kept)
    assert found.timestamp == same.timestamp
    assert LOOP_EVENTS.decode(found.payload) == LOOP_EVENTS.decode(same.payload)
    assert repr(found.data) == repr(same.data)
