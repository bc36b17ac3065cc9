"""What a pool's own jobs looked like over a stretch, as the simulator takes it. Bounded: many jobs are read as counts of minutes.

Few jobs are read one by one, with the time each occupied its worker. Many are drawn: as many a minute as came, at random moments of
it (so a minute's arrivals are Poisson given their number), with times drawn from what such jobs took lately. The seed is fixed, so
that the same question has the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Sum

from controlplane.kernel.ids import first_uuid7
from fleet import job_times
from fleet.models import CapacityMinute, DemandMinute, Job, PlannedDemand, Pool, Worker
from fleet.planning.playing import History
from fleet.sizing.seen import Planned

if TYPE_CHECKING:
    import numpy as np

    from fleet.simulation.outcome import Floats

ONE_BY_ONE = 20_000
"""Jobs of the pool read singly; more are drawn from minutes."""
LOOKED_THROUGH = 200_000
"""Jobs of all pools in the stretch, above which none is read singly: they lie between this pool's."""
SIMULATED = 100_000
"""Jobs simulated; more are merged, several into one."""
SAMPLES = 2000
LONGEST = timedelta(days=31)


def of_pool(pool: Pool, *, start: datetime, end: datetime, now: datetime, simulated: int = SIMULATED, seed: int = 0) -> History:
    """The arrivals of `pool` from `start` to before `end`."""
    import numpy as np

    start = max(start, end - LONGEST)
    counted = DemandMinute.objects.filter(minute__gte=start - timedelta(minutes=1), minute__lt=end)
    mine = counted.filter(pool=pool).aggregate(n=Sum("arrivals"))["n"] or 0
    every = counted.aggregate(n=Sum("arrivals"))["n"] or 0
    random = np.random.default_rng(seed)
    measured = samples(pool)
    notes: list[str] = []
    if not measured:
        notes.append(f"No job of this pool has been measured yet: each counts as {job_times.of_pool(pool, now=now).all.mean_s:g} s.")
    if mine <= ONE_BY_ONE and every <= LOOKED_THROUGH:
        came, took, kinds, jobs = _one_by_one(pool, start, end, measured, random)
        merged = 1
    else:
        came, took, kinds, jobs, merged = _by_minute(pool, start, end, measured, simulated, random)
        notes.append(f"{jobs:,} jobs came: their number a minute is kept, their moments and times are drawn from what such jobs took.")
        if merged > 1:
            notes.append(f"Each simulated job stands for {merged}, so waits come out a little long.")
    cold = cold_starts(pool, now=now)
    if not cold:
        notes.append("No worker of this pool has started yet: a start counts as 60 s.")
    if pool.budget_per_day_microusd is not None:
        notes.append("The budget a day is left out; the one an hour holds.")
    if pool.forecast_floor:
        notes.append("The forecast's floor is left out on every side.")
    seconds = (end - start).total_seconds()
    order = np.argsort(came, kind="stable")
    return History(
        seconds=seconds,
        arrivals=came[order],
        service=took[order],
        kinds=kinds[order].tolist() if len(kinds) else None,
        jobs=jobs,
        merged=merged,
        workers=_ready(pool, start),
        cold_s=cold or (60.0,),
        planned=_planned(pool, start, end),
        notes=tuple(notes),
    )


def cold_starts(pool: Pool, *, now: datetime) -> tuple[float, ...]:
    """Seconds from order to ready of the pool's last starts."""
    rows = Worker.objects.filter(pool=pool, ready_at__isnull=False, ordered_at__gte=now - timedelta(days=7)).order_by("-ordered_at")
    return tuple(max(0.1, (ready - ordered).total_seconds()) for ordered, ready in rows.values_list("ordered_at", "ready_at")[: job_times.STARTS] if ready)


def samples(pool: Pool) -> dict[UUID, list[float]]:
    """Seconds that jobs of each workflow occupied a worker lately."""
    took: dict[UUID, list[float]] = {}
    for run in job_times.last_runs(pool, most=SAMPLES):
        took.setdefault(run.workflow_id, []).append(max(0.001, run.seconds))
    return took


Arrived = tuple["Floats", "Floats", "np.ndarray", int]


