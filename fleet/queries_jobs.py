"""Reads of jobs for pages: the filtered list, one job with everything around it, and where its time went.

Lists walk the primary key (UUIDv7, so newest first) and page by cursor; nothing here counts without a bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Prefetch, Q, QuerySet

from billing.models import Customer, UsageEntry
from builds.models import Workflow
from controlplane.kernel.ids import parse_uuid
from controlplane.kernel.models import AuditEntry
from fleet.models import Attempt, Job, Output, Pool

PAGE = 50
COUNT_BOUND = 1_000
_CLOCK_SLACK = timedelta(hours=1)
_ROW_FIELDS = (
    *("id", "status", "source", "priority", "created_at", "queued_at", "started_at", "finished_at", "cancel_asked_at", "attempt", "max_attempts"),
    *("progress", "failure_class", "error", "quote_microusd", "price_microusd", "cost_microusd", "billable_s"),
    *("workflow__slug", "workflow__name", "version__number", "customer__slug", "customer__name", "pool__slug"),
)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What of the job list is wanted. Unknown values are kept, so that the page can say that nothing matches them."""

    status: str = ""
    workflow: str = ""
    customer: str = ""
    pool: str = ""
    failure: str = ""
    since: datetime | None = None
    until: datetime | None = None

    FIELDS = ("status", "workflow", "customer", "pool", "failure")

    @property
    def active(self) -> dict[str, str]:
        """The filters that are on, without the time range."""
        return {name: value for name in self.FIELDS if (value := getattr(self, name))}

    def without(self, name: str) -> JobFilter:
        """This filter with one of its terms off."""
        return replace(self, **{name: ""})  # type: ignore[arg-type]  # only FIELDS are taken off

    def apply(self, jobs: QuerySet[Job]) -> QuerySet[Job]:
        """`jobs` narrowed to this filter."""
        # slugs become ids in a subquery of one row, so that the indexes by customer and by workflow keep their order
        for field, model, slug in (("workflow_id", Workflow, self.workflow), ("customer_id", Customer, self.customer), ("pool_id", Pool, self.pool)):
            if slug:
                named: Any = model
                jobs = jobs.filter(**{field: named.objects.filter(slug=slug).values("id")[:1]})
        if self.status:
            jobs = jobs.filter(status=self.status)
        if self.failure:
            jobs = jobs.filter(failure_class=self.failure)
        if self.since is not None:
            # ids sort by time of creation, so the key bounds the walk; the column decides
            jobs = jobs.filter(id__gte=floor_id(self.since - _CLOCK_SLACK), created_at__gte=self.since)
        if self.until is not None:
            jobs = jobs.filter(created_at__lt=self.until)
        return jobs


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of the list, and the cursor of the next."""

    jobs: list[Job]
    next_before: str
    newest: str


def floor_id(at: datetime) -> UUID:
    """The smallest UUIDv7 of that moment."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def page(wanted: JobFilter, *, before: UUID | None = None, top: UUID | None = None, size: int = PAGE) -> JobPage:
    """Jobs newest first, older than `before`, none newer than `top`."""
    jobs = rows(wanted).order_by("-id")
    if before is not None:
        jobs = jobs.filter(id__lt=before)
    if top is not None:
        jobs = jobs.filter(id__lte=top)
    found = list(jobs[: size + 1])
    more = len(found) > size
    found = found[:size]
    return JobPage(jobs=found, next_before=str(found[-1].id) if more else "", newest=str(found[0].id) if found else "")


def rows(wanted: JobFilter) -> QuerySet[Job]:
    """The filtered jobs with what a row shows, and none of the big columns."""
    return wanted.apply(Job.objects.select_related("workflow", "version", "customer", "pool").only(*_ROW_FIELDS))


def newer_than(wanted: JobFilter, top: UUID) -> int:
    """How many jobs of this filter came after `top`, counted no further than a hundred."""
    return wanted.apply(Job.objects.filter(id__gt=top)).order_by()[:100].count()


def bounded_count(wanted: JobFilter, *, bound: int = COUNT_BOUND) -> int:
    """How many match, counted no further than `bound` + 1."""
    return wanted.apply(Job.objects.all()).order_by()[: bound + 1].count()


def export(wanted: JobFilter, *, limit: int) -> Iterator[Job]:
    """The filtered jobs newest first, read in chunks."""
    return rows(wanted).order_by("-id")[:limit].iterator(chunk_size=1000)


def by_text(text: str) -> list[Job]:
    """Jobs whose id is `text`, or starts with it (eight digits or more), at most twenty."""
    digits = text.strip().lower().replace("-", "")
    if (exact := parse_uuid(digits)) is not None:
        return list(Job.objects.filter(id=exact).only("id"))
    if not 8 <= len(digits) < 32 or any(c not in "0123456789abcdef" for c in digits):
        return []
    low, high = UUID(hex=digits.ljust(32, "0")), UUID(hex=digits.ljust(32, "f"))
    return list(Job.objects.filter(id__gte=low, id__lte=high).order_by("-id").only("id")[:20])


