"""Pages of customers: who needs something, and one customer with plan, spend, keys and failures."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone

from billing import queries as billing
from billing.customers import HOUSE
from billing.models import Customer, UsageEntry
from controlplane.console import charts, customer_rows, numbers, pages, pool_rows, ranges, roles
from controlplane.console.customer_rows import CustomerRow
from controlplane.console.overview import address
from controlplane.kernel import money
from fleet import queries_traffic
from fleet.queries_traffic import Counts, Failure

DEFAULT_RANGE = "28d"
MOST = 2000
FAULTS = {
    "platform": ("Ours", "bad", "gpu"),
    "capacity": ("Ours", "bad", "gpu"),
    "workflow": ("Workflow", "warn", "flow"),
    "quality": ("Workflow", "warn", "eye"),
    "external": ("External", "", "link"),
    "customer_input": ("Theirs", "", "user"),
    "customer_cancel": ("Theirs", "", "user"),
}


@roles.staff
def customers(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now, default=DEFAULT_RANGE)
    text, chosen = request.GET.get("q", "").strip()[:100], request.GET.get("show", "")
    everyone = read_rows(span, text="", now=now)
    if all(r.customer.slug == HOUSE for r in everyone):
        everyone = []  # only we ourselves: that is a fresh installation
    found = [r for r in everyone if matches(r, text, chosen)]
    rows = customer_rows.ordered(found, request.GET.get("sort", ""))
    start = offset(request)
    cut = pages.cut(request, rows[start : start + pages.PAGE_SIZE + 1], lambda _: [start + pages.PAGE_SIZE])
    totals = total(everyone)
    context = {
        "rows": cut.rows,
        "page": cut,
        "everyone": len(everyone),
        "found": len(found),
        "outside": len(everyone) - len(found),
        "text": text,
        "show": chosen,
        "chips": chips(request, everyone, chosen),
        "headline": customer_rows.headline(everyone),
        "active": sum(not r.suspended for r in everyone),
        "total": totals,
        "near": sum(customer_rows.FILTERS["near"](r) for r in everyone),
        "jobs_detail": numbers.plural(totals.jobs, "job"),
        "may_account": roles.may(request, "account"),
        "query": span.query(),
    }
    shell: dict[str, Any] = {"title": "Customers", "active": "customers", "span": span, "fragment": "console/_customers.html", "now": now}
    return pages.page(request, "console/customers.html", context, csv_href=f"{reverse('ops:customers_csv')}?{request.GET.urlencode()}", **shell)


def read_rows(span: ranges.Range, *, text: str, now: datetime) -> list[CustomerRow]:
    """Every customer with account and numbers of the range: three queries."""
    step_s = span.step_s(24)
    traffic = queries_traffic.traffic(start=span.start, end=span.end, step_s=step_s, key="customer_id")
    runs = queries_traffic.times("run", start=span.start, end=span.end, step_s=step_s, key="customer_id")
    return [
        CustomerRow(
            customer=c,
            standing=billing.standing(c, now=now),
            counts=traffic.total(c.id),
            run_p95=runs.of(c.id).quantile(0.95),
            spark=pool_rows.thinned(traffic.line("succeeded", c.id)) if traffic.total(c.id).jobs else [],
        )
        for c in billing.customers(text=text)[:MOST]
    ]


def matches(row: CustomerRow, text: str, chosen: str) -> bool:
    """Whether the row passes the filters of the address."""
    wanted = text.lower()
    if wanted and wanted not in row.customer.name.lower() and wanted not in row.customer.slug:
        return False
    return customer_rows.FILTERS[chosen](row) if chosen in customer_rows.FILTERS else True


def offset(request: HttpRequest) -> int:
    after = pages.cursor(request)
    return after[0] if after and isinstance(after[0], int) and 0 < after[0] < MOST else 0


def total(rows: list[CustomerRow]) -> Counts:
    found = Counts()
    for r in rows:
        found.merge(r.counts)
    return found


def chips(request: HttpRequest, rows: list[CustomerRow], chosen: str) -> list[dict[str, Any]]:
    query = request.GET.copy()
    query.pop("cursor", None)
    found = []
    for key, label, icon in (("", "All", ""), ("near", "Near limit", "alert"), ("failing", "Failing", "xoct"), ("suspended", "Suspended", "pause")):
        query["show"] = key
        if not key:
            query.pop("show")
        n = len(rows) if not key else sum(customer_rows.FILTERS[key](r) for r in rows)
        found.append({"label": label, "href": f"?{query.urlencode()}", "on": key == chosen, "count": n, "icon": icon})
    return found


@roles.staff
def customers_csv(request: HttpRequest) -> HttpResponseBase:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now, default=DEFAULT_RANGE)
    text, chosen = request.GET.get("q", "").strip()[:100], request.GET.get("show", "")
    rows = customer_rows.ordered([r for r in read_rows(span, text="", now=now) if matches(r, text, chosen)], request.GET.get("sort", ""))
    header = ["customer", "name", "plan", "status", "created_at", "jobs", "succeeded", "failed", "run_p95_s", "month_limit_used_share"]
    shows_money = roles.sees_money(request)

    def line(r: CustomerRow) -> list[Any]:
        c = r.customer
        row: list[Any] = [c.slug, c.name, c.plan_revision.plan.name, c.status, c.created_at, r.counts.jobs, r.counts.succeeded, r.counts.bad, r.run_p95, r.used]
        return row + ([money.to_usd(r.counts.price_microusd), money.to_usd(r.counts.cost_microusd)] if shows_money else [])

    return pages.csv_file("customers", header + (["revenue_usd", "cost_usd"] if shows_money else []), (line(r) for r in rows))


# -- one customer --------------------------------------------------------------------------------


@roles.staff
def customer(request: HttpRequest, slug: str) -> HttpResponse:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now, default=DEFAULT_RANGE)
    who = one(slug)
    standing = billing.standing(who, now=now)
    plan = who.plan_revision
    keys = billing.keys(who)
    context: dict[str, Any] = {
        "who": who,
        "standing": standing,
        "measured": pages.part(request, lambda: measured(who, span)),
        "failures": pages.part(request, lambda: failed(who, span)),
        "keys": [{"key": k, "state": billing.key_state(k, now=now)} for k in keys],
        "expiring": billing.expiring(keys, now=now),
        "limits": [
            ("Plan", f"{plan.plan.name}, revision {plan.number}"),
            ("Requests a minute", numbers.count(plan.requests_per_minute)),
            ("Queued and running together", f"{numbers.count(standing.active_jobs)} of {numbers.count(plan.max_active_jobs)}"),
            ("Highest priority", plan.max_priority),
            ("Share of the queue", numbers.count(plan.weight)),
        ],
        "prices": [
            ("Price of a job", f"{numbers.usd(round(plan.price_per_job_microusd))} per job"),
            ("Price of GPU time", f"{numbers.usd(round(plan.price_per_gpu_second_microusd))} per second"),
            ("Monthly limit", f"{numbers.usd(plan.monthly_limit_microusd)} a month"),
        ],
        "used_kind": "bad" if (standing.share or 0) >= 0.99 else "warn" if (standing.share or 0) >= billing.NEAR else "",
        "may_account": roles.may(request, "account"),
        "jobs_url": f"{address('ops:jobs')}?customer={slug}" if address("ops:jobs") else "",
        "spend_detail": f"of {numbers.usd(standing.limit_microusd)}, {numbers.usd(standing.reserved_microusd)} of it reserved",
    }
    crumbs = [("Customers", reverse("ops:customers")), (who.name, "")]
    csv_href = f"{reverse('ops:usage_csv', args=[slug])}?{span.query()}" if roles.sees_money(request) else ""
    shell: dict[str, Any] = {"title": who.name, "active": "customers", "crumbs": crumbs, "span": span, "fragment": "console/_customer.html", "now": now}
    return pages.page(request, "console/customer.html", context, csv_href=csv_href, **shell)


def one(slug: str) -> Customer:
    found = billing.customer(slug)
    if found is None:
        raise Http404(f"There is no customer called {slug}.")
    return found


@roles.staff
def customer_series(request: HttpRequest, slug: str) -> HttpResponse:
    """series.json of the customer: run times, and money for those who may see it."""
    now = timezone.now()
    found = measured(one(slug), ranges.parse(request.GET, now=now, default=DEFAULT_RANGE))
    return pages.series(request, [found["runs"], *([found["money"]] if roles.sees_money(request) else [])])


def measured(who: Customer, span: ranges.Range) -> dict[str, Any]:
    """Charts and tile figures of the range."""
    step_s = max(span.step_s(56), 600)
    if span.span >= timedelta(days=14):
        step_s = 86400
    traffic = queries_traffic.traffic(start=span.start, end=span.end, step_s=step_s, key="version__workflow__slug", customer_id=who.id)
    runs = queries_traffic.times("run", start=span.start, end=span.end, step_s=step_s, customer_id=who.id)
    counts, p50, p95 = traffic.total(), runs.of().quantile(0.5), runs.of().quantile(0.95)
    by_workflow = sorted(((key, traffic.total(key)) for key in {k for _, k in traffic.steps}), key=lambda kv: -kv[1].jobs)
    top = max((c.jobs for _, c in by_workflow), default=0) or 1
    return {
        "counts": counts,
        "p50": p50,
        "p95": p95,
        "runs": charts.quantiles(runs, key="runs", height=190),
        "money": charts.money(traffic),
        "workflows": [(slug, c.jobs / top, numbers.plural(c.jobs, "job"), "", workflow_url(slug)) for slug, c in by_workflow[:6]],
        "success_kind": "bad" if counts.success is not None and counts.success < customer_rows.SUCCESS_TARGET else "",
        "failed_detail": f"{numbers.count(counts.bad)} failed, {numbers.count(counts.failed_ours)} our fault",
        "p50_detail": f"p50 {numbers.dur(p50)}",
        "margin_detail": f"cost {numbers.usd(counts.cost_microusd)}",
        "runs_summary": f"Run time p50 and p95 of succeeded jobs. Over the range p95 is {numbers.dur(p95)}.",
        "money_summary": f"Revenue {numbers.usd(counts.price_microusd)} and our cost {numbers.usd(counts.cost_microusd)} over the range.",
        "partial": runs.partial,
    }


def workflow_url(slug: str) -> str:
    return address("ops:workflow", slug)


def failed(who: Customer, span: ranges.Range) -> dict[str, Any]:
    """Failures by cause with whose fault they are."""
    found, cut = queries_traffic.failures(start=span.start, end=span.end, customer_id=who.id, most=20)

    def fault(f: Failure) -> tuple[str, str, str]:
        return FAULTS.get(f.failure_class, ("Unknown", "", "dot"))

    return {"rows": [{"f": f, "fault": fault(f)} for f in found], "partial": cut, "total": sum(f.jobs for f in found)}


@roles.needs("account", "The ledger")
def usage_csv(request: HttpRequest, slug: str) -> HttpResponseBase:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now, default=DEFAULT_RANGE)
    header = ["booked_at", "occurred_at", "job", "meter", "quantity", "unit_price_usd", "amount_usd", "workflow", "version", "outcome", "failure_class"]
    lines = billing.ledger(one(slug), start=span.start, end=span.end)[:50_000]

    def line(e: UsageEntry) -> list[Any]:
        what = [e.booked_at, e.occurred_at, str(e.job_id), e.meter, e.quantity]
        return [*what, e.unit_price_microusd / money.MICRO, money.to_usd(e.amount_microusd), e.workflow_slug, e.version_number, e.outcome, e.failure_class]

    return pages.csv_file(f"{slug}-usage", header, (line(e) for e in lines.iterator(chunk_size=1000)))
