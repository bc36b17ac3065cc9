"""Each millisecond of a worker in one bucket, each micro-dollar once: by example, and for whatever clocks may say."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import buckets
from fleet.buckets import BUCKETS, Attempt, Life, Outage, split, timeline

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PRICE = 3_600_000  # a dollar and a bit less than a thousandth a second: 1,000 micro-dollars


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def ms(life: Life, *, start: float = -10_000, end: float = 10_000, now: float = 10_000) -> dict[str, int]:
    return {bucket: n // 1000 for bucket, n in split(life, start=at(start), end=at(end), now=at(now)).ms.items() if n}


def test_an_ordinary_life() -> None:
    life = Life(at(0), at(20), at(30), at(90), at(100), [Attempt(at(40), at(60), load_s=5)], price_per_hour_microusd=PRICE)
    assert ms(life) == {"starting": 20, "loading": 15, "idle": 40, "busy": 15, "draining": 10}
    money = split(life, start=at(-9), end=at(999), now=at(999))
    assert money.total_microusd == 100_000 and money.microusd["busy"] == 15_000
    assert [(b, (u - s) // 1000) for b, s, u in timeline(life, start=at(0), end=at(100), now=at(100))] == [
        ("starting", 20), ("loading", 10), ("idle", 10), ("loading", 5), ("busy", 15), ("idle", 30), ("draining", 10),
    ]  # fmt: skip


def test_work_during_a_drain_is_work_and_a_worker_that_never_came_up_only_started() -> None:
    assert ms(Life(at(0), at(1), at(1), at(5), at(20), [Attempt(at(2), at(15))])) == {"starting": 1, "idle": 1, "busy": 13, "draining": 5}
    assert ms(Life(at(0), stopped_at=at(60))) == {"starting": 60}
    assert ms(Life(at(0), at(10), stopped_at=at(60))) == {"starting": 10, "loading": 50}
    assert ms(Life(at(0)), now=25) == {"starting": 25}


def test_a_worker_taken_out_costs_as_faulted_until_it_drains() -> None:
    life = Life(at(0), at(0), at(0), at(50), at(60), [Attempt(at(5), at(10))], [Outage("faulted", at(10), None)])
    assert ms(life) == {"idle": 5, "busy": 5, "faulted": 40, "draining": 10}
    cleared = Life(at(0), at(0), at(0), None, at(60), (), [Outage("faulted", at(10), at(20)), Outage("starting", at(30), at(35))])
    assert ms(cleared) == {"idle": 45, "faulted": 10, "starting": 5}


def test_overlapping_attempts_and_those_outside_of_the_life_count_once_or_not() -> None:
    life = Life(at(0), at(0), at(0), None, at(10), [Attempt(at(1), at(5)), Attempt(at(3), at(7)), Attempt(at(-9), at(-2)), Attempt(at(8), at(400))])
    assert ms(life) == {"busy": 8, "idle": 2}


def test_a_clock_that_went_back_makes_nothing_negative() -> None:
    assert ms(Life(at(100), at(90), at(80), at(70), at(60), [Attempt(at(95), at(20))])) == {}
    assert ms(Life(at(0)), now=-3600) == {}


MOMENTS = st.one_of(st.integers(-4_000_000, 40_000_000), st.integers(0, 20_000)).map(lambda n: NOON + timedelta(milliseconds=n, microseconds=n % 997))
MAYBE = st.none() | MOMENTS
LOADS = st.floats(0, 1e6) | st.just(float("nan"))
LIVES = st.builds(
    Life,
    ordered_at=MOMENTS,
    registered_at=MAYBE,
    ready_at=MAYBE,
    drain_asked_at=MAYBE,
    stopped_at=MAYBE,
    attempts=st.lists(st.builds(Attempt, claimed_at=MOMENTS, ended_at=MAYBE, load_s=LOADS), max_size=6),
    outages=st.lists(st.builds(Outage, bucket=st.sampled_from(["starting", "loading", "faulted"]), since=MOMENTS, until=MAYBE), max_size=4),
    price_per_hour_microusd=st.integers(0, 50_000_000) | st.just(1) | st.just(7),
)


@settings(max_examples=300)
@given(life=LIVES, now=MOMENTS, cuts=st.lists(MOMENTS, min_size=2, max_size=8, unique=True))
def test_every_cutting_of_a_life_adds_up_to_what_is_billed(life: Life, now: datetime, cuts: list[datetime]) -> None:
    cuts = sorted(cuts)
    whole = split(life, start=cuts[0], end=cuts[-1], now=now)
    born, died = buckets.span(life, now=now)
    there = max(0, min(died, buckets.to_ms(cuts[-1])) - max(born, buckets.to_ms(cuts[0])))
    assert whole.total_ms == there and all(n >= 0 for n in whole.ms.values())
    parts = [split(life, start=a, end=b, now=now) for a, b in itertools.pairwise(cuts)]
    assert sum(p.total_ms for p in parts) == whole.total_ms
    assert {b: sum(p.ms[b] for p in parts) for b in BUCKETS} == dict(whole.ms)
    assert sum(p.total_microusd for p in parts) == whole.total_microusd
    for part in [whole, *parts]:
        assert part.total_microusd == sum(part.microusd.values()) and all(n >= 0 for n in part.microusd.values())
        assert all(part.microusd[b] == 0 for b in BUCKETS if not part.ms[b])
        for bucket in BUCKETS:  # within a micro-dollar of its exact share
            exact = part.total_microusd * part.ms[bucket] / part.total_ms if part.total_ms else 0
            assert abs(part.microusd[bucket] - exact) < 1


@given(life=LIVES, now=MOMENTS)
def test_a_whole_life_costs_its_milliseconds_at_its_price(life: Life, now: datetime) -> None:
    born, died = buckets.span(life, now=now)
    whole = split(life, start=buckets.from_ms(born), end=buckets.from_ms(died), now=now)
    exact = life.price_per_hour_microusd * (died - born) / 3_600_000
    assert abs(whole.total_microusd - exact) <= 0.5 + 1e-6 * exact


@given(life=LIVES, now=MOMENTS, start=MOMENTS, end=MOMENTS)
def test_the_timeline_and_the_split_agree(life: Life, now: datetime, start: datetime, end: datetime) -> None:
    stretches = timeline(life, start=start, end=end, now=now)
    assert all(a[2] == b[1] and a[0] != b[0] for a, b in itertools.pairwise(stretches))
    found = dict.fromkeys(BUCKETS, 0)
    for bucket, since, until in stretches:
        found[bucket] += until - since
    assert found == dict(split(life, start=start, end=end, now=now).ms)


@given(amount=st.integers(0, 10**12), parts=st.lists(st.integers(0, 10**8), min_size=6, max_size=6))
def test_shares_add_up_to_the_amount(amount: int, parts: list[int]) -> None:
    given_ms = dict(zip(BUCKETS, parts, strict=True))
    found = buckets.shared(amount, given_ms)
    assert sum(found.values()) == (amount if sum(parts) else 0)
