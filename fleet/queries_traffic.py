"""Reads of minute rollups over a time range: counts a step, wait and run histograms, the failures behind them.

A page costs the same at a thousand jobs and at ten million: sums are made by the database, histograms are
read from at most `MOST_HISTOGRAMS` rows (evenly spread minutes when there are more), failures from the newest
`MOST_FAILURES` jobs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncHour

from controlplane.kernel.stats import Histogram
from fleet.models import Job, MinuteRollup
from fleet.queries_jobs import floor_id

MOST_HISTOGRAMS = 3_000
SPREAD_MINUTES = 600
MOST_FAILURES = 2_000
_SUMS = ("succeeded", "failed", "failed_ours", "canceled", "expired", "busy_s", "cost_microusd", "price_microusd")


@dataclass(slots=True)
class Counts:
    """Jobs that ended, and what they cost and earned."""

    succeeded: int = 0
    failed: int = 0
    failed_ours: int = 0
    canceled: int = 0
    expired: int = 0
    busy_s: float = 0.0
    cost_microusd: int = 0
    price_microusd: int = 0

    def add(self, row: dict[str, Any]) -> None:
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + (row[name] or 0))

    def merge(self, other: Counts) -> None:
        self.add({name: getattr(other, name) for name in _SUMS})

    @property
    def jobs(self) -> int:
        return self.succeeded + self.failed + self.canceled + self.expired

    @property
    def bad(self) -> int:
        return self.failed + self.expired

    @property
    def success(self) -> float | None:
        """Share of the jobs that were meant to finish; None without any."""
        judged = self.succeeded + self.failed + self.expired
        return self.succeeded / judged if judged else None

    @property
    def cost_per_good_job(self) -> int | None:
        """Cost of everything that ran over the jobs that succeeded."""
        return round(self.cost_microusd / self.succeeded) if self.succeeded else None

    @property
    def margin(self) -> float | None:
        return (self.price_microusd - self.cost_microusd) / self.price_microusd if self.price_microusd else None


@dataclass(slots=True)
class Traffic:
    """Counts by step and key (a pool or customer id), and what they add up to."""

    start: datetime
    end: datetime
    step_s: int
    steps: dict[tuple[int, Any], Counts] = field(default_factory=dict)

    def total(self, key: Any = None) -> Counts:
        """Everything in the range, of one key when given."""
        found = Counts()
        for (_, k), counts in self.steps.items():
            if key is None or k == key:
                found.merge(counts)
        return found

    def times(self) -> list[int]:
        """The start of each step as Unix seconds."""
        return steps(self.start, self.end, self.step_s)

    def line(self, name: str, key: Any = None) -> list[float]:
        """One value a step, zero where nothing ended."""
        by_time: dict[int, float] = defaultdict(float)
        for (at, k), counts in self.steps.items():
            if key is None or k == key:
                by_time[at] += getattr(counts, name)
        return [by_time.get(at, 0) for at in self.times()]


def steps(start: datetime, end: datetime, step_s: int) -> list[int]:
    """Unix seconds of every step that touches the range."""
    first = int(start.timestamp()) // step_s * step_s
    return list(range(first, int(end.timestamp()) + (1 if end.timestamp() % 1 else 0), step_s)) or [first]


def rollups(*, start: datetime, end: datetime, pool_id: int | None = None, customer_id: UUID | None = None) -> QuerySet[MinuteRollup]:
    """Rollup rows of whole minutes in the range."""
    found = MinuteRollup.objects.filter(minute__gte=start.replace(second=0, microsecond=0), minute__lt=end).order_by()
    if pool_id is not None:
        found = found.filter(pool_id=pool_id)
    if customer_id is not None:
        found = found.filter(customer_id=customer_id)
    return found


def traffic(*, start: datetime, end: datetime, step_s: int, key: str = "pool_id", pool_id: int | None = None, customer_id: UUID | None = None) -> Traffic:
    """Counts by step and `key`."""
    rows: Any = rollups(start=start, end=end, pool_id=pool_id, customer_id=customer_id)
    if step_s >= 86400:
        rows, at = rows.annotate(at=TruncDay("minute", tzinfo=UTC)), "at"
    elif step_s >= 3600:
        rows, at = rows.annotate(at=TruncHour("minute", tzinfo=UTC)), "at"
    else:
        at = "minute"
    found = Traffic(start, end, step_s)
    for row in rows.values(at, key).annotate(**{f"{name}_": Sum(name) for name in _SUMS}):
        slot = int(row[at].timestamp()) // step_s * step_s
        found.steps.setdefault((slot, row[key]), Counts()).add({name: row[f"{name}_"] for name in _SUMS})
    return found


@dataclass(slots=True)
class Times:
    """Histograms by step and key."""

    start: datetime
    end: datetime
    step_s: int
    parts: dict[tuple[int, Any], Histogram] = field(default_factory=dict)
    partial: bool = False

    def of(self, key: Any = None, *, since: datetime | None = None) -> Histogram:
        """One histogram of the range, of one key when given."""
        found = Histogram()
        for (at, k), part in self.parts.items():
            if (key is None or k == key) and (since is None or at >= int(since.timestamp()) // self.step_s * self.step_s):
                found.merge(part)
        return found

    def line(self, q: float, key: Any = None) -> list[float | None]:
        """A quantile a step; None where nothing was measured."""
        merged: dict[int, Histogram] = {}
        for (at, k), part in self.parts.items():
            if key is None or k == key:
                merged.setdefault(at, Histogram()).merge(part)
        values = (merged[at].quantile(q) if at in merged else None for at in steps(self.start, self.end, self.step_s))
        return [None if value is None else round(value, 3) for value in values]


def times(
    kind: str, *, start: datetime, end: datetime, step_s: int, key: str = "pool_id", pool_id: int | None = None, customer_id: UUID | None = None
) -> Times:
    """Histograms of `kind` (wait, run or total) by step and `key`; from a spread of minutes when there are too many rows."""
    rows = rollups(start=start, end=end, pool_id=pool_id, customer_id=customer_id)
    fields = ("minute", key, kind)
    read = list(rows.order_by("-minute").values_list(*fields)[: MOST_HISTOGRAMS + 1])
    partial = len(read) > MOST_HISTOGRAMS
    if partial:
        every = max(1, int((end - start).total_seconds() // 60) // SPREAD_MINUTES)
        first = start.replace(second=0, microsecond=0)
        chosen = [first + timedelta(minutes=i * every) for i in range(SPREAD_MINUTES + 1)]
        read = list(rows.filter(minute__in=chosen).values_list(*fields)[: MOST_HISTOGRAMS * 3])
    found = Times(start, end, step_s, partial=partial)
    for minute, k, data in read:
        slot = int(minute.timestamp()) // step_s * step_s
        found.parts.setdefault((slot, k), Histogram()).merge(Histogram.from_json(data))
    return found


@dataclass(frozen=True, slots=True)
class WorkflowHealth:
    """One workflow's recent success."""

    slug: str
    succeeded: int
    bad: int

    @property
    def judged(self) -> int:
        return self.succeeded + self.bad

    @property
    def success(self) -> float:
        return self.succeeded / self.judged if self.judged else 1.0


