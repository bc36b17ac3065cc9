"""The planner: what growth needs, what other terms would have done, what sizing saved, and batches told beforehand.

Each tab is an address that holds everything it was asked, so a link shows the same again; only announcing and canceling change anything.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone

from builds.models import Workflow
from controlplane.console import numbers, pages, planner_form, roles
from controlplane.console.planner_form import Typed
from controlplane.kernel.errors import WorkflowError
from fleet import announcing, growing, quotes, savings
from fleet.models import Pool, SavingsDay
from fleet.planning import business_days, growth, presets, replay
from fleet.planning.growth import Plan
from fleet.sizing import policies

TABS = (("growth", "Growth"), ("whatif", "What if"), ("savings", "Savings"), ("batches", "Batches and events"))
MONTH = timedelta(days=30.4375)
COLOURS = ("--c1", "--c4", "--c3")
SAVINGS_LINES: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("This sizing", "--c1", "replayed", ()),
    ("Seed's rule", "--c3", "seed", (5, 4)),
    ("Maximum all day", "--c6", "static", (2, 3)),
    ("Really spent", "--c2", "actual", ()),
)
STRETCHES = ((24, "Last 24 hours"), (72, "Last 3 days"), (168, "Last 7 days"))


@roles.staff
def page(request: HttpRequest) -> HttpResponse:
    """One tab for one pool."""
    now = timezone.now()
    pools = list(Pool.objects.order_by("slug"))
    request.halted_pools = sum(p.halted_at is not None for p in pools)  # type: ignore[attr-defined]
    pool = next((p for p in pools if p.slug == request.GET.get("pool")), pools[0] if pools else None)
    chosen = request.GET.get("tab", "")
    tab = chosen if chosen in dict(TABS) else "growth"
    keep = {"pool": pool.slug} if pool else {}
    context: dict[str, Any] = {
        "pool": pool,
        "pools": [(p.slug, p.slug) for p in pools],
        "tab": tab,
        "tabs": [(label, f"?{urlencode({'tab': key} | keep)}", key == tab) for key, label in TABS],
        "may_fleet": roles.may(request, "fleet"),
        "title_said": "No pools yet",
    }
    csv_href = ""
    if tab == "growth":
        context |= _growth(request, pool, now)
    elif pool is not None:
        context |= {"whatif": _whatif, "savings": _savings, "batches": _batches}[tab](request, pool, now)
        csv_href = f"{reverse('ops:planner_savings_csv')}?{urlencode({**keep, **_days_query(request)})}" if tab == "savings" else ""
    crumbs = [("Fleet", reverse("ops:fleet")), ("Planner", "")]
    return pages.page(request, "console/planner.html", context, title="Planner", active="fleet", crumbs=crumbs, csv_href=csv_href, now=now)


# -- growth --------------------------------------------------------------------------------------


def _growth(request: HttpRequest, pool: Pool | None, now: datetime) -> dict[str, Any]:
    named = presets.PRESETS.get(request.GET.get("case", ""))
    preset = named or (growing.of_pool(pool, now=now) if pool is not None else presets.SEED_MONTH_6)
    typed = Typed(request.GET)
    case, options = planner_form.growth(typed, preset)
    found: Plan | None = None
    if not typed.errors:
        try:
            found = growth.plan(case, options, simulate=business_days.waits)
        except WorkflowError as refusal:
            typed.errors[str(refusal.details.get("field", "case"))] = f"{refusal.message} {refusal.suggestion}"
    shown: dict[str, Any] = {
        "preset": preset,
        "presets": [(p.name, p.title) for p in presets.PRESETS.values()],
        "named": named is not None,
        "form": planner_form.growth_fields(case, options, typed),
        "errors": typed.errors,
        "plan": found,
        "title_said": "These figures do not go together",
    }
    if found is not None:
        months = "month" if case.months == 1 else "months"
        shown["title_said"] = _answer(found) if found.load_at_once > 0 else "Nothing has run here yet"
        shown["chart"] = _growth_chart(found, now)
        shown["chart_summary"] = (
            f"Load is {numbers.pct(found.load_at_once)} of today's workers at once and {numbers.pct(found.load_after)} after {case.months} {months}."
        )
        shown["legend"] = [(s["label"], s["color"], "dash" if s.get("dash") else "line") for s in shown["chart"]["series"]]
        shown["rows"] = [_growth_row(result, case) for result in found.results]
        shown["evens"] = [
            f"{e.cheaper} has cost less in all than {e.than} "
            + ("in no month asked for." if e.month is None else "from the start." if e.month == 0 else f"from month {e.month} on.")
            for e in found.break_even
        ]
    return shown


def _answer(found: Plan) -> str:
    """The planner's headline: whether anything has to be bought at all, and what then costs least."""
    months = numbers.plural(found.case.months, "month")
    if found.case.peak * (1 + found.case.new_customers) * (1 + found.case.monthly) ** found.case.months <= 1:
        return f"Today's workers hold even the peaks for {months}"
    return f"{found.best} costs least over {months}"


