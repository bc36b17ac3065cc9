"""Keep the worker-hours: where each worker's time and money went, hour by hour.

Hours of a recent stretch are computed afresh from workers and attempts and written over what stood there, so running it twice,
late or in two processes gives the same rows. An hour is touched again when a job that began in it ends: only then is it known
how much of it went into loading models. Hours beyond their keep are folded into days (`worker_days`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Min, Q, QuerySet, Sum

from fleet import buckets, worker_days
from fleet.buckets import BUCKETS, Life, Outage, Split
from fleet.models import Attempt, Pool, Worker, WorkerChange, WorkerHour

HOUR = timedelta(hours=1)
SETTLES = timedelta(minutes=3)
"""How long an hour that is over may still change for what is about to be written."""
STEP = timedelta(hours=24)
AT_ONCE = 500
"""Workers written together: SQLite takes so many values in one statement."""
MOST_ROWS = 20_000
"""Of a run; what is left of a long gap is the next one's."""


def recompute(*, now: datetime, since: datetime | None = None) -> int:
    """Write the rows of every hour from `since` on (by default: what may have changed since it last ran); returns rows written.

    A long gap is caught up a day at a time, as many as make `MOST_ROWS`; the next run goes on from the last hour written.
    """
    folded = worker_days.folded_until()
    start, present = floor(since or _begin(now)), floor(now) + HOUR
    start = start if folded is None else max(start, folded)
    written = 0 if since is not None else _ended_late(start, folded, now=now)
    while start < present:
        end = present if since is not None else min(present, start + STEP)
        rows = _write(Worker.objects.all(), start=start, end=end, now=now)
        written += rows
        if written >= MOST_ROWS and since is None:
            break
        start = end if rows or end >= present else _next_life(end) or present
    return written


def _write(workers: QuerySet[Worker], *, start: datetime, end: datetime, now: datetime) -> int:
    """The rows of these workers in [start, end), whole hours."""
    there = list(_existed(workers, start=start, end=end).select_related("pool"))
    lived = lives(there, start=start, end=end)
    rows: list[WorkerHour] = []
    at = start
    while at < end:
        rows += [row for worker in there if (row := _row(worker, lived[worker.id], at, now)) is not None]
        at += HOUR
    WorkerHour.objects.bulk_create(rows, batch_size=500, update_conflicts=True, unique_fields=["worker", "hour"], update_fields=["pool", *worker_days.FIELDS])
    # Hours were written while it was still hoped for.
    WorkerHour.objects.filter(worker__stop_reason__in=buckets.NEVER_RAN, worker__stopped_at__gt=start).delete()
    return len(rows)


def _ended_late(start: datetime, folded: datetime | None, *, now: datetime) -> int:
    """Write the earlier hours again of workers with a job that began before `start` and ended lately: only now is its loading known."""
    lately = Attempt.objects.filter(ended_at__gte=min(start, now - SETTLES), claimed_at__lt=start)
    begun: dict[datetime, list[UUID]] = {}
    for worker_id, claimed in lately.order_by().values_list("worker_id").annotate(at=Min("claimed_at")):
        begun.setdefault(floor(claimed) if folded is None else max(floor(claimed), folded), []).append(worker_id)
    written = 0
    for since, ids in begun.items():
        for first in range(0, len(ids) if since < start else 0, AT_ONCE):
            written += _write(Worker.objects.filter(id__in=ids[first : first + AT_ONCE]), start=since, end=start, now=now)
    return written


def totals(pool: Pool | None, *, start: datetime, end: datetime, now: datetime) -> Split:
    """Milliseconds and micro-dollars by bucket of [start, end): whole folded days and hours from the rows, what is left of it live."""
    end = min(end, now)
    folded = worker_days.folded_until()
    if folded is None or start >= folded:
        return _by_hours(pool, start=start, end=end, now=now)
    until = min(end, folded)
    first = worker_days.midnight(start) if start == worker_days.midnight(start) else worker_days.midnight(start) + worker_days.DAY
    last = worker_days.midnight(until)
    rest = _by_hours(pool, start=max(until, start), end=end, now=now)
    if first >= last:
        return live(pool, start=start, end=until, now=now) + rest
    edges = live(pool, start=start, end=first, now=now) + live(pool, start=last, end=until, now=now)
    return edges + worker_days.total(pool, first=first, last=last) + rest


def _by_hours(pool: Pool | None, *, start: datetime, end: datetime, now: datetime) -> Split:
    settled = floor(now - SETTLES)
    first, last = floor(start) if start == floor(start) else floor(start) + HOUR, min(floor(end), settled)
    if first >= last:
        return live(pool, start=start, end=end, now=now)
    found = live(pool, start=start, end=first, now=now) + live(pool, start=last, end=end, now=now)
    rows = WorkerHour.objects.filter(hour__gte=first, hour__lt=last)
    sums = (rows if pool is None else rows.filter(pool=pool)).aggregate(**{name: Sum(name) for name in worker_days.FIELDS})
    return found + Split({b: sums[f"{b}_ms"] or 0 for b in BUCKETS}, {b: sums[f"{b}_microusd"] or 0 for b in BUCKETS})


def live(pool: Pool | None, *, start: datetime, end: datetime, now: datetime) -> Split:
    """The same from the workers and attempts themselves."""
    if end <= start:
        return Split()
    workers = Worker.objects.all() if pool is None else Worker.objects.filter(pool=pool)
    found = list(_existed(workers, start=start, end=end).select_related("pool"))
    lived = lives(found, start=start)
    return sum((buckets.split(lived[worker.id], start=start, end=end, now=now) for worker in found), Split())