def failing_workflows(*, start: datetime, end: datetime, below: float = 0.95, at_least: int = 5) -> list[WorkflowHealth]:
    """Workflows whose success lies under `below` on at least `at_least` judged jobs, worst first."""
    rows = rollups(start=start, end=end).values("version__workflow__slug").annotate(good=Sum("succeeded"), failed_=Sum("failed"), expired_=Sum("expired"))
    found = [WorkflowHealth(r["version__workflow__slug"], r["good"], r["failed_"] + r["expired_"]) for r in rows]
    return sorted((w for w in found if w.judged >= at_least and w.success < below), key=lambda w: w.success)


@dataclass(slots=True)
class Failure:
    """One cause of failure in one workflow."""

    code: str
    workflow: str
    failure_class: str
    status: str
    message: str = ""
    jobs: int = 0
    customers: set[Any] = field(default_factory=set)
    last_at: datetime | None = None
    trend: list[float] = field(default_factory=list)


def failures(*, start: datetime, end: datetime, customer_id: UUID | None = None, most: int = 8, slots: int = 16) -> tuple[list[Failure], bool]:
    """Causes of failure by number of jobs, and whether older failures were left out."""
    jobs = Job.objects.filter(
        Q(status="failed") | Q(status="expired"), id__gte=floor_id(start - timedelta(hours=1)), finished_at__gte=start, finished_at__lt=end
    ).exclude(source=Job.SMOKE)
    if customer_id is not None:
        jobs = jobs.filter(customer_id=customer_id)
    rows = list(jobs.order_by("-id").values_list("error", "failure_class", "status", "workflow__slug", "customer_id", "finished_at")[: MOST_FAILURES + 1])
    width = max(1.0, (end - start).total_seconds() / slots)
    found: dict[tuple[str, str], Failure] = {}
    for error, failure_class, status, workflow, customer, at in rows[:MOST_FAILURES]:
        given = error if isinstance(error, dict) else {}
        code = str(given.get("code") or status)
        one = found.setdefault((code, workflow), Failure(code, workflow, failure_class, status, str(given.get("message") or "")[:160], trend=[0.0] * slots))
        one.jobs += 1
        one.customers.add(customer)
        one.last_at = one.last_at or at
        if at is None:
            continue
        one.trend[min(slots - 1, max(0, int((at - start).total_seconds() / width)))] += 1
    return sorted(found.values(), key=lambda f: (-f.jobs, f.code))[:most], len(rows) > MOST_FAILURES


def last_failure_at() -> datetime | None:
    """When a job last failed or expired."""
    newest = Job.objects.filter(status="failed").exclude(source=Job.SMOKE).order_by("-id").values_list("finished_at", flat=True)[:1]
    return next(iter(newest), None)
