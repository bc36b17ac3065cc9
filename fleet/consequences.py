"""What a measure would do, in numbers, before anybody confirms it. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min, Q

from builds.models import Channel
from controlplane.kernel import money
from fleet import clearing, demand, estimates, floors, job_times, overflow
from fleet.models import EmergencyAction, Job, Pool
from fleet.overflow import duration

_CLASSES = {0: "high", 1: "normal", 2: "low"}


@dataclass(frozen=True, slots=True)
class Consequence:
    """Sentences for people, figures for programs, and one mark that changes when the numbers do."""

    lines: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    amount: int = 0
    """Jobs or workers it is about: the confirm button repeats it."""
    priced: tuple[str, ...] = ()
    """Those of the lines that speak of money."""

    def shown(self, *, money_shown: bool) -> Consequence:
        """The same for somebody who sees money, or does not."""
        if money_shown:
            return self
        figures = {name: value for name, value in self.figures.items() if not name.endswith("_microusd")}
        return replace(self, lines=[line for line in self.lines if line not in self.priced], figures=figures, priced=())


@dataclass(frozen=True, slots=True)
class Backlog:
    """The pool's queue as it stands."""

    jobs: int
    work_s: float
    oldest_s: float
    live: int
    drain_s: float
    """Seconds until everything that waits now has begun, with the workers there are and are coming."""


def of(action: EmergencyAction, *, now: datetime) -> Consequence:
    """What this measure, not taken yet, would do."""
    make = {"raise": _raise, "fast": _fast, "pause_class": _pause, "shed": _shed, "clear": _clear}[action.kind]
    return make(action, now)


def backlog(pool: Pool, *, now: datetime) -> Backlog:
    """What waits, and how long it takes: the prediction behind the alert."""
    queue, mix, oldest = demand.waiting(pool, with_smoke=False, now=now)
    times = job_times.of_pool(pool, now=now)
    work_s = times.work_s({version: float(n) for version, n in mix.items()})
    ready, busy, live = overflow.workers(pool.id)
    drain_s = overflow.wait(work_s, ready=ready, busy=busy, live=live, mean_s=times.all.mean_s, cold_s=times.cold.p50_s) if queue else 0.0
    return Backlog(queue, work_s, max(0.0, (now - oldest).total_seconds()) if oldest else 0.0, live, drain_s)


def _raise(action: EmergencyAction, now: datetime) -> Consequence:
    pool, here = action.pool, backlog(action.pool, now=now)
    own = floors.of(pool, now=now)
    base, most = max(action.base or 0, own.base), max(action.max or 0, own.maximum)
    hours = (action.expires_at - now).total_seconds() / 3600
    more, kept = most - own.maximum, base - own.base
    per_hour = more * pool.price_per_hour_microusd
    figures = {
        "base": base,
        "max": most,
        "workers_more": more,
        "cost_per_hour_microusd": per_hour,
        "most_cost_microusd": round(per_hour * hours),
        "queue": here.jobs,
        "drain_now_s": round(here.drain_s),
        "drain_at_max_s": round(here.work_s / max(1, most)),
    }
    kept_now = f", at least {base:,} instead of {own.base:,}" if kept > 0 else f", at least {base:,} as before" if base else ""
    lines = [f"Up to {_n(most, 'worker')} instead of {own.maximum:,}{kept_now}, for {duration(hours * 3600)}."]
    priced: tuple[str, ...] = ()
    if per_hour:
        priced = (f"At most {money.display(per_hour)} an hour more, {money.display(figures['most_cost_microusd'])} in all; sizing orders what it needs.",)
        lines += priced
    if here.jobs:
        at_most = duration(here.work_s / max(1, most))
        lines.append(f"{_n(here.jobs, 'job')} waiting: {duration(here.drain_s)} of work for {_n(here.live, 'worker')}, about {at_most} for {most:,}.")
    if pool.budget_per_hour_microusd is not None and pool.price_per_hour_microusd and most * pool.price_per_hour_microusd > pool.budget_per_hour_microusd:
        paid = pool.budget_per_hour_microusd // pool.price_per_hour_microusd
        lines.append(f"The pool's budget pays for {_n(paid, 'worker')} an hour; beyond that only the {base:,} kept are ordered.")
    if kept > 0:
        lines.append(f"{_n(kept, 'worker')} more kept even when nothing waits.")
    return Consequence(lines, figures, amount=more or kept, priced=priced)