def _growth_row(result: growth.Result, case: growth.Case) -> dict[str, Any]:
    def lasts(full: float | None) -> str:
        return "no end in sight" if full is None else "not a day" if full == 0 else "days" if full < 0.1 else f"{full:.1f} months"

    last = result.months[-1]
    return {
        "r": result,
        "share": result.capacity / case.workers,
        "peak": lasts(result.peak_full),
        "average": lasts(result.average_full),
        "last": last,
        "first": result.months[0],
        "waits": result.waits,
        "later": result.waits_later,
        "slow": result.waits is not None and result.waits.within < case.target_share,
        "slow_later": result.waits_later is not None and result.waits_later.within < case.target_share,
    }


def _growth_chart(plan: Plan, now: datetime) -> dict[str, Any]:
    """Load against capacity month by month, in percent of today's workers."""
    n = len(plan.results[0].months)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    of = 100 / plan.case.workers
    series: list[dict[str, Any]] = [
        {"label": "Average load", "color": "--c2", "fill": 0.08, "data": [round(m.load * of, 1) for m in plan.results[0].months]},
        {"label": "Peak load", "color": "--c2", "dash": [5, 4], "data": [round(m.peak * of, 1) for m in plan.results[0].months]},
    ]
    for result, color in zip(plan.results, COLOURS * 4, strict=False):
        series.append({"label": result.option.name, "color": color, "type": "step", "data": [round(m.capacity * of, 1) for m in result.months]})
    x = [int((start + MONTH * month).timestamp()) for month in range(n)]
    spec: dict[str, Any] = {"key": "growth", "x": x, "height": 260, "fmt": "pct", "ysize": 58, "series": series}
    return spec | {"target": {"v": 100, "label": "today's workers", "color": "--text-3"}}


# -- what if -------------------------------------------------------------------------------------


def _whatif(request: HttpRequest, pool: Pool, now: datetime) -> dict[str, Any]:
    typed = Typed(request.GET)
    changes, hours = planner_form.terms(typed, pool)
    found: Any = None
    asked = "try" in request.GET
    if asked and not typed.errors:
        try:
            found = replay.of_pool(pool, changes, hours=hours, now=now)
        except WorkflowError as refusal:
            typed.errors[planner_form.FIELD_OF.get(str(refusal.details.get("field")), "knobs")] = f"{refusal.message} {refusal.suggestion}"
    shows_money = roles.sees_money(request)
    return {
        "form": planner_form.terms_fields(pool, typed),
        "errors": typed.errors,
        "policies": [(name, name) for name in policies.POLICIES],
        "stretches": STRETCHES,
        "replay": found,
        "replay_said": found.said(money_shown=shows_money) if found else "",
        "replay_rows": _replay_rows(found, shows_money) if found else [],
        "title_said": found.said(money_shown=shows_money).split(";")[0].rstrip(".") if found else f"What if {pool.slug} were sized otherwise?",
    }


def _replay_rows(found: Any, shows_money: bool) -> list[tuple[str, str, str, str]]:
    """(what, now, then, difference)."""
    one, other = found.before, found.after
    rows = [("Cost", numbers.usd(one.cost_microusd), numbers.usd(other.cost_microusd), _signed_usd(-found.saved_microusd))] if shows_money else []

    def line(label: str, a: float, b: float, say: Any) -> None:
        rows.append((label, say(a), say(b), "the same" if say(a) == say(b) else f"{'+' if b > a else '−'}{say(abs(b - a))}"))

    line("Worker hours", one.gpu_hours, other.gpu_hours, lambda v: f"{v:,.1f}")
    rows.append((f"Within {found.target_s:g} s", numbers.pct(one.within), numbers.pct(other.within), numbers.points(other.within - one.within)))
    for name, label in (("wait_p50_s", "Wait p50"), ("wait_p95_s", "Wait p95"), ("wait_p99_s", "Wait p99")):
        line(label, getattr(one, name), getattr(other, name), lambda v: numbers.dur(v))
    for name, label in (("ups", "Steps up"), ("downs", "Steps down"), ("launches", "Workers started"), ("peak", "Most workers at once")):
        line(label, getattr(one, name), getattr(other, name), lambda v: f"{v:,.0f}")
    return rows


def _signed_usd(microusd: int) -> str:
    return "the same" if microusd == 0 else f"{'+' if microusd > 0 else '−'}{numbers.usd(abs(microusd))}"


# -- savings -------------------------------------------------------------------------------------


def _days_query(request: HttpRequest) -> dict[str, str]:
    return {name: request.GET[name][:10] for name in ("since", "until") if request.GET.get(name)} | ({"all": "1"} if request.GET.get("all") else {})


def _days(request: HttpRequest, pool: Pool | None) -> list[SavingsDay]:
    def day(name: str) -> date | None:
        try:
            return date.fromisoformat(request.GET.get(name, "")[:10])
        except ValueError:
            return None

    return savings.days(pool=None if request.GET.get("all") else pool, since=day("since"), until=day("until"))


