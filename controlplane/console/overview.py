"""/ops/: is anything broken and for whom, what needs someone first, what changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from billing import customers as billing_customers
from billing import queries as billing
from billing.models import Customer
from builds.models import Workflow
from controlplane.console import attention, changes, charts, emergency_words, numbers, pages, pool_rows, ranges, roles
from controlplane.kernel import loops
from controlplane.kernel.models import OutboxEntry
from fleet import forecast_alerts, forecasts, queries_capacity, queries_pools, queries_traffic
from fleet.models import Job, Pool, ScalingDecision
from fleet.queries_pools import PoolNow

SUCCESS_TARGET = 0.95
LIST_SHOWN = 7
BACKLOGS_LOOKED_AT = 5


def address(name: str, *args: str) -> str:
    """A page's address, or nothing while there is no such page."""
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""


@roles.staff
def overview(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now)
    pools = queries_pools.pools_now(now=now)
    request.halted_pools = sum(p.state == "halted" for p in pools)  # type: ignore[attr-defined]
    numbers_read = pages.part(request, lambda: measured(span))
    if untouched(numbers_read, pools):
        steps = checklist(pools)
        context: dict[str, Any] = {"steps": steps, "left": sum(not s["done"] for s in steps)}
        return pages.page(request, "console/overview.html", context, title="Overview", active="overview", fragment="console/_overview.html", now=now)
    context = read(request, span, pools, numbers_read, now)
    return pages.page(request, "console/overview.html", context, title="Overview", active="overview", span=span, fragment="console/_overview.html", now=now)


def untouched(numbers_read: Any, pools: list[PoolNow]) -> bool:
    """Whether no job was ever sent; those we send ourselves do not count."""
    if isinstance(numbers_read, pages.Failed) or numbers_read[0].steps or any(p.queue or p.busy for p in pools):
        return False
    return not Job.objects.exclude(source=Job.SMOKE).exists()


@roles.staff
def series(request: HttpRequest) -> HttpResponse:
    """series.json: the overview's charts."""
    now = timezone.now()
    span = ranges.parse(request.GET, now=now)
    return pages.series(request, drawn(span, Pool.objects.all(), events(span)))