def _fast(action: EmergencyAction, now: datetime) -> Consequence:
    workflow, over = action.workflow, action.overflow_s or 0.0
    assert workflow is not None
    live = Channel.objects.filter(workflow=workflow, name=Channel.Name.PRODUCTION).select_related("version").first()
    here = backlog(action.pool, now=now)
    waiting = Job.objects.filter(pool=action.pool, status="queued", workflow=workflow).exclude(source=Job.SMOKE).count()
    usual = estimates.of_version(live.version_id, now=now) if live else estimates.Estimate()
    figures: dict[str, Any] = {"waiting": waiting, "drain_now_s": round(here.drain_s), "usual_run_s": usual.p50_s, "applies_now": here.drain_s > over}
    how = f"as version {action.version.number}" if action.version is not None else "with " + ", ".join(f"{k} {v}" for k, v in action.overrides.items())
    if action.version is not None and action.overrides:
        how += " and " + ", ".join(f"{k} {v}" for k, v in action.overrides.items())
    lines = [f"New jobs of {workflow.slug} that would wait longer than {duration(over)} run {how}."]
    if action.version is not None:
        cheap = estimates.of_version(action.version.id, now=now)
        figures["fast_run_s"] = cheap.p50_s if cheap.samples else None
        if cheap.samples and usual.samples:
            lines.append(f"A run takes {cheap.p50_s:.1f} s instead of {usual.p50_s:.1f} s.")
        else:
            lines.append("How long it takes is not measured yet." if not cheap.samples else "How long the usual one takes is not measured yet.")
    forced = action.terms.get("force") or []
    if forced:
        lines.append(f"{', '.join(forced)} {'is' if len(forced) == 1 else 'are'} set even where a customer wrote another value; the job says so.")
    changed = action.terms.get("waiting")
    lines.append(
        f"{_n(waiting, 'job')} of it waiting now. " + ("Those that would wait too long are changed, in their places." if changed else "They stay as they are.")
    )
    lines.append("No job costs more than was quoted.")
    return Consequence(lines, figures, amount=waiting)


def _pause(action: EmergencyAction, now: datetime) -> Consequence:
    jobs = _of_class(action)
    until = Q(deadline_at__lt=action.expires_at)
    found = jobs.aggregate(jobs=Count("id"), customers=Count("customer", distinct=True), late=Count("id", filter=until), first=Min("deadline_at"))
    rest = Job.objects.filter(pool=action.pool, status="queued", priority__lt=action.priority or 0).exclude(source=Job.SMOKE).count()
    lines = [
        f"{_n(found['jobs'], 'waiting job')} of {_n(found['customers'], 'customer')} ({_behind(action.priority)}) not served until then, kept in place.",
        f"{_n(rest, 'job')} before them served as usual. What runs now is not touched.",
    ]
    if found["late"]:
        lines.append(f"{found['late']:,} of them with a deadline before the pause ends will expire, uncharged.")
    return Consequence(lines, {"jobs": found["jobs"], "customers": found["customers"], "expire": found["late"], "served": rest}, amount=found["jobs"])


def _shed(action: EmergencyAction, now: datetime) -> Consequence:
    over = action.overflow_s or 0.0
    jobs = _of_class(action).aggregate(jobs=Count("id"), customers=Count("customer", distinct=True))
    here = backlog(action.pool, now=now)
    rates = demand.rates(action.pool, now=now)
    lines = [
        f"New jobs ({_behind(action.priority)}) that would wait longer than {duration(over)} are answered 503 with the time to come back.",
        f"{_n(jobs['jobs'], 'job')} of {_n(jobs['customers'], 'customer')} waiting in it now, not touched.",
        f"Clearing what waits takes about {duration(here.drain_s)}, so " + ("it applies at once." if here.drain_s > over else "nothing is turned away yet."),
    ]
    if rates.m10:
        lines.append(f"{rates.m10 * 60:,.0f} jobs a minute have come lately, of all classes.")
    figures = {
        "jobs": jobs["jobs"],
        "customers": jobs["customers"],
        "drain_now_s": round(here.drain_s),
        "applies_now": here.drain_s > over,
        "arrivals_per_minute": round(rates.m10 * 60, 1),
    }
    return Consequence(lines, figures, amount=jobs["jobs"])


def _clear(action: EmergencyAction, now: datetime) -> Consequence:
    found = clearing.count(action)
    latest = clearing.waiting(action).aggregate(at=Max("queued_at"))["at"]
    freed = f"{money.display(found.reserved_microusd)} reserved for them is free again at once."
    lines = [f"{_n(found.jobs, 'waiting job')} of {_n(found.customers, 'customer')} canceled by us and charged nothing. None that runs is touched.", freed]
    if found.webhooks:
        lines.append(f"{_n(found.webhooks, 'webhook')} sent, which cannot be taken back.")
    lines.append("Within 24 h they can be submitted again: as new jobs with new ids, behind what then waits. Their old ids stay canceled.")
    figures = {
        "jobs": found.jobs,
        "customers": found.customers,
        "reserved_microusd": found.reserved_microusd,
        "webhooks": found.webhooks,
        "oldest_s": round(found.oldest_s),
        "newest_at": latest.isoformat() if latest else None,
    }
    return Consequence(lines, figures, amount=found.jobs, priced=(freed,))


def _of_class(action: EmergencyAction) -> Any:
    return Job.objects.filter(pool=action.pool, status="queued", priority__gte=action.priority or 0).exclude(source=Job.SMOKE).order_by()


def _behind(priority: int | None) -> str:
    return "low" if priority == 2 else " and ".join(name for rank, name in _CLASSES.items() if rank >= (priority or 0))


def _n(count: int, one: str) -> str:
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"
