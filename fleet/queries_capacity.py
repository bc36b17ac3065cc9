"""Reads of what a pool had and was asked for, step by step: capacity and demand minutes, the forecast ahead, what is announced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Avg, F, FloatField, Max, Sum, Value
from django.db.models.functions import Cast, TruncHour

from fleet.buckets import BUCKETS, Split
from fleet.models import CapacityMinute, DemandMinute, Forecast, PlannedDemand, WorkerHour
from fleet.queries_traffic import steps

HOURLY_S = 3600
"""Steps this long are summed up by the database: a month is read as 672 rows, not as 40,000."""


@dataclass(slots=True)
class Step:
    """What a pool had in one step, and the work that came in it."""

    ready: float | None = None
    looks: int = 0
    live_sum: float = 0.0
    busy: float | None = None
    queue: float | None = None
    floor: float | None = None
    work_s: float = 0.0
    arrivals: float = 0.0

    @property
    def live(self) -> float | None:
        return self.live_sum / self.looks if self.looks else None


@dataclass(slots=True)
class Minutes:
    """Steps of a range. Ready is the most of a step, live its mean (that is what is paid for)."""

    start: datetime
    end: datetime
    step_s: int
    steps: dict[int, Step] = field(default_factory=dict)

    def times(self) -> list[int]:
        return steps(self.start, self.end, self.step_s)

    def line(self, name: str) -> list[float | None]:
        """One value a step; None where nothing was written down."""
        found = []
        for at in self.times():
            value = getattr(self.steps[at], name) if at in self.steps else None
            found.append(None if value is None else round(value, 3))
        return found

    def seconds_of(self, at: int) -> float:
        """How much of the step lies inside the range: the last one may have only begun."""
        return max(1.0, min(self.step_s, self.end.timestamp() - at))

    def needed(self) -> list[float | None]:
        """Workers' worth of work that arrived in each step; None where the pool was not looked at."""
        return [round(s.work_s / self.seconds_of(at), 3) if (s := self.steps.get(at)) is not None else None for at in self.times()]

    def arriving(self) -> list[float | None]:
        """Jobs a minute that arrived in each step."""
        return [round(s.arrivals * 60 / self.seconds_of(at), 3) if (s := self.steps.get(at)) is not None else None for at in self.times()]

    def spared_s(self, maximum: int) -> float:
        """Seconds of a worker that were not run, against always running `maximum`."""
        return sum(max(0.0, maximum - s.live) * self.seconds_of(at) for at, s in self.steps.items() if s.live is not None)


