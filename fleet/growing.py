"""A pool's own figures as the start of a growth plan: load by the hour, its bill, and usual options at its prices."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Sum
from django.db.models.functions import TruncHour

from fleet import job_times, savings
from fleet.models import DemandMinute, Pool
from fleet.planning.growth import Case, Option
from fleet.planning.presets import Preset

BACK = timedelta(days=7)
MONTH_DAYS = 365.25 / 12
BUSY_HOURS = 10
"""The busiest hours of a day, whose load is the average."""


def of_pool(pool: Pool, *, now: datetime) -> Preset:
    """Where `pool` stands by its last seven days, and three usual ways to grow. Growth itself is for the reader to set."""
    start = max(now - BACK, min(pool.created_at, now - timedelta(hours=1)))
    rows = DemandMinute.objects.filter(pool=pool, minute__gte=start, minute__lt=now).order_by().annotate(hour=TruncHour("minute"))
    by_hour = {hour: (n or 0, work or 0.0) for hour, n, work in rows.values_list("hour").annotate(n=Sum("arrivals"), work=Sum("work_s"))}
    days = max(1 / 24, (now - start).total_seconds() / 86400)
    times = job_times.of_pool(pool, now=now)
    jobs = sum(n for n, _ in by_hour.values())
    work = sum(w for _, w in by_hour.values())
    loads = sorted((w / 3600 for _, w in by_hour.values()), reverse=True)
    busiest = loads[: max(1, round(BUSY_HOURS * max(1.0, days)))]
    workers = max(1, pool.max)
    average = sum(busiest) / len(busiest) / workers if busiest else 0.0
    peak = max(average, loads[max(0, round(0.02 * len(loads)) - 1)] / workers if loads else 0.0)
    bill = _cents(savings.spent(pool, start=start, end=now) / days * MONTH_DAYS)
    job_s = work / jobs if jobs and work else times.all.mean_s
    case = Case(
        workers=workers,
        average=round(average, 4),
        peak=round(peak, 4),
        monthly_microusd=bill,
        jobs_a_month=round(jobs / days * MONTH_DAYS, 1),
        new_customers=0.0,
        monthly=0.0,
        months=12,
        job_s=job_s,
        cv2=times.all.cv2,
        target_s=pool.target_s,
        target_share=pool.target_share,
    )
    each = _cents(bill / workers)
    more = max(1, round(workers / 2))
    options = (
        Option("Vertical", "vertical", _cents(each * workers / 3), workers=workers / 3, assumed="A third more capacity for a third more money."),
        Option("Horizontal", "horizontal", each * more, workers=more, assumed="Half as many workers again, at what one costs now."),
        Option("Hybrid", "hybrid", each * 2, workers=2, work=0.7, assumed="Two more workers, and jobs made 30% lighter."),
    )
    assumed = (
        f"Load and bill are those of the last {_long(days)}; average is that of the {BUSY_HOURS} busiest hours a day."
        + ("" if days >= 6.9 else " Less than a week says little of a month."),
        "What a worker costs a month is the bill over the maximum, as it is sized now.",
    )
    return Preset(name="pool", title=pool.slug, case=case, options=options, assumed=assumed)


def _cents(microusd: float) -> int:
    """An estimate of a month is not exact to the millionth."""
    return round(microusd / 10_000) * 10_000


def _long(days: float) -> str:
    hours = round(days * 24)
    return f"{days:.1f}".removesuffix(".0") + " days" if days >= 2 else f"{hours} hours" if hours > 1 else "hour"
