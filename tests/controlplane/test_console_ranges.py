"""Time ranges and numbers as people write and read them: pure."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.console import numbers, ranges

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)


def parse(start="", end="", default="24h"):
    return ranges.parse({k: v for k, v in (("from", start), ("to", end)) if v}, now=NOW, default=default)


@pytest.mark.parametrize(
    ("start", "end", "hours", "label"),
    [
        ("", "", 24, "Last 24h"),
        ("-6h", "now", 6, "Last 6h"),
        ("2h", "", 2, "Last 2h"),
        ("-7d", "now", 168, "Last 7d"),
        ("yesterday", "now", 38.5, "19 Nov 00:00 to now"),
        ("yesterday", "today", 24, "19 Nov 00:00 to 20 Nov 00:00"),
        ("2026-11-18 09:00", "2026-11-18 10:30", 1.5, "18 Nov 09:00 to 18 Nov 10:30"),
        ("2026-11-18T09:00:00Z", "2026-11-18T11:00:00+01:00", 1, "18 Nov 09:00 to 18 Nov 10:00"),
    ],
)
def test_a_range_reads_what_people_write(start, end, hours, label):
    found = parse(start, end)
    assert found.error == ""
    assert found.seconds == hours * 3600
    assert found.label == label


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        ("lunchtime", "", "is not a time"),
        ("-1h", "-2h", "not before the end"),
        ("-1h", "2026-11-30", "in the future"),
        ("2020-01-01", "now", "longer than 400 days"),
        ("-1h", "0000-13-99", "is not a time"),
        ("9" * 400, "", "is not a time"),
        ("0001-01-01T00:00:00+14:00", "", "longer than 400 days"),
        ("9999-12-31T23:59:59-14:00", "", "not before the end"),
        ("-1h", "9999-12-31T23:59:59-14:00", "in the future"),
    ],
)
def test_a_range_that_cannot_be_falls_back_and_says_why(start, end, says):
    found = parse(start, end)
    assert says in found.error
    assert found.label == "Last 24h"
    assert found.seconds == 86400


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_breaks_a_range(start, end):
    found = parse(start, end)
    assert found.start < found.end
    assert found.end <= NOW + timedelta(days=1)
    assert 1 <= found.seconds / found.step_s() <= ranges.MAX_POINTS or found.seconds < 60


def test_a_fixed_link_means_the_same_later():
    from django.http import QueryDict

    fixed = QueryDict(parse("-6h").fixed())
    later = ranges.parse(fixed, now=NOW + timedelta(days=3))
    assert (later.start, later.end) == (NOW - timedelta(hours=6), NOW)


def test_moving_a_range_stops_at_now():
    from django.http import QueryDict

    earlier = ranges.parse(QueryDict(parse("-6h").shifted(-1)), now=NOW)
    assert earlier.end == NOW - timedelta(hours=3)
    assert ranges.parse(QueryDict(earlier.shifted(5)), now=NOW).end == NOW


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (numbers.usd, None, "none"),
        (numbers.usd, 12_040_000, "$12.04"),
        (numbers.usd, 860_000, "$0.86"),
        (numbers.usd, 3_600, "$0.0036"),
        (numbers.usd, -1_500_000, "−$1.50"),
        (numbers.pct, 0.9943, "99.43%"),
        (numbers.pct, 0.99999, "99.99%"),
        (numbers.pct, 1.0, "100%"),
        (numbers.pct, 0.57, "57%"),
        (numbers.pct, 0.081, "8.1%"),
        (numbers.pct, 0.0, "0%"),
        (numbers.pct, 0.0002, "under 0.1%"),
        (numbers.pct, None, "none"),
        (numbers.dur, 0, "0 s"),
        (numbers.dur, 0.043, "43 ms"),
        (numbers.dur, 3.14, "3.1 s"),
        (numbers.dur, 98, "98 s"),
        (numbers.dur, 250, "4m 10s"),
        (numbers.dur, 22_320, "6h 12m"),
        (numbers.dur, 9 * 86400, "9 d"),
        (numbers.dur, None, "none"),
        (numbers.count, 198_896, "198,896"),
        (numbers.count, 57.25, "57.2"),
        (numbers.count, -2, "−2"),
        (numbers.size, 9_340_000_000, "9.34 GB"),
        (numbers.size, 0, "0 B"),
        (numbers.size, 999, "999 B"),
        (numbers.size, 999_600, "1 MB"),
    ],
)
def test_numbers_read_as_the_rules_say(function, value, text):
    assert function(value) == text


def test_a_tile_says_minutes_from_one_minute():
    assert numbers.dur(98, tile=True) == "1m 38s"
    assert numbers.usd(15_688_000_000, tile=True) == "$15,688"


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(), "now"),
        (timedelta(seconds=4), "4 s ago"),
        (timedelta(minutes=18), "18m ago"),
        (timedelta(hours=2), "2h ago"),
        (timedelta(days=6), "6 d ago"),
        (timedelta(days=-9, hours=-1), "in 9 d"),
        (timedelta(days=30), "21 Oct 2026"),
    ],
)
def test_times_are_relative_up_to_seven_days(ago, text):
    assert numbers.ago(NOW - ago, NOW) == text