def drawn(span: ranges.Range, pools: Any, marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    traffic, waits = measured(span)
    return pictures(traffic, waits, list(pools), marks)


def measured(span: ranges.Range) -> tuple[queries_traffic.Traffic, queries_traffic.Times]:
    step_s = span.step_s()
    return (
        queries_traffic.traffic(start=span.start, end=span.end, step_s=step_s),
        queries_traffic.times("wait", start=span.start, end=span.end, step_s=step_s),
    )


def pictures(traffic: queries_traffic.Traffic, waits: queries_traffic.Times, pools: list[Pool], marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two charts; of the pools the four that ran most. A wait target is drawn when they share it."""
    busiest = sorted(pools, key=lambda pool: -traffic.total(pool.id).jobs)
    shown = [pool for pool in busiest if traffic.total(pool.id).jobs][:4] or busiest[:1]
    targets = {pool.target_s for pool in shown}
    target_s = targets.pop() if len(targets) == 1 else None
    return [charts.traffic(traffic, events=marks), charts.waits(waits, [(p.id, p.slug) for p in shown], target_s=target_s, events=marks)]


def events(span: ranges.Range) -> list[dict[str, Any]]:
    return charts.markers(_decisions(span))


def _decisions(span: ranges.Range) -> list[ScalingDecision]:
    found = queries_pools.decisions(start=span.start, end=span.end).filter(action__in=["up", "down", "halted"])
    return list(found.defer("inputs")[:40])


def read(request: HttpRequest, span: ranges.Range, pools: list[PoolNow], numbers_read: Any, now: datetime) -> dict[str, Any]:
    """Everything the page shows; a part that cannot be read is marked, the rest stands."""
    decisions = pages.part(request, lambda: _decisions(span))
    needs = pages.part(request, lambda: needed(pools, now, money=roles.sees_money(request)))
    failed = getattr(numbers_read, "failed", False)
    busy, ready, starting, live = (sum(getattr(p, name) for p in pools) for name in ("busy", "ready", "starting", "live"))
    oldest = max((p.oldest_s for p in pools if p.oldest_s is not None), default=None)
    failures = pages.part(request, lambda: queries_traffic.failures(start=span.start, end=span.end, most=5))
    marks = [] if isinstance(decisions, pages.Failed) else charts.markers(decisions)
    context: dict[str, Any] = {
        "needs": needs,
        "headline": "Not known: part of the overview did not load" if isinstance(needs, pages.Failed) else attention.headline(needs),
        "decisions_failed": isinstance(decisions, pages.Failed),
        "changes": pages.part(request, lambda: changes.recent([] if isinstance(decisions, pages.Failed) else decisions)),
        "failures": failures,
        "last_failure": None if needs else pages.part(request, lambda: last_failure(failures)),
        "marks": [mark | {"at": datetime.fromtimestamp(mark["t"], UTC)} for mark in marks[:5]],
        "numbers_failed": numbers_read if failed else None,
        "jobs_url": address("ops:jobs"),
        "failed_url": f"{address('ops:jobs')}?status=failed" if address("ops:jobs") else "",
        "fleet_url": address("ops:fleet"),
        "audit_url": address("ops:audit"),
        "fleet_cost": sum(p.cost_per_hour_microusd for p in pools),
        "cost_detail": f"{numbers.plural(live, 'worker')} now",
        "busy_text": f"{numbers.count(busy)} of {numbers.count(ready)}",
        "busy_detail": f"{numbers.pct(busy / ready)}, {numbers.count(starting)} starting" if ready else f"none ready, {numbers.count(starting)} starting",
        "waiting": sum(p.queue for p in pools),
        "oldest_detail": f"the oldest for {numbers.dur(oldest)}" if oldest is not None else "nobody waits",
        "live_workers": live,
    }
    if not failed:
        traffic, waits = numbers_read
        context |= figures(traffic, waits, span, pools, marks)
        if not isinstance(needs, pages.Failed):  # the charts stand beside the list and grow with it
            more = 75 * max(0, min(len(needs), LIST_SHOWN) - 4)
            context["chart_traffic"]["height"] += more * 3 // 5
            context["chart_waits"]["height"] += more * 2 // 5
    return context


def figures(
    traffic: queries_traffic.Traffic, waits: queries_traffic.Times, span: ranges.Range, pools: list[PoolNow], marks: list[dict[str, Any]]
) -> dict[str, Any]:
    """Tiles, charts and pool rows."""
    total = traffic.total()
    rows = pool_rows.rows(pools, traffic, waits)
    worst = max((r for r in rows if r.wait_p95 is not None), key=lambda r: r.wait_p95 or 0.0, default=None)
    jobs = [a + b + c for a, b, c in zip(traffic.line("succeeded"), traffic.line("failed"), traffic.line("expired"), strict=True)]
    drawn_charts = pictures(traffic, waits, [p.pool for p in pools], marks)
    low = total.success is not None and total.success < SUCCESS_TARGET
    slowest = f"the slowest is {worst.now.pool.slug} with {numbers.dur(worst.wait_p95)}" if worst else ""
    return {
        "total": total,
        "success_kind": "bad" if low else "",
        "success_detail": f"target {numbers.pct(SUCCESS_TARGET)}, {numbers.count(total.bad)} failed",
        "worst_p95": worst.wait_p95 if worst else None,
        "wait_kind": "bad" if worst and worst.slow else "",
        "wait_detail": f"{worst.now.pool.slug}, target {numbers.dur(worst.now.pool.target_s)}" if worst else "no job started in this range",
        "throughput": _throughput(total.jobs, span.seconds),
        "jobs_detail": f"{numbers.plural(total.jobs, 'job')} ended",
        "jobs_spark": pool_rows.thinned(jobs),
        "ours_detail": f"{numbers.count(total.failed_ours)} of them our fault",
        "margin_detail": f"margin {numbers.pct(total.margin)}" if total.margin is not None else "nothing earned yet",
        "chart_traffic": drawn_charts[0],
        "chart_waits": drawn_charts[1],
        "legend": [("Jobs/min", "--c1", "line"), ("Failed/min", "--bad", "area")]
        + [(line["label"], line["color"], "dash" if line.get("dash") else "line") for line in drawn_charts[1]["series"]],
        "summary_traffic": f"Jobs a minute: {numbers.count(total.jobs)} jobs ended in this range, {numbers.count(total.bad)} of them failed.",
        "summary_waits": f"Queue wait p95 by pool; {slowest}." if worst else "No job waited in this range.",
        "rows": rows,
        "waits_partial": waits.partial,
    }


def _throughput(jobs: int, seconds: float) -> tuple[str, str]:
    """Jobs a minute; where that would round to nothing, an hour."""
    per_minute = jobs / max(1.0, seconds / 60)
    if jobs and per_minute < 0.5:
        return numbers.count(per_minute * 60), "jobs/hour"
    return numbers.count(per_minute), "jobs/min"


def last_failure(failures: Any) -> datetime | None:
    """When a job last failed: among the causes of the range, or before it."""
    known = [] if isinstance(failures, pages.Failed) else [f.last_at for f in failures[0] if f.last_at is not None]
    return max(known) if known else queries_traffic.last_failure_at()


def needed(pools: list[PoolNow], now: datetime, *, money: bool) -> list[attention.Need]:
    """Real states that want a person, most urgent first."""
    failing = queries_traffic.failing_workflows(start=now - timedelta(hours=1), end=now)
    dead = OutboxEntry.objects.filter(topic__startswith="webhook", state=OutboxEntry.State.DEAD, ended_at__gte=now - timedelta(hours=24)).count()
    near = [(c.slug, c.name, billing.standing(c, now=now).share or 0.0) for c in billing.near_limit(now=now)]
    longest = sorted((p for p in pools if p.queue > p.ready), key=lambda p: -p.queue)[:BACKLOGS_LOOKED_AT]
    return attention.ordered(
        [
            *attention.of_pools(pools, href=address("ops:pool", "POOL"), now=now),
            *emergency_words.of_backlogs(emergency_words.backlogs(longest, now=now), href=address("ops:pool_emergency", "POOL")),
            *attention.of_measures(pools, href=address("ops:pool", "POOL"), now=now),
            *attention.of_forecasts([(p, alert.shown(money_shown=money)) for p, alert in full_ahead(pools, now)], href=address("ops:pool", "POOL")),
            *attention.of_workflows(failing, href=address("ops:workflow", "WORKFLOW")),
            *attention.of_loops(loops.ages(now), href=address("admin:kernel_looplease_changelist")),
            *attention.of_webhooks(dead, href=address("admin:kernel_outboxentry_changelist")),
            *attention.of_customers(near, href=address("ops:customer", "CUSTOMER")),
        ]
    )


def full_ahead(pools: list[PoolNow], now: datetime) -> list[tuple[PoolNow, forecast_alerts.Alert]]:
    """Pools whose maximum the middle of their forecast reaches, the next time of each. A forecast that was often wrong says nothing here."""
    ahead = queries_capacity.forecasts((p.forecast_id for p in pools), now=now)
    found = []
    for p in pools:
        row = ahead[p.pool.id].row if p.pool.id in ahead else None
        alerts = forecast_alerts.of(p.pool, row, now=now) if row is not None and now - row.made_at <= forecasts.STALE else []
        found += [(p, alert) for alert in alerts if alert.kind == "maximum"][:1]
    return found


def checklist(pools: list[PoolNow]) -> list[dict[str, Any]]:
    """The four steps of a fresh installation."""
    workflows, customers = Workflow.objects.exists(), Customer.objects.exclude(slug=billing_customers.HOUSE).exists()
    first = Workflow.objects.order_by("slug").values_list("slug", flat=True).first() or ""
    run = address("ops:workflow_api", first) if first else address("ops:workflows")
    plan = [
        (bool(pools), "Add a pool", "Workers of one kind behind one queue. The scaler starts and stops them.", address("ops:pool_new")),
        (workflows, "Upload a workflow", "A ComfyUI graph in API format becomes an endpoint with typed inputs.", address("ops:workflow_import")),
        (customers, "Create a customer", "A customer has a plan and API keys. A key is shown once.", address("ops:customer_new")),
        (False, "Send the first job", "Run it from the workflow's form. Released, it can be called with the customer's key.", run),
    ]
    next_step = next(title for done, title, _, _ in plan if not done)
    return [{"done": done, "title": title, "text": text, "href": href, "next": title == next_step} for done, title, text, href in plan]