def _one_by_one(pool: Pool, start: datetime, end: datetime, measured: dict[UUID, list[float]], random: np.random.Generator) -> Arrived:
    import numpy as np

    slack = timedelta(minutes=5)
    rows = list(
        Job.objects.filter(
            id__gte=first_uuid7(start - slack), id__lt=first_uuid7(end + slack), pool=pool, created_at__gte=start, created_at__lt=end
        )
        .exclude(source__in=[Job.SMOKE, "cache"])
        .order_by()
        .values_list("created_at", "started_at", "finished_at", "status", "workflow_id")[: 2 * ONE_BY_ONE]
    )  # fmt: skip
    kind_of: dict[UUID, int] = {}
    came, took, kinds = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    for i, (created, began, ended, status, workflow) in enumerate(rows):
        came[i] = (created - start).total_seconds()
        kinds[i] = kind_of.setdefault(workflow, len(kind_of))
        if status in ("succeeded", "failed") and began is not None and ended is not None:
            took[i] = max(0.001, (ended - began).total_seconds())
        else:  # it never ran to an end: what such a job would have taken
            took[i] = _draw(measured, workflow, 1, random)[0]
    return came, took, kinds, len(rows)


def _by_minute(
    pool: Pool, start: datetime, end: datetime, measured: dict[UUID, list[float]], simulated: int, random: np.random.Generator
) -> tuple[Floats, Floats, np.ndarray, int, int]:
    import numpy as np

    rows = list(
        DemandMinute.objects.filter(pool=pool, minute__gte=start, minute__lt=end)
        .order_by("workflow_id", "minute")
        .values_list("workflow_id", "minute", "arrivals")
    )
    jobs = sum(n for _, _, n in rows)
    merged = max(1, -(-jobs // max(1, simulated)))
    kind_of = {workflow: i for i, workflow in enumerate(dict.fromkeys(workflow for workflow, _, _ in rows))}
    came: list[Floats] = []
    took: list[Floats] = []
    kinds: list[np.ndarray] = []
    for workflow, kind in kind_of.items():
        minutes = np.array([(minute - start).total_seconds() for w, minute, _ in rows if w == workflow])
        counts = np.array([n for w, _, n in rows if w == workflow])
        at = np.sort(np.repeat(minutes, counts) + random.random(int(counts.sum())) * 60)
        seconds = _draw(measured, workflow, len(at), random)
        if merged > 1:  # every so-manieth moment, with the work of those merged into it
            firsts = np.arange(0, len(at), merged)
            at, seconds = at[firsts], np.add.reduceat(seconds, firsts) if len(firsts) else seconds
        came.append(at)
        took.append(seconds)
        kinds.append(np.full(len(at), kind, dtype=np.int64))
    if not came:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), 0, 1
    return np.concatenate(came), np.concatenate(took), np.concatenate(kinds), jobs, merged


def _draw(measured: dict[UUID, list[float]], workflow: UUID, count: int, random: np.random.Generator) -> Floats:
    """Times of `count` jobs: of that workflow where measured, else of any; the unmeasured time where nothing was."""
    import numpy as np

    known: Sequence[float] = measured.get(workflow) or [s for of in measured.values() for s in of] or [job_times.Times().all.mean_s]
    return np.asarray(known, dtype=np.float64)[random.integers(len(known), size=count)]


def _ready(pool: Pool, at: datetime) -> int | None:
    row = CapacityMinute.objects.filter(pool=pool, minute__gte=at - timedelta(minutes=5), minute__lte=at + timedelta(minutes=1)).order_by("-minute").first()
    return row.ready + row.coming if row is not None else None


def _planned(pool: Pool, start: datetime, end: datetime) -> tuple[Planned, ...]:
    rows = PlannedDemand.objects.filter(pool=pool, canceled_at__isnull=True, ends_at__gt=start, starts_at__lt=end)[:200]
    return tuple(
        Planned(
            starts_in_s=(row.starts_at - start).total_seconds(),
            ends_in_s=(row.ends_at - start).total_seconds(),
            jobs=row.jobs,
            work_s=row.work_s,
            factor=row.factor,
            workers=row.workers,
        )
        for row in rows
    )