def detail(job_id: UUID) -> Job | None:
    """One job with its workflow, version, customer, pool, worker, attempts and outputs."""
    return (
        Job.objects.select_related("workflow", "version", "customer", "pool", "worker", "api_key", "copied_from")
        .defer("version__ui_graph", "version__lock", "version__schema", "workflow__capabilities", "worker__fingerprint", "worker__warm", "worker__usage")
        .prefetch_related(
            Prefetch("attempts", Attempt.objects.select_related("worker").defer("worker__fingerprint", "worker__usage", "worker__warm").order_by("number")),
            Prefetch("outputs", Output.objects.order_by("attempt", "index")),
        )
        .filter(id=job_id)
        .first()
    )


def usage_lines(job_id: UUID) -> list[UsageEntry]:
    """The ledger lines of a job, oldest first."""
    return list(UsageEntry.objects.filter(job_id=job_id).order_by("recorded_at", "id"))


def audit_lines(job_id: UUID) -> list[AuditEntry]:
    """What people did to a job, oldest first."""
    return list(AuditEntry.objects.filter(object_type="job", object_id=str(job_id)).order_by("seq")[:50])


def ahead(job: Job, *, bound: int = 1_000) -> int:
    """How many queued jobs of its pool are served before this one."""
    before = Q(priority__lt=job.priority) | Q(priority=job.priority, fair_tag__lt=job.fair_tag) | Q(priority=job.priority, fair_tag=job.fair_tag, id__lt=job.id)
    return Job.objects.filter(before, pool_id=job.pool_id, status=Job.Status.QUEUED).order_by()[:bound].count()


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a job's time."""

    kind: str  # wait, lost, start, load, run, upload, other
    label: str
    seconds: float
    node: str = ""


def spans(job: Job, attempts: list[Attempt], *, titles: Mapping[str, str], now: datetime, most_nodes: int = 6) -> list[Span]:
    """Where the time of a job went, in order; the parts add up to the whole."""
    end = job.finished_at or now
    total = max(0.0, (end - job.created_at).total_seconds())
    if not attempts:
        return [Span("wait", "Wait", total)] if total else []
    first, last = attempts[0], attempts[-1]
    found = [Span("wait", "Wait", _between(job.created_at, first.claimed_at, total))]
    if last is not first:
        found.append(Span("lost", "Earlier attempts", _between(first.claimed_at, last.claimed_at, total)))
    timings = last.timings if isinstance(last.timings, dict) else {}
    found.append(Span("load", "Fetch models", _seconds(timings, "models_s")))
    found.append(Span("start", "Start", _seconds(timings, "inputs_s") + _seconds(timings, "submit_s") + _seconds(timings, "queue_s")))
    found += _node_spans(last.nodes if isinstance(last.nodes, list) else [], timings, titles=titles, most=most_nodes)
    found.append(Span("upload", "Upload", _seconds(timings, "upload_s")))
    used = sum(s.seconds for s in found)
    if job.finished_at is None:
        found.append(Span("run", "Running", max(0.0, total - used)))
    elif total - used > 0.0005:
        found.append(Span("other", "Other", total - used))
    return [s for s in found if s.seconds > 0]


def _node_spans(nodes: list[Any], timings: Mapping[str, Any], *, titles: Mapping[str, str], most: int) -> list[Span]:
    ran = [n for n in nodes if isinstance(n, dict) and not n.get("cached") and _seconds(n, "run_s") > 0]
    load = [n for n in ran if "Loader" in str(n.get("class_type", ""))]
    load_s = sum(_seconds(n, "run_s") for n in load) or _seconds(timings, "load_s")
    ran = [n for n in ran if n not in load]
    found = [Span("load", "Load models", load_s)]
    if not ran:
        return [*found, Span("run", "Run", max(0.0, _seconds(timings, "run_s") - load_s))]
    shown = {id(n) for n in sorted(ran, key=lambda n: _seconds(n, "run_s"), reverse=True)[:most]}
    rest = [n for n in ran if id(n) not in shown]
    for n in ran:
        if id(n) in shown:
            node = str(n.get("node", ""))
            found.append(Span("run", titles.get(node) or str(n.get("class_type", "")) or node, _seconds(n, "run_s"), node))
    if rest:
        found.append(Span("run", f"{len(rest)} other nodes" if len(rest) > 1 else "1 other node", sum(_seconds(n, "run_s") for n in rest)))
    between = _seconds(timings, "run_s") - load_s - sum(_seconds(n, "run_s") for n in ran)
    if between > 0.0005:
        found.append(Span("run", "Between nodes", between))
    return found


def _seconds(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    return max(0.0, float(value)) if isinstance(value, int | float) and value == value else 0.0


def _between(start: datetime, end: datetime, at_most: float) -> float:
    return min(at_most, max(0.0, (end - start).total_seconds()))
