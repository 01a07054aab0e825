"""Timestamps as the original's parser (chrono's relaxed RFC 3339) reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore._chrono import parse_chrono

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05Z",
        "2026-01-02t03:04:05z",
        "2026-01-02 03:04:05Z",
        "2026-01-02 \t 03:04:05Z",
        "2026-01-02T  03:04:05Z",
        " 2026-01-02T03:04:05Z ",
        "\u30002026 -\t01 - \xa002T03 : 04 :\u200905 Z\x85",
        "2026-1-2T3:4:5Z",
        "+2026-01-02T03:04:05Z",
        "+000000000000000000000002026-01-02T03:04:05Z",
        "2026-01-02T03:04:05UTC",
        "2026-01-02T03:04:05 uTc",
        "2026-01-02T03:04:05+00:00",
        "2026-01-02T03:04:05-00:00",
        "2026-01-02T03:04:05-0000",
        "2026-01-02T08:34:05+05:30",
        "2026-01-02T08:34:05+0530",
        "2026-01-02T08:34:05 +05 :: 30",
        "2026-01-02T08:34:05.0+05 30",
        "2026-01-01T21:34:05-05:30",
        "2026-01-01T21:34:05\u221205:30",
        "2026-01-03T03:03:05+23:59",
    ],
)
def test_every_spelling_of_a_moment_is_the_same_moment(text: str) -> None:
    """Blanks, case, single digits, signs and offsets change the text, not the moment."""
    assert parse_chrono(text) == MOMENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2026-01-02",
        "2026-01-02T03:04Z",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05+05",
        "2026-01-02T03:04:05+5:30",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+00:60",
        "2026-01-02T03:04:05 CET",
        "2026-01-02T03:04:05ZZ",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05,5Z",
        "2026-01-02T03:04:05 .5Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:60:00Z",
        "2026-01-02T03:04:61Z",
        "2026-01-02T003:04:05Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-01-02\t03:04:05Z",
        "2026-01-02  T03:04:05Z",
        "2026-01-02_03:04:05Z",
        "20260102T030405Z",
        "20260102T03:04:05.123456789012Z",
        "2026-W01-5T03:04:05Z",
        "2026-01-02\x1f03:04:05Z",
        "\x1c2026-01-02T03:04:05Z",
        "12026-01-02T03:04:05Z",
        "--026-01-02T03:04:05Z",
        "+262143-01-01T00:00:00Z",
        "-262144-12-31T00:00:00Z",
        "+262142-12-31T23:59:59-00:01",
        "-262143-01-01T00:00:00+00:01",
        "\u0662\u0660\u0662\u0666-01-02T03:04:05Z",
        "+" + "9" * 5_000 + "-01-02T03:04:05Z",
    ],
)
def test_what_the_original_refuses_is_refused(text: str) -> None:
    """A missing part, a number out of its range, or a digit that is not ASCII is no timestamp."""
    assert parse_chrono(text) is None


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-01-02T03:04:05.1Z", 100_000),
        ("2026-01-02T03:04:05.123Z", 123_000),
        ("2026-01-02T03:04:05.000001Z", 1),
        ("2026-01-02T03:04:05.000000999Z", 0),
        ("2026-01-02T03:04:05.999999999Z", 999_999),
        ("2026-01-02T03:04:05.1234569891234Z", 123_456),
        ("2026-01-02T03:04:05." + "9" * 10_000 + "Z", 999_999),
    ],
)
def test_a_fraction_is_cut_to_microseconds(text: str, microsecond: int) -> None:
    """A fraction of any length is cut, never rounded: no moment moves into the next second."""
    assert parse_chrono(text) == MOMENT.replace(microsecond=microsecond)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, 999_999, UTC)),
        ("2016-12-31T23:59:60.5Z", datetime(2016, 12, 31, 23, 59, 59, 999_999, UTC)),
        ("2026-01-02T03:04:60.000Z", datetime(2026, 1, 2, 3, 4, 59, 999_999, UTC)),
        ("2026-01-02T03:04:60+01:00", datetime(2026, 1, 2, 2, 4, 59, 999_999, UTC)),
        ("0000-01-01T00:00:00Z", EARLIEST),
        ("0000-02-29T00:00:00.5Z", EARLIEST),
        ("-262143-01-01T00:00:00Z", EARLIEST),
        ("0001-01-01T00:00:00+00:01", EARLIEST),
        ("0000-12-31T23:59:59-00:01", datetime(1, 1, 1, 0, 0, 59, tzinfo=UTC)),
        ("+10000-01-01T00:00:00Z", LATEST),
        ("+10000-02-29T00:00:00Z", LATEST),
        ("+262142-12-31T23:59:59Z", LATEST),
        ("9999-12-31T23:59:59-23:59", LATEST),
        ("+10000-01-01T00:00:00+00:01", datetime(9999, 12, 31, 23, 59, tzinfo=UTC)),
    ],
)
def test_what_a_datetime_cannot_hold_becomes_the_nearest_it_can(text: str, held: datetime) -> None:
    """A leap second and a year outside 1 to 9999 are moments to the original, so they are ours."""
    assert parse_chrono(text) == held


@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),  # noqa: DTZ001
    st.timedeltas(min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23)),
)
def test_any_moment_with_any_offset_reads_back(local: datetime, east: timedelta) -> None:
    """Local time and offset give the moment in UTC, in UTC itself by the quick way too."""
    minutes = int(east.total_seconds() // 60)
    moment = local.replace(tzinfo=UTC) - timedelta(minutes=minutes)
    offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    found = parse_chrono(local.isoformat() + offset)
    assert found == moment
    assert found is not None
    assert found.tzinfo is UTC
    text = moment.replace(tzinfo=None).isoformat(timespec="microseconds")
    assert parse_chrono(f"{text}789Z") == parse_chrono(f" {text}789Z") == moment


NUMBER = st.integers(0, 99).map("{:02}".format) | st.text("0123456789", max_size=3)
SEPARATORS = st.sampled_from(["-", ":", "T", ".", "", " ", "Z", "+", "-", "\u2212", "UTC", "\x1f"])


@given(
    st.tuples(*[st.integers(0, 65).map("{:02}".format)] * 5),
    st.sampled_from(["2026", "0", "-1", "+262142", "99999", "9999"]),
    st.sampled_from(["Z", " utc", "+99:59", "-23:59", "+0060"]),
    st.lists(st.tuples(st.integers(0, 40), NUMBER | SEPARATORS), max_size=2),
)
def test_no_text_raises(
    numbers: tuple[str, ...], year: str, offset: str, changes: list[tuple[int, str]]
) -> None:
    """Any text is a moment or none, also where it is nearly one."""
    month, day, hour, minute, second = numbers
    text = f"{year}-{month}-{day}T{hour}:{minute}:{second}{offset}"
    for at, put in changes:
        text = text[:at] + put + text[at:]
    found = parse_chrono(text)
    assert found is None or found.tzinfo is UTC
