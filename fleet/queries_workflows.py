"""Reads of workflows for pages: health and money of the last day from minute rollups, node timings from recent attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Prefetch, Sum
from django.db.models.functions import TruncHour

from builds.models import Channel, Version, Workflow
from controlplane.kernel.stats import Histogram
from fleet.models import Attempt, Job, MinuteRollup

WINDOW = timedelta(hours=24)
# A p95 needs histograms, which only Python can merge: the newest rollup rows are enough, and bounded.
MOST_HISTOGRAMS = 2_000
MOST_ATTEMPTS = 50


@dataclass(slots=True)
class Day:
    """What a workflow did in the last 24 hours. Counts are of jobs that ended."""

    succeeded: int = 0
    failed: int = 0
    expired: int = 0
    canceled: int = 0
    cost_microusd: int = 0
    price_microusd: int = 0
    customers: int = 0
    run: Histogram = field(default_factory=Histogram)
    wait: Histogram = field(default_factory=Histogram)
    hourly: list[int] = field(default_factory=list)

    @property
    def jobs(self) -> int:
        return self.succeeded + self.failed + self.expired + self.canceled

    @property
    def success(self) -> float | None:
        """Share of the jobs that were meant to finish; None without any."""
        judged = self.succeeded + self.failed + self.expired
        return self.succeeded / judged if judged else None

    @property
    def run_p95(self) -> float | None:
        return self.run.quantile(0.95)

    @property
    def wait_p95(self) -> float | None:
        return self.wait.quantile(0.95)

    @property
    def cost_per_job(self) -> int | None:
        """Cost of everything that ran, over the jobs that came to something."""
        return round(self.cost_microusd / self.succeeded) if self.succeeded else None

    @property
    def price_per_job(self) -> int | None:
        return round(self.price_microusd / self.succeeded) if self.succeeded else None

    @property
    def margin(self) -> float | None:
        return (self.price_microusd - self.cost_microusd) / self.price_microusd if self.price_microusd else None


@dataclass(frozen=True, slots=True)
class Listed:
    """A workflow with what its row shows."""

    workflow: Workflow
    stable: Version | None
    latest: Version | None
    day: Day


def listed(*, now: datetime, text: str = "", category: str = "") -> list[Listed]:
    """Workflows that are not archived, most failing first, then busiest."""
    workflows = Workflow.objects.filter(archived_at__isnull=True).defer("capabilities")
    if category:
        workflows = workflows.filter(category=category)
    found = [w for w in workflows if not text or text.lower() in f"{w.slug} {w.name} {w.owner}".lower()]
    versions = (
        Version.objects.filter(workflow__in=[w.id for w in found])
        .order_by("workflow_id", "number")
        .only("id", "workflow_id", "number", "runnable", "created_at")
    )
    by_workflow: dict[UUID, list[Version]] = defaultdict(list)
    for version in versions:
        by_workflow[version.workflow_id].append(version)
    channels = Channel.objects.filter(workflow__in=[w.id for w in found], name=Channel.Name.PRODUCTION).values_list("workflow_id", "version_id")
    stable = dict(channels)
    days = day_of({v.id: v.workflow_id for vs in by_workflow.values() for v in vs}, now=now)
    rows = [
        Listed(
            workflow=w,
            stable=next((v for v in by_workflow[w.id] if v.id == stable.get(w.id)), None),
            latest=by_workflow[w.id][-1] if by_workflow[w.id] else None,
            day=days.get(w.id, Day()),
        )
        for w in found
    ]
    return sorted(rows, key=lambda r: (1.0 if r.day.success is None else r.day.success, -r.day.jobs, r.workflow.slug))


def day_of(versions: dict[UUID, UUID], *, now: datetime) -> dict[UUID, Day]:
    """The last 24 hours by workflow; `versions` says which workflow a version belongs to."""
    days: dict[UUID, Day] = defaultdict(Day)
    since = now - WINDOW
    rollups: Any = MinuteRollup.objects.filter(version__in=list(versions), minute__gte=since)
    totals = ("succeeded", "failed", "expired", "canceled", "cost_microusd", "price_microusd")
    customers: dict[UUID, set[UUID]] = defaultdict(set)
    for row in rollups.values("version_id", "customer_id").annotate(**{f"sum_{name}": Sum(name) for name in totals}).order_by():
        day = days[versions[row["version_id"]]]
        customers[versions[row["version_id"]]].add(row["customer_id"])
        for name in totals:
            setattr(day, name, getattr(day, name) + (row[f"sum_{name}"] or 0))
    first_hour = (since + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    hours: dict[UUID, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    ended = Sum("succeeded") + Sum("failed") + Sum("expired") + Sum("canceled")
    for row in rollups.annotate(hour=TruncHour("minute")).values("version_id", "hour").annotate(ended=ended).order_by():
        hours[versions[row["version_id"]]][int((row["hour"] - first_hour).total_seconds() // 3600)] += row["ended"] or 0
    for workflow_id, counts in hours.items():
        days[workflow_id].hourly = [counts.get(i, 0) for i in range(24)]
    for version_id, run, wait in rollups.order_by("-minute").values_list("version_id", "run", "wait")[:MOST_HISTOGRAMS]:
        day = days[versions[version_id]]
        day.run.merge(Histogram.from_json(run))
        day.wait.merge(Histogram.from_json(wait))
    for workflow_id, seen in customers.items():
        days[workflow_id].customers = len(seen)
    return dict(days)


def by_slug(slug: str) -> Workflow | None:
    """The workflow with its versions (newest first, without graphs) and channels."""
    light = Version.objects.defer("graph", "ui_graph", "schema", "lock", "inputs", "findings").order_by("-number")
    return Workflow.objects.filter(slug=slug).prefetch_related(Prefetch("versions", light), Prefetch("channels", Channel.objects.select_related(None))).first()


def version(workflow: Workflow, number: int | None = None) -> Version | None:
    """A version by number; without one, what production runs, or the newest. `workflow` comes from `by_slug`."""
    if number is None:
        live = next((c.version_id for c in workflow.channels.all() if c.name == Channel.Name.PRODUCTION), None)
        chosen = live or next((v.id for v in workflow.versions.all()), None)
    else:
        chosen = next((v.id for v in workflow.versions.all() if v.number == number), None)
    return Version.objects.defer("lock").filter(id=chosen).first() if chosen else None


def categories() -> list[str]:
    """The categories in use."""
    return list(Workflow.objects.filter(archived_at__isnull=True).order_by("category").values_list("category", flat=True).distinct())


def runs_by_version(workflow: Workflow, *, now: datetime) -> dict[UUID, Day]:
    """The last 24 hours by version."""
    ids = list(Version.objects.filter(workflow=workflow).order_by("-number").values_list("id", flat=True)[:200])
    return day_of({version_id: version_id for version_id in ids}, now=now)


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """Mean measured seconds per node over recent good attempts, and how many those were."""

    seconds: dict[str, float]
    attempts: int

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def share(self, node: str) -> float | None:
        """Share of the measured run time; None when nothing was measured."""
        return self.seconds.get(node, 0.0) / self.total if self.total else None


def node_times(version_id: UUID) -> NodeTimes:
    """Where recent attempts of a version spent their run time. A cached node counts as no time."""
    jobs = Job.objects.filter(version_id=version_id, status=Job.Status.SUCCEEDED, copied_from__isnull=True).order_by("-id").values("id")[:MOST_ATTEMPTS]
    rows = list(Attempt.objects.filter(job__in=jobs, state=Attempt.State.SUCCEEDED).values_list("nodes", flat=True))
    sums: dict[str, float] = defaultdict(float)
    for node, seconds in _ran(rows):
        sums[node] += seconds
    return NodeTimes(seconds={node: total / len(rows) for node, total in sums.items()}, attempts=len(rows))


def _ran(rows: Iterable[Any]) -> Iterable[tuple[str, float]]:
    for nodes in rows:
        for n in nodes if isinstance(nodes, list) else []:
            if isinstance(n, dict) and isinstance(n.get("run_s"), int | float) and n["run_s"] >= 0:
                yield str(n.get("node", "")), 0.0 if n.get("cached") else float(n["run_s"])


def jobs_by_status(workflow: Workflow) -> dict[str, int]:
    """How many of its jobs wait and run now."""
    rows = Job.objects.filter(workflow=workflow, status__in=[Job.Status.QUEUED, Job.Status.RUNNING]).values("status").annotate(n=Count("id")).order_by()
    return {row["status"]: row["n"] for row in rows}
