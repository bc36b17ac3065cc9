"""The list of jobs: newest first, filtered by the address, paged by cursor, exported as CSV; new jobs are announced, never pushed in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from billing.models import Customer
from builds.models import Workflow
from controlplane.console import pages, ranges, roles
from controlplane.kernel import money
from controlplane.kernel.ids import parse_uuid
from fleet import queries_jobs
from fleet.models import Job, Pool
from fleet.queries_jobs import JobFilter

EXPORT_LIMIT = 50_000
FAILURE_WORDS = {
    "customer_input": "Customer input",
    "customer_cancel": "Canceled by customer",
    "workflow": "Workflow",
    "quality": "Quality gate",
    "platform": "Platform",
    "capacity": "Capacity",
    "external": "External service",
}
STATUS_WORDS = (
    ("queued", "Waiting"),
    ("running", "Running"),
    ("succeeded", "Succeeded"),
    ("failed", "Failed"),
    ("canceled", "Canceled"),
    ("expired", "Expired"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A job as the table shows it."""

    job: Job
    short: str
    wait_s: float | None
    run_s: float | None
    note: str


def row(job: Job, *, now: datetime) -> Row:
    """What one line says. Waiting and running jobs count up to now."""
    run = None
    if job.status == Job.Status.QUEUED:
        wait = now - job.queued_at
    elif job.started_at is None:
        wait = (job.finished_at or now) - job.queued_at
    else:
        wait = job.started_at - min(job.queued_at, job.started_at)
        run = max(0.0, ((job.finished_at or now) - job.started_at).total_seconds())
    return Row(job=job, short=str(job.id)[:18], wait_s=max(0.0, wait.total_seconds()), run_s=run, note=_note(job))


def _note(job: Job) -> str:
    if job.status == Job.Status.FAILED:
        return str((job.error or {}).get("code", "")) or FAILURE_WORDS.get(job.failure_class, "")
    if job.status == Job.Status.RUNNING:
        return "cancel asked" if job.cancel_asked_at else f"{job.progress:.0%}"
    if job.source == "cache":
        return "from result cache"
    return f"attempt {job.attempt} of {job.max_attempts}" if job.attempt > 1 else ""


def wanted(request: HttpRequest, span: ranges.Range, *, workflow: str = "") -> JobFilter:
    """The filter in the address."""
    given = {name: request.GET.get(name, "")[:80].replace("\0", "") for name in JobFilter.FIELDS}
    if workflow:
        given["workflow"] = workflow
    return JobFilter(**given, since=span.start, until=None if span.ends_now else span.end)


@roles.staff
@require_GET
def listing(request: HttpRequest) -> HttpResponse:
    """The page, or straight to a job when the search names one."""
    text = request.GET.get("q", "").strip()[:80]
    if text:
        found = queries_jobs.by_text(text)
        if len(found) == 1:
            return redirect("ops:job", job_id=found[0].id)
        if found:
            return _render_page(request, search=text, only=[job.id for job in found])
        messages.warning(request, f"No job has the id “{text}”. Give a whole id, or its first eight digits or more.")
    return _render_page(request)


def _render_page(request: HttpRequest, *, search: str = "", only: list[Any] | None = None) -> HttpResponse:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now, default="7d")
    chosen = wanted(request, span)
    context = list_context(request, span=span, chosen=chosen, now=now)
    if only is not None:
        jobs = list(queries_jobs.rows(JobFilter()).filter(id__in=only).order_by("-id"))
        context.update(rows=[row(job, now=now) for job in jobs], page=_Pager(shown=len(jobs)), rows_url="")
    if not is_fragment(request):
        context.update(filter_choices(), headline=_headline(_active_counts()), search=search, statuses=status_chips(chosen, span), search_text=search)
    return pages.page(
        request, "console/jobs.html", context, title="Jobs", active="jobs", span=span, fragment="console/jobs_rows.html",
        csv_href=f"{reverse('ops:jobs_csv')}?{query(chosen, span)}", now=now,
    )  # fmt: skip


def is_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for the live part alone."""
    return request.headers.get("HX-Request") == "true"


def filter_choices(*, workflow: bool = True) -> dict[str, Any]:
    """What the filter's menus offer."""
    return {
        "workflows": [("", "All workflows"), *((w, w) for w in Workflow.objects.order_by("slug").values_list("slug", flat=True)[:300])] if workflow else [],
        "customers": [("", "All customers"), *Customer.objects.order_by("name").values_list("slug", "name")[:300]],
        "pools": [("", "All pools"), *((p, p) for p in Pool.objects.order_by("slug").values_list("slug", flat=True)[:100])],
        "failures": [("", "Any failure"), *FAILURE_WORDS.items()],
    }


@dataclass(frozen=True, slots=True)
class _Pager:
    shown: int
    next: str = ""
    first: str = ""


