"""Where a worker's time and money went. Pure: moments in, whole milliseconds and micro-dollars out.

Every millisecond of a worker's life is in exactly one bucket, whatever the clocks said: an attempt outside of the life is cut off,
overlapping ones count once, times in the wrong order count as nothing. Money is what the provider bills up to a moment, so the
hours of a life add up to its bill exactly; within an hour the largest remainder decides who gets the last micro-dollar.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

BUCKETS = ("starting", "loading", "busy", "idle", "draining", "faulted")
HOUR_MS = 3_600_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER_RAN = ("order_failed", "no_capacity", "provider_down", "never_started")
"""Reasons of workers that no provider ever ran: they cost nothing."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A worker at work on one job. `load_s` of it, at its beginning, models were on their way into memory."""

    claimed_at: datetime
    ended_at: datetime | None
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch in which a ready worker came up again (`starting`, `loading`) or was taken out (`faulted`)."""

    bucket: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of a worker's times. `registered_at` ends starting, `ready_at` ends loading."""

    ordered_at: datetime
    registered_at: datetime | None = None
    ready_at: datetime | None = None
    drain_asked_at: datetime | None = None
    stopped_at: datetime | None = None
    attempts: Sequence[Attempt] = ()
    outages: Sequence[Outage] = ()
    price_per_hour_microusd: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """Milliseconds and micro-dollars by bucket; the parts add up to the totals."""

    ms: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    microusd: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))

    @property
    def total_ms(self) -> int:
        return sum(self.ms.values())

    @property
    def total_microusd(self) -> int:
        return sum(self.microusd.values())

    def __add__(self, other: Split) -> Split:
        return Split({b: self.ms[b] + other.ms[b] for b in BUCKETS}, {b: self.microusd[b] + other.microusd[b] for b in BUCKETS})


def split(life: Life, *, start: datetime, end: datetime, now: datetime) -> Split:
    """The part of `life` within [start, end), as far as it lies behind `now`."""
    born, died = span(life, now=now)
    low, high = max(born, to_ms(start)), min(died, to_ms(end))
    if high <= low:
        return Split()
    ms = dict.fromkeys(BUCKETS, 0)
    layers = _layers(life, born, died)
    cuts = sorted({low, high, *(at for _, since, until in layers for at in (since, until) if low < at < high)})
    for left, right in itertools.pairwise(cuts):
        ms[_bucket(layers, left)] += right - left
    owed = billed(life.price_per_hour_microusd, high - born) - billed(life.price_per_hour_microusd, low - born)
    return Split(ms, shared(owed, ms))


def timeline(life: Life, *, start: datetime, end: datetime, now: datetime) -> list[tuple[str, int, int]]:
    """The same as stretches in order: (bucket, since, until) in milliseconds since 1970; neighbours of one bucket are joined."""
    born, died = span(life, now=now)
    low, high = max(born, to_ms(start)), min(died, to_ms(end))
    if high <= low:
        return []
    layers = _layers(life, born, died)
    cuts = sorted({low, high, *(at for _, since, until in layers for at in (since, until) if low < at < high)})
    found: list[tuple[str, int, int]] = []
    for left, right in itertools.pairwise(cuts):
        bucket = _bucket(layers, left)
        if found and found[-1][0] == bucket:
            found[-1] = (bucket, found[-1][1], right)
        else:
            found.append((bucket, left, right))
    return found


def span(life: Life, *, now: datetime) -> tuple[int, int]:
    """When the life began and ended (or now), in milliseconds since 1970; never backwards."""
    born = to_ms(life.ordered_at)
    return born, max(born, to_ms(life.stopped_at or now))


def billed(price_per_hour_microusd: int, ms: int) -> int:
    """What `ms` from the order on cost, half a micro-dollar up."""
    return (2 * price_per_hour_microusd * max(0, ms) + HOUR_MS) // (2 * HOUR_MS)


def shared(amount: int, ms: Mapping[str, int]) -> dict[str, int]:
    """`amount` over the buckets by their milliseconds: whole parts first, then one more to the largest remainders (Hamilton's method)."""
    total = sum(ms.values())
    if total <= 0:
        return dict.fromkeys(BUCKETS, 0)
    parts = {bucket: divmod(amount * ms[bucket], total) for bucket in BUCKETS}
    left = amount - sum(whole for whole, _ in parts.values())
    lucky = set(sorted(BUCKETS, key=lambda b: (-parts[b][1], BUCKETS.index(b)))[:left])
    return {bucket: parts[bucket][0] + (bucket in lucky) for bucket in BUCKETS}


def to_ms(at: datetime) -> int:
    """Whole milliseconds since 1970, cut off: a moment is the same number in every sum."""
    passed = at - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1000 + passed.microseconds // 1000


def from_ms(ms: int) -> datetime:
    """The moment so many milliseconds after 1970."""
    return _EPOCH + timedelta(milliseconds=ms)


def _layers(life: Life, born: int, died: int) -> list[tuple[str, int, int]]:
    """Stretches by what they are, strongest first; the time no stretch covers is idle."""

    def within(at: datetime | None, otherwise: int) -> int:
        return min(max(to_ms(at), born), died) if at is not None else otherwise

    attempts = [(within(a.claimed_at, born), within(a.ended_at, died), max(0, round(a.load_s * 1000)) if a.load_s == a.load_s else 0) for a in life.attempts]
    drained = within(life.drain_asked_at, died)
    ready = within(life.ready_at, died)
    # One that was handed a job was ready then.
    ready = min([ready, *(claimed for claimed, _, _ in attempts)])
    registered = min(within(life.registered_at, ready), ready)
    found = [("busy", min(claimed + load, ended), ended) for claimed, ended, load in attempts]
    found += [("loading", claimed, min(claimed + load, ended)) for claimed, ended, load in attempts]
    found.append(("draining", drained, died))
    found += [(o.bucket, within(o.since, born), within(o.until, died)) for o in life.outages if o.bucket == "faulted"]
    found.append(("starting", born, registered))
    found.append(("loading", registered, ready))
    found += [(o.bucket, within(o.since, born), within(o.until, died)) for o in life.outages if o.bucket in ("loading", "starting")]
    return [(bucket, since, until) for bucket, since, until in found if until > since]


def _bucket(layers: Sequence[tuple[str, int, int]], at: int) -> str:
    return next((bucket for bucket, since, until in layers if since <= at < until), "idle")