def minutes(*, start: datetime, end: datetime, step_s: int, pool_id: int | None = None) -> Minutes:
    """Capacity and demand of one pool, or of all together, in one query."""
    found = Minutes(start, end, step_s)
    if step_s >= HOURLY_S or pool_id is None:
        rows: Any = _summed(start, end, step_s, pool_id)
    else:
        rows = _each(start, end, pool_id)
    for kind, at, ready, live, busy, queue, floor, work_s, arrivals in rows:
        step = found.steps.setdefault(int(at.timestamp()) // step_s * step_s, Step())
        if kind == "capacity":
            step.ready = max(step.ready or 0.0, ready)
            step.live_sum, step.looks = step.live_sum + live, step.looks + 1
            step.busy, step.queue, step.floor = max(step.busy or 0.0, busy), max(step.queue or 0.0, queue), floor
        else:
            step.work_s += work_s
            step.arrivals += arrivals
    return found


def _range(model: Any, start: datetime, end: datetime, pool_id: int | None) -> Any:
    rows = model.objects.filter(minute__gte=start.replace(second=0, microsecond=0), minute__lt=end).order_by()
    return rows if pool_id is None else rows.filter(pool_id=pool_id)


def _number(value: Any) -> Any:
    return Cast(value, FloatField())


def _each(start: datetime, end: datetime, pool_id: int) -> Any:
    """A row a minute of each kind."""
    nothing = {name: _number(Value(0.0)) for name in ("a", "b", "c", "d", "e", "f", "g")}
    live = F("ready") + F("coming") + F("draining") + F("faulted")
    had = nothing | {"a": _number(F("ready")), "b": _number(live), "c": _number(F("busy")), "d": _number(F("queue")), "e": _number(F("floor"))}
    came = nothing | {"f": _number(F("work_s")), "g": _number(F("arrivals"))}
    columns = ("kind", "minute", "a", "b", "c", "d", "e", "f", "g")
    capacity = _range(CapacityMinute, start, end, pool_id).annotate(kind=Value("capacity"), **had).values_list(*columns)
    return capacity.union(_range(DemandMinute, start, end, pool_id).annotate(kind=Value("demand"), **came).values_list(*columns), all=True)


def _summed(start: datetime, end: datetime, step_s: int, pool_id: int | None) -> Any:
    """Sums over pools a minute, or a row an hour."""
    hourly = step_s >= HOURLY_S
    had, came = (_range(model, start, end, pool_id) for model in (CapacityMinute, DemandMinute))
    if hourly:
        had, came = (rows.annotate(at=TruncHour("minute", tzinfo=UTC)) for rows in (had, came))
    else:
        had, came = (rows.annotate(at=F("minute")) for rows in (had, came))
    live = F("ready") + F("coming") + F("draining") + F("faulted")
    if hourly and pool_id is None:  # of several pools in an hour: the means, which may be added up
        of: Any = had.values("at", "pool_id").annotate(a=Avg("ready"), b=Avg(live), c=Avg("busy"), d=Max("queue"), e=Avg("floor"))
        sums: dict[datetime, list[float]] = {}
        for row in of:
            held = sums.setdefault(row["at"], [0.0] * 5)
            for i, name in enumerate("abcde"):
                held[i] += row[name] or 0
        capacity = [("capacity", at, *values, 0.0, 0.0) for at, values in sums.items()]
    else:
        together = Max if hourly else Sum
        mean = Avg(live) if hourly else Sum(live)
        rows = had.values("at").annotate(a=together("ready"), b=mean, c=together("busy"), d=together("queue"), e=together("floor"))
        capacity = [("capacity", r["at"], r["a"], r["b"], r["c"], r["d"], r["e"], 0.0, 0.0) for r in rows]
    demand = came.values("at").annotate(f=Sum("work_s"), g=Sum("arrivals"))
    return [*capacity, *(("demand", r["at"], 0.0, 0.0, 0.0, 0.0, 0.0, r["f"], r["g"]) for r in demand)]


@dataclass(frozen=True, slots=True)
class Ahead:
    """A forecast as lines: at each time workers' worth of work (p50, p10, p90, the quantile of the wait target) and jobs a minute."""

    row: Forecast

    def at(self, t: int) -> list[float] | None:
        """[p50, p10, p90, target quantile] in workers at a Unix time; None outside the forecast."""
        return self._of(self.row.points, t)

    def jobs_at(self, t: int) -> list[float] | None:
        """[p50, p10, p90] in jobs a minute."""
        found = self._of(self.row.arrivals, t)
        return None if found is None else [value * 60 / self.row.step_s for value in found]

    def floor_at(self, t: int) -> float | None:
        """Workers the day plan keeps at a Unix time; None where it says nothing."""
        floors = self.row.plan.get("floors") if isinstance(self.row.plan, dict) else None
        found = self._of([[v] for v in floors] if isinstance(floors, list) else None, t)
        return found[0] if found else None

    def _of(self, values: Any, t: int) -> list[float] | None:
        if not isinstance(values, list):
            return None
        at = int((t - self.row.starts_at.timestamp()) // self.row.step_s)
        return numbers_of(values[at]) if 0 <= at < len(values) else None

    def peak(self, *, start: datetime, end: datetime) -> tuple[float, datetime] | None:
        """The highest p50 of the stretch, and when."""
        found: tuple[float, datetime] | None = None
        for i, point in enumerate(self.row.points if isinstance(self.row.points, list) else []):
            at = self.row.starts_at + timedelta(seconds=i * self.row.step_s)
            if at < start - timedelta(seconds=self.row.step_s):
                continue
            known = numbers_of(point) if start - timedelta(seconds=self.row.step_s) < at < end else None
            if known is not None and (found is None or known[0] > found[0]):
                found = (known[0], at)
        return found


def numbers_of(point: Any) -> list[float] | None:
    """A step's figures, when they are some."""
    if not isinstance(point, list | tuple) or not point or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in point):
        return None
    return [float(v) for v in point]


def forecasts(ids: Iterable[int | None], *, now: datetime) -> dict[int, Ahead]:
    """These forecasts by pool, those that still say something about the future. One query, or none when there is no forecast."""
    known = [id_ for id_ in ids if id_ is not None]
    rows = Forecast.objects.filter(id__in=known) if known else []
    return {row.pool_id: Ahead(row) for row in rows if row.starts_at + timedelta(seconds=row.step_s * len(row.points)) > now}


def announced(pool_id: int, *, start: datetime, end: datetime) -> list[PlannedDemand]:
    """Batches and events that touch the range."""
    return list(PlannedDemand.objects.filter(pool_id=pool_id, canceled_at__isnull=True, ends_at__gte=start, starts_at__lt=end).select_related("customer")[:100])


def spend(*, start: datetime, end: datetime, pool_id: int | None = None) -> dict[int, Split]:
    """Where the workers' time and money of the whole hours that touch the range went, by pool: one query."""
    sums = {f"{b}_{unit}": Sum(f"{b}_{unit}") for b in BUCKETS for unit in ("ms", "microusd")}
    rows: Any = WorkerHour.objects.filter(hour__gte=start.replace(minute=0, second=0, microsecond=0), hour__lt=end).order_by().values("pool_id")
    if pool_id is not None:
        rows = rows.filter(pool_id=pool_id)
    return {
        row["pool_id"]: Split({b: row[f"{b}_ms_"] or 0 for b in BUCKETS}, {b: row[f"{b}_microusd_"] or 0 for b in BUCKETS})
        for row in rows.annotate(**{f"{name}_": total for name, total in sums.items()})
    }