def lives(workers: Sequence[Worker], *, start: datetime, end: datetime | None = None) -> dict[UUID, Life]:
    """What is known of these workers' times, as far as it reaches past `start` (and begins before `end`). `pool` must be at hand."""
    ids = {worker.id for worker in workers}
    attempts: dict[UUID, list[buckets.Attempt]] = {id_: [] for id_ in ids}
    pools = {worker.pool_id for worker in workers}
    mine = Q(worker_id__in=ids) if len(ids) <= 20 else Q(worker__pool__in=pools) if len(pools) == 1 else Q()
    # However long ago they began: those that ended are found by their end, those that run are few.
    for reach in (Q(ended_at__gte=start), Q(state=Attempt.State.RUNNING)):
        found = Attempt.objects.filter(mine, reach).order_by()
        if end is not None:
            found = found.filter(claimed_at__lt=end)
        for worker_id, claimed, ended, timings in found.values_list("worker_id", "claimed_at", "ended_at", "timings").iterator(chunk_size=5000):
            if worker_id in attempts:
                attempts[worker_id].append(buckets.Attempt(claimed, ended, _load_s(timings)))
    changes: dict[UUID, list[WorkerChange]] = {}
    for change in WorkerChange.objects.filter(worker__in=ids).order_by("at", "id") if ids else ():
        changes.setdefault(change.worker_id, []).append(change)
    return {worker.id: life(worker, attempts[worker.id], changes.get(worker.id, ())) for worker in workers}


def life(worker: Worker, attempts: Sequence[buckets.Attempt], changes: Iterable[WorkerChange]) -> Life:
    """One worker's times. Its price is what was agreed when it was ordered; where nothing was, its pool's."""
    return Life(
        ordered_at=worker.ordered_at,
        registered_at=worker.registered_at,
        ready_at=worker.ready_at,
        drain_asked_at=worker.drain_asked_at,
        stopped_at=worker.stopped_at,
        attempts=attempts,
        outages=outages(worker, attempts, changes),
        price_per_hour_microusd=worker.price_per_hour_microusd or worker.pool.price_per_hour_microusd,
    )


def outages(worker: Worker, attempts: Sequence[buckets.Attempt], changes: Iterable[WorkerChange]) -> list[Outage]:
    """When a worker that had been ready came up again or was taken out. A job it was handed ends one too."""
    found: list[Outage] = []
    open_: tuple[str, datetime] | None = None

    def close(at: datetime | None) -> None:
        if open_ is not None:
            bucket, since = open_
            took = min((a.claimed_at for a in attempts if a.claimed_at >= since), default=None) if bucket != "faulted" else None
            found.append(Outage(bucket, since, min((t for t in (at, took) if t is not None), default=None)))

    for change in changes:
        if change.kind in ("starting", "loading", "faulted"):
            if open_ is not None and open_[0] == "faulted":
                continue
            close(change.at)
            open_ = (change.kind, change.at)
        elif change.kind == "cleared" or (change.kind == "ready" and open_ is not None and open_[0] != "faulted"):
            close(change.at)
            open_ = None
    close(None)
    if worker.faulted_at is not None and not any(o.bucket == "faulted" and o.until is None for o in found):
        found.append(Outage("faulted", worker.faulted_at, None))
    return found


def floor(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _row(worker: Worker, lived: Life, hour: datetime, now: datetime) -> WorkerHour | None:
    found = buckets.split(lived, start=hour, end=hour + HOUR, now=now)
    if not found.total_ms:
        return None
    values: dict[str, Any] = {"total_ms": found.total_ms, "total_microusd": found.total_microusd}
    values |= {f"{bucket}_ms": found.ms[bucket] for bucket in BUCKETS} | {f"{bucket}_microusd": found.microusd[bucket] for bucket in BUCKETS}
    return WorkerHour(pool_id=worker.pool_id, worker_id=worker.id, hour=hour, **values)


def _existed(workers: QuerySet[Worker], *, start: datetime, end: datetime) -> QuerySet[Worker]:
    there = workers.filter(Q(stopped_at__isnull=True) | Q(stopped_at__gt=start), ordered_at__lt=end).exclude(stop_reason__in=buckets.NEVER_RAN)
    return there.only(
        "id",
        "pool__price_per_hour_microusd",
        "price_per_hour_microusd",
        "ordered_at",
        "registered_at",
        "ready_at",
        "drain_asked_at",
        "faulted_at",
        "stopped_at",
    )


def _begin(now: datetime) -> datetime:
    """Where an ordinary run starts: the last hour written, or the one that has not settled; where nothing is, the first worker's."""
    last = WorkerHour.objects.order_by("-hour").values_list("hour", flat=True).first()
    if last is not None:
        return min(last, now - SETTLES)
    first = Worker.objects.exclude(stop_reason__in=buckets.NEVER_RAN).aggregate(at=Min("ordered_at"))["at"]
    return first or now


def _next_life(after: datetime) -> datetime | None:
    """The hour in which the next worker was ordered, where none lived at `after`."""
    at = Worker.objects.filter(ordered_at__gte=after).exclude(stop_reason__in=buckets.NEVER_RAN).aggregate(at=Min("ordered_at"))["at"]
    return None if at is None else floor(at)


def _load_s(timings: Any) -> float:
    if not isinstance(timings, dict):
        return 0.0
    found = [timings.get(name) for name in ("models_s", "load_s")]
    return min(1e8, sum(max(0.0, float(value)) for value in found if isinstance(value, int | float) and value == value))