def list_context(request: HttpRequest, *, span: ranges.Range, chosen: JobFilter, now: datetime) -> dict[str, Any]:
    """Rows and their paging; shared by the jobs page, a workflow's jobs and the live fragment."""
    before, top = parse_uuid(request.GET.get("cursor")), parse_uuid(request.GET.get("top"))
    page = queries_jobs.page(chosen, before=before, top=top)
    base = query(chosen, span)
    top_now = str(top) if top else "" if before else page.newest
    fresh = queries_jobs.newer_than(chosen, top) if top and not before else 0
    pinned = {"top": top_now, "cursor": str(before) if before else ""}
    context: dict[str, Any] = {
        "now": now,
        "rows": [row(job, now=now) for job in page.jobs],
        "page": _Pager(
            shown=len(page.jobs),
            next=f"?{base}&{urlencode({'cursor': page.next_before})}" if page.next_before else "",
            first=f"?{base}" if before else "",
        ),
        "filter": chosen,
        "fresh": fresh,
        "fresh_text": "100 or more" if fresh >= 100 else str(fresh),
        "fresh_url": f"?{base}",
        "rows_url": f"{request.path}?{base}&{urlencode({k: v for k, v in pinned.items() if v})}",
        "clear_url": f"?{span.query()}",
        "terms": [f"{_TERM_WORDS[name]} is {_worded(name, value)}" for name, value in chosen.active.items()],
        "range_words": span.label[:1].lower() + span.label[1:],
    }
    if not page.jobs:
        outside = queries_jobs.bounded_count(JobFilter())
        context["outside"] = outside
        context["outside_text"] = f"over {queries_jobs.COUNT_BOUND:,}" if outside > queries_jobs.COUNT_BOUND else f"{outside:,}"
    return context


_TERM_WORDS = {"status": "status", "workflow": "workflow", "customer": "customer", "pool": "pool", "failure": "failure"}


def _worded(name: str, value: str) -> str:
    if name == "status":
        return dict(STATUS_WORDS).get(value, value).lower()
    return FAILURE_WORDS.get(value, value).lower() if name == "failure" else value


def query(chosen: JobFilter, span: ranges.Range) -> str:
    """Filter and range as a query string."""
    terms = urlencode(chosen.active)
    return f"{terms}&{span.query()}" if terms else span.query()


def _active_counts() -> dict[str, int]:
    return {status: Job.objects.filter(status=status).order_by()[:1001].count() for status in ("running", "queued")}


def _headline(active: dict[str, int]) -> str:
    said = [(f"{n:,}" if n <= 1000 else "over 1,000", word) for n, word in ((active["running"], "running"), (active["queued"], "waiting")) if n]
    if not said:
        return "No job is waiting or running"
    (number, word), rest = said[0], said[1:]
    return ", ".join([f"{number[:1].upper()}{number[1:]} job{'' if number == '1' else 's'} {word}", *(f"{n} {w}" for n, w in rest)])


def status_chips(chosen: JobFilter, span: ranges.Range) -> list[tuple[str, str, bool]]:
    """One link for each status, keeping the rest of the filter."""
    rest = chosen.without("status")
    base = query(rest, span)
    return [
        ("All", f"?{base}", not chosen.status),
        *((word, f"?{urlencode({'status': status})}&{base}", chosen.status == status) for status, word in STATUS_WORDS),
    ]


CSV_HEAD = ["id", "status", "workflow", "version", "customer", "pool", "source", "priority", "attempts", "created_at", "started_at", "finished_at"]
CSV_HEAD += ["wait_s", "run_s", "billable_gpu_s", "failure_class", "error_code"]
CSV_MONEY = ["price_usd", "cost_usd"]


@roles.staff
@require_GET
def export(request: HttpRequest) -> HttpResponseBase:
    """Every job of the filter as CSV; refuses what would be too long to stream."""
    now = timezone.now()
    span = ranges.parse(request.GET, now=now, default="7d")
    chosen = wanted(request, span)
    if queries_jobs.bounded_count(chosen, bound=EXPORT_LIMIT) > EXPORT_LIMIT:
        messages.warning(request, f"This filter has more than {EXPORT_LIMIT:,} jobs. Choose a shorter range or more filters, then export again.")
        return redirect(f"{reverse('ops:jobs')}?{query(chosen, span)}")
    with_money = roles.sees_money(request)
    return pages.csv_file(f"jobs-{now:%Y%m%dT%H%MZ}", CSV_HEAD + (CSV_MONEY if with_money else []), _csv_lines(chosen, with_money=with_money, now=now))


def _csv_lines(chosen: JobFilter, *, with_money: bool, now: datetime) -> Iterator[list[Any]]:
    for job in queries_jobs.export(chosen, limit=EXPORT_LIMIT):
        shown = row(job, now=now)
        line = [
            job.id,
            job.status,
            job.workflow.slug,
            job.version.number,
            job.customer.slug,
            job.pool.slug,
            job.source,
            job.get_priority_display(),
            job.attempt,
        ]
        line += [
            job.created_at,
            job.started_at,
            job.finished_at,
            shown.wait_s,
            shown.run_s,
            job.billable_s,
            job.failure_class,
            (job.error or {}).get("code", ""),
        ]
        if with_money:
            line += ["" if job.price_microusd is None else money.to_usd(job.price_microusd), money.to_usd(job.cost_microusd)]
        yield line


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