def _savings(request: HttpRequest, pool: Pool, now: datetime) -> dict[str, Any]:
    rows = _days(request, pool)
    whole = savings.total(rows)
    shows_money = roles.sees_money(request)
    days = "day" if whole.days == 1 else "days"
    if not whole.days:
        said = "No finished day has been worked out yet"
    elif shows_money:
        amount = numbers.usd(abs(whole.saved_microusd))
        said = f"{amount} {'saved' if whole.saved_microusd >= 0 else 'more than'} {'against' if whole.saved_microusd >= 0 else ''} the seed's rule"
        said = f"{' '.join(said.split())} in {whole.days} {days}"
    else:
        said = f"{numbers.pct(whole.replayed_within)} in time over {whole.days} {days}"
    return {
        "title_said": said,
        "rows": rows[:60],
        "more": max(0, len(rows) - 60),
        "whole": whole,
        "all": bool(request.GET.get("all")),
        "since": request.GET.get("since", "")[:10],
        "until": request.GET.get("until", "")[:10],
        "legend": [(label, color, "dash" if dash else "line") for label, color, _, dash in SAVINGS_LINES],
        "chart": _savings_chart(rows) if shows_money and len({r.day for r in rows}) > 1 else None,
    }


def _savings_chart(rows: list[SavingsDay]) -> dict[str, Any]:
    by_day: dict[date, list[SavingsDay]] = {}
    for row in rows:
        by_day.setdefault(row.day, []).append(row)
    days = sorted(by_day)[-90:]
    series: list[dict[str, Any]] = []
    for label, color, name, dash in SAVINGS_LINES:
        data = [round(sum(getattr(r, f"{name}_microusd") for r in by_day[d]) / 1e6, 4) for d in days]
        series.append({"label": label, "color": color, "data": data, **({"dash": list(dash)} if dash else {})})
    x = [int(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp()) for d in days]
    return {"key": "savings", "x": x, "height": 220, "fmt": "usd", "ysize": 58, "series": series}


@roles.staff
def savings_csv(request: HttpRequest) -> HttpResponseBase:
    """The days shown, all of them; money for those who see it."""
    pool = Pool.objects.filter(slug=request.GET.get("pool", "").replace("\x00", "")[:60]).first()
    columns = [name for name in savings.COLUMNS if roles.sees_money(request) or not name.endswith("_usd")]
    return pages.csv_file("savings", columns, ([savings.as_row(row)[name] for name in columns] for row in _days(request, pool)))


# -- batches and events --------------------------------------------------------------------------


def _batches(request: HttpRequest, pool: Pool, now: datetime) -> dict[str, Any]:
    typed = Typed(request.GET)
    jobs, starts_at, workflow = planner_form.batch(typed, pool, now=now)
    found: quotes.Look | None = None
    if "ask" in request.GET and not typed.errors and jobs is not None:
        try:
            found = quotes.look(pool=pool, version=planner_form.live(workflow), jobs=jobs, starts_at=starts_at, now=now)
        except WorkflowError as refusal:
            typed.errors[str(refusal.details.get("field", "jobs"))] = f"{refusal.message} {refusal.suggestion}"
    open_ones = list(announcing.open_ones(pool=pool, now=now)[:200])
    if found is not None:
        took = (found.finish_p50_at - now).total_seconds()
        said = f"{jobs:,} job{'' if jobs == 1 else 's'} would be done in about {numbers.dur(took)}"
    else:
        n = len(open_ones)
        said = f"Nothing is announced for {pool.slug}" if not n else f"{n} announcement{'' if n == 1 else 's'} for {pool.slug}"
    return {
        "title_said": said,
        "errors": typed.errors,
        "values": typed.values,
        "workflows": [("", "Any of this pool"), *((slug, slug) for slug in _serves(pool))],
        "look": found,
        "p50": (found.finish_p50_at - now).total_seconds() if found else None,
        "p90": (found.finish_p90_at - now).total_seconds() if found else None,
        "jobs": jobs,
        "starts_at": starts_at,
        "workflow": workflow.slug if workflow else "",
        "planned": open_ones,
        "beyond": [p for p in open_ones if _needs(p.work_s, p.starts_at, p.ends_at, pool) > pool.max],
        "soon": (now + timedelta(hours=1)).strftime("%Y-%m-%d %H:00"),
    }


def _serves(pool: Pool) -> list[str]:
    return list(Workflow.objects.filter(pool_slug=pool.slug, archived_at__isnull=True).order_by("slug").values_list("slug", flat=True)[:200])


def _needs(work_s: float, starts_at: datetime, ends_at: datetime, pool: Pool) -> float:
    """Workers that would do announced work while it arrives and within the wait target."""
    seconds = (ends_at - starts_at).total_seconds() + pool.target_s
    return work_s / seconds if seconds > 0 else math.inf
