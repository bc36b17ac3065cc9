"""What needs someone, most urgent first, and the one sentence that answers "is anything broken". Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.console import numbers
from controlplane.kernel.loops import Age
from fleet.forecast_alerts import Alert
from fleet.queries_pools import PoolNow
from fleet.queries_traffic import WorkflowHealth

MEASURES = {"raise": "raised capacity", "fast": "fast mode", "pause_class": "a paused class", "shed": "shedding", "clear": "a cleared queue"}
QUICK_S = 20.0  # loops that tick at least this often are all late a minute after the controller stops


@dataclass(frozen=True, slots=True)
class Need:
    """One thing for a person to do. `rank` orders: lower is more urgent."""

    rank: int
    kind: str  # bad, warn, info
    badge: str
    icon: str
    title: str
    text: str
    href: str
    side: str = ""
    short: str = ""  # how the headline says it


def of_pools(pools: Sequence[PoolNow], *, href: str, now: datetime) -> list[Need]:
    """Halted pools, pools without workers while jobs wait, and pools whose queue waits longer than the target."""
    found = []
    for p in pools:
        name, link = p.pool.slug, href.replace("POOL", p.pool.slug)
        waits = f"{numbers.count(p.queue)} {'job waits' if p.queue == 1 else 'jobs wait'}"
        if p.state == "halted" and p.pool.halted_at is not None:
            side = f"for {numbers.dur((now - p.pool.halted_at).total_seconds(), tile=True)}"
            found.append(Need(0, "bad", "Pool halted", "pause", f"{name} orders no workers", p.pool.halted_reason, link, side, f"{name} is halted"))
        elif p.state == "empty" and p.queue:
            found.append(
                Need(
                    1,
                    "bad",
                    "No workers",
                    "gpu",
                    f"{name} has no workers",
                    f"{waits}, the oldest for {numbers.dur(p.oldest_s)}.",
                    link,
                    "",
                    f"{name} has no workers",
                )
            )
        elif p.state == "short":
            full = f"All {p.pool.max} workers it may have are running." if p.live >= p.pool.max else f"{p.ready} of at most {p.pool.max} workers are ready."
            text = f"{waits}, the oldest for {numbers.dur(p.oldest_s)}; target {numbers.dur(p.pool.target_s)}. {full}"
            found.append(Need(2, "bad", "Queue is slow", "clock", f"{name} is short of workers", text, link, "", f"the {name} queue is slow"))
    return found


def of_measures(pools: Sequence[PoolNow], *, href: str, now: datetime) -> list[Need]:
    """Pauses and emergency measures in force: somebody should know that they end by themselves, or end them."""
    found = []
    for p in pools:
        name, link = p.pool.slug, href.replace("POOL", p.pool.slug)
        if p.paused and p.pool.paused_until is not None:
            left = numbers.dur((p.pool.paused_until - now).total_seconds(), tile=True)
            text = f"{p.pool.paused_reason.rstrip('.') or 'No reason was given'}. No worker is added or removed until then."
            found.append(
                Need(6, "warn", "Paused", "pause", f"Autoscaling of {name} is paused", text, link, f"for {left} more", f"autoscaling of {name} is paused")
            )
        if p.measure is not None:
            word, left = MEASURES.get(p.measure[0], p.measure[0]), numbers.dur((p.measure[1] - now).total_seconds(), tile=True)
            text = "An emergency measure is in force. It ends by itself; end it earlier once it is not needed."
            found.append(Need(7, "warn", "Emergency", "zap", f"{name}: {word}", text, link, f"for {left} more", f"{name} is in {word}"))
    return found


def of_forecasts(reached: Sequence[tuple[PoolNow, Alert]], *, href: str) -> list[Need]:
    """Pools whose maximum is reached by their forecast."""
    found = []
    for p, alert in reached:
        name, link = p.pool.slug, f"{href.replace('POOL', p.pool.slug)}?ahead=7d"
        short = f"{name} will reach its maximum"
        found.append(Need(9, "info", "Capacity", "clock", f"{name} reaches its maximum", alert.message, link, f"{alert.at:%a %H:%M}", short))
    return found


def of_workflows(failing: Sequence[WorkflowHealth], *, href: str) -> list[Need]:
    found = []
    for w in failing:
        bad = w.success < 0.8
        rank, kind, icon = (3, "bad", "xoct") if bad else (6, "warn", "alert")
        text = f"{numbers.count(w.bad)} of {numbers.count(w.judged)} jobs failed in the last hour; target 95% success."
        short = f"{w.slug} fails {numbers.pct(1 - w.success)} of its jobs"
        found.append(Need(rank, kind, "Workflow failing", icon, w.slug, text, href.replace("WORKFLOW", w.slug), f"{numbers.pct(w.success)} success", short))
    return found


def of_loops(ages: Sequence[Age], *, href: str = "") -> list[Need]:
    """Loops that did not succeed for longer than a minute or three of their periods."""
    quick = [a for a in ages if a.every_s <= QUICK_S]
    if len(quick) > 1 and all(a.late for a in quick):
        return [_controller(quick, href=href)]
    found = []
    for a in ages:
        if not a.late:
            continue
        since = "has never succeeded" if a.age_s is None else f"last succeeded {numbers.dur(a.age_s)} ago"
        why = a.last_error.strip().splitlines()[-1][:160] if a.last_error.strip() else "Start the controller: manage.py controller."
        found.append(
            Need(
                4,
                "warn",
                "Loop stopped",
                "loader",
                f"The {a.name} loop {since}",
                why,
                href,
                f"every {numbers.dur(a.every_s)}",
                f"the {a.name} loop stands still",
            )
        )
    return found


def _controller(ages: Sequence[Age], *, href: str) -> Need:
    """Every loop stands still at once: that is one thing to mend, and worse than each alone."""
    known = [a.age_s for a in ages if a.age_s is not None]
    since = f"has ticked for {numbers.dur(min(known))}" if known else "has ever ticked"
    why = next((a.last_error.strip().splitlines()[-1][:160] for a in ages if a.last_error.strip()), "")
    todo = f"The last error: {why}" if why else "Start it, or look at its log: manage.py controller."
    text = f"No loop {since}: nothing is scaled, no lost job is put back, no webhook goes out. {todo}"
    return Need(0, "bad", "Controller down", "loader", "The controller does not work", text, href, short="the controller does not work")


def of_webhooks(dead: int, *, href: str = "") -> list[Need]:
    if not dead:
        return []
    what = "webhook was" if dead == 1 else "webhooks were"
    text = "The customer's address refused every try. Replay them once it answers again."
    return [Need(7, "warn", "Webhooks", "bell", f"{numbers.count(dead)} {what} given up in 24 h", text, href, "", "webhooks were given up")]


def of_customers(near: Sequence[tuple[str, str, float]], *, href: str) -> list[Need]:
    """(slug, name, share of the limit)."""
    found = []
    for slug, name, share in near:
        full = share >= 0.99
        rank, kind = (5, "bad") if full else (8, "warn")
        text = f"{'' if full else 'At 100% '}new jobs are refused until the month ends or the plan changes."
        side = f"{numbers.pct(share)} of the month's limit"
        link = href.replace("CUSTOMER", slug)
        found.append(Need(rank, kind, "Near its limit", "users", name, text[0].upper() + text[1:], link, side, f"{name} is near its limit"))
    return found


def ordered(needs: Sequence[Need]) -> list[Need]:
    return sorted(needs, key=lambda n: (n.rank, n.title))


def headline(needs: Sequence[Need]) -> str:
    """The answer: what is broken, in one line."""
    if not needs:
        return "All good: jobs flow and every loop runs"
    first = needs[0].short or needs[0].title
    bad = [n for n in needs if n.kind == "bad"]
    if all(n.kind == "info" for n in needs):
        return f"All good now; {first}"
    rest = len(needs) - 1
    more = f", {rest} more {'needs' if rest == 1 else 'need'} you" if rest else ""
    return f"Degraded: {first}{more}" if bad else f"Working, but {first}{more}"
