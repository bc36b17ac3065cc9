"""One scaling decision: everything it rested on, the rule that won, what else could have been done, and what happened after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from controlplane.console import charts, decision_words, numbers, pages, policy_words, roles
from controlplane.console.decision_words import number
from fleet import queries_pools, queries_traffic
from fleet.models import ScalingDecision, Worker
from fleet.sizing import alternatives

AFTER = timedelta(minutes=10)
MOST_JSON = 20_000
RULES = {
    "backlog": "The queue",
    "long jobs": "Long jobs",
    "steady": "The work that arrives",
    "idle": "Idle workers",
    "queue": "Waiting jobs a worker",
    "count": "Jobs a worker",
    "announced": "Announced work",
    "first": "The first job",
    "floor": "The floor",
}
TERMS = {
    "offered": "Workers' worth of work that arrives",
    "steady": "Workers for the work that arrives",
    "backlog": "Workers for the queue",
    "shared": "Workers for the jobs waiting and running",
    "left_s": "Work left when a new worker is ready",
    "horizon_s": "Looked ahead",
    "cold_s": "A start counted with",
    "job_s": "A job counted with",
    "caution": "Caution, 0 is usual",
    "most_needed": "Most workers needed of late",
    "late_share": "Jobs that started late",
}


@roles.staff
def decision(request: HttpRequest, decision_id: int) -> HttpResponse:
    now = timezone.now()
    d = ScalingDecision.objects.select_related("pool").filter(id=decision_id).first()
    if d is None:
        raise Http404(f"There is no decision {decision_id}. Decisions are kept for a while; look at the pool's list.")
    seen = decision_words.inputs(d)
    stored = alternatives.of_inputs(seen)
    words = decision_words.title(d)
    others = alternatives.around(stored, applied=d.applied) if stored is not None else []
    # what was stored is the wait at the size wanted; what counts is the wait at the size there was
    expected = next((a.wait_s for a in others if a.chosen), None) if d.bound else d.predicted_wait_s
    context: dict[str, Any] = {
        "d": d,
        "pool": d.pool,
        "words": words,
        "icon": decision_words.icon(d),
        "limit": decision_words.limit(d),
        "effect": decision_words.effect(d),
        "policy_name": policy_words.name_of(d.policy),
        "rule": RULES.get(str(seen.get("rule") or ""), str(seen.get("rule") or "").replace("_", " ").capitalize()),
        "facts": facts(seen),
        "terms": terms(seen),
        "floor_why": str(seen.get("floor_why") or "")[:300],
        "shadows": shadows(d),
        "alternatives": others,
        "predicted": expected,
        "after": pages.part(request, lambda: afterwards(d, now)),
        "raw": json.dumps(dict(seen), indent=1, sort_keys=True)[:MOST_JSON],
        "may_fleet": roles.may(request, "fleet"),
        **_beside(d),
    }
    crumbs = [("Fleet", reverse("ops:fleet")), (d.pool.slug, reverse("ops:pool", args=[d.pool.slug])), (f"Decision {d.id}", "")]
    return pages.page(request, "console/decision.html", context, title=f"{words}, {d.pool.slug}", active="fleet", crumbs=crumbs, now=now)


def _beside(d: ScalingDecision) -> dict[str, Any]:
    """The decisions before and after it."""
    rows = ScalingDecision.objects.filter(pool=d.pool).only("id")
    return {
        "earlier": queries_pools.before(rows, d.at, d.id).order_by("-at", "-id").first(),
        "later": rows.filter(at__gte=d.at).exclude(id__lte=d.id, at=d.at).order_by("at", "id").first(),
    }


def facts(seen: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it saw, each in plain words; a figure that was not there is left out."""
    job, cold = (part if isinstance(part := seen.get(name), dict) else {} for name in ("job", "cold"))
    found: list[tuple[str, str | None]] = [
        ("Jobs waiting", _queue(seen)),
        ("Workers that take jobs", _ready(seen)),
        ("Workers on their way", _coming(seen)),
        ("Idle workers", _idle(seen)),
        ("Jobs arriving", _rates(seen)),
        ("A job takes", _spread(job)),
        ("A worker takes to start", _cold(cold)),
        ("Allowed", _between(seen)),
        ("Wait target", _target(seen)),
        ("Announced", _planned(seen)),
    ]
    return [(label, text) for label, text in found if text]


def _queue(seen: Mapping[str, Any]) -> str | None:
    queue, work, oldest = (number(seen, name) for name in ("queue", "queue_work_s", "oldest_wait_s"))
    if queue is None:
        return "not known, so nothing was changed"
    said = numbers.plural(queue, "job")
    if queue and work:
        said += f", {numbers.dur(work)} of one worker's time"
    return said + (f"; the oldest for {numbers.dur(oldest)}" if queue and oldest else "")


def _ready(seen: Mapping[str, Any]) -> str | None:
    ready, busy = number(seen, "ready"), number(seen, "busy")
    if ready is None:
        return "not known, so nothing was changed" if "ready" in seen else None
    return f"{numbers.count(ready)}" + (f", {numbers.count(busy)} of them busy" if busy is not None else "")


def _coming(seen: Mapping[str, Any]) -> str | None:
    coming = decision_words.seconds(seen, "coming_s")
    return f"{len(coming)}, the first ordered {numbers.dur(max(coming))} before" if coming else None


def _idle(seen: Mapping[str, Any]) -> str | None:
    idle = decision_words.seconds(seen, "idle_s")
    return f"{len(idle)}, the longest for {numbers.dur(max(idle))}" if idle else None


def _rates(seen: Mapping[str, Any]) -> str | None:
    found = [(number(seen, f"rate_{key}"), word) for key, word in (("1m", "the last minute"), ("5m", "5 minutes"), ("1h", "the hour"))]
    said = [f"{numbers.count(round(rate * 60, 1))} a minute over {word}" for rate, word in found if rate is not None]
    return ", ".join(said) or None


def _spread(job: Mapping[str, Any]) -> str | None:
    mean, cv2, samples = (number(job, name) for name in ("mean_s", "cv2", "samples"))
    if mean is None:
        return None
    varied = "" if cv2 is None else ", always about the same" if cv2 < 0.1 else ", quite evenly" if cv2 < 0.6 else ", very unevenly" if cv2 > 1.5 else ""
    measured = "; assumed, none was measured" if not samples else f"; from {numbers.plural(samples, 'run')}"
    return f"{numbers.dur(mean)}{varied}{measured}"


def _cold(cold: Mapping[str, Any]) -> str | None:
    p50, p90, samples = (number(cold, name) for name in ("p50_s", "p90_s", "samples"))
    if p50 is None or p90 is None:
        return None
    return f"{numbers.dur(p50)}, one in ten over {numbers.dur(p90)}" + ("; assumed, none was measured" if not samples else "")


def _between(seen: Mapping[str, Any]) -> str | None:
    base, maximum = number(seen, "base"), number(seen, "maximum")
    return None if base is None or maximum is None else f"{base:,.0f} to {maximum:,.0f} workers"


def _target(seen: Mapping[str, Any]) -> str | None:
    target, share = number(seen, "target_s"), number(seen, "target_share")
    return None if target is None or share is None else f"{share * 100:g}% within {numbers.dur(target)}"


def _planned(seen: Mapping[str, Any]) -> str | None:
    rows = [p for p in decision_words.listed(seen, "planned") if isinstance(p, dict)]
    said = []
    for p in rows[:4]:
        jobs, wished = number(p, "jobs"), number(p, "workers")
        what = numbers.plural(jobs, "job") if jobs else numbers.plural(wished or 0, "worker")
        said.append(f"{what} in {numbers.dur(max(0.0, number(p, 'starts_in_s') or 0.0))}")
    return "; ".join(said) or None


def terms(seen: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures the policy made of it, in words; one nobody gave words to by its name."""
    found = seen.get("terms")
    if not isinstance(found, dict):
        return []
    return [(_term(str(name)), _figure(str(name), value)) for name, value in list(found.items())[:24] if isinstance(value, int | float)]


def _term(name: str) -> str:
    return TERMS.get(name) or name.removesuffix("_s").replace("_", " ").capitalize()[:60]


def _figure(name: str, value: float) -> str:
    if name.endswith("_share"):
        return numbers.pct(value)
    return numbers.dur(value) if name.endswith("_s") and value >= 0 else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def shadows(d: ScalingDecision) -> list[tuple[str, str, str]]:
    """(policy, wanted, why) of the policies that were asked without effect."""
    if not isinstance(d.shadow, dict):
        return []
    found = []
    for name, said in sorted(d.shadow.items()):
        if isinstance(said, dict):
            wanted = number(said, "wanted")
            found.append(
                (policy_words.name_of(name), f"{wanted:,.0f}" if wanted is not None else "failed", str(said.get("reason") or said.get("error") or "")[:300])
            )
    return found


def afterwards(d: ScalingDecision, now: datetime) -> dict[str, Any]:
    """Waits ten minutes before and after, what became of its workers, and whether it was taken back."""
    span = {"step_s": 60, "pool_id": d.pool_id}
    end = min(now, d.last_seen_at + AFTER)
    waits = queries_traffic.times("wait", start=d.at - AFTER, end=end, **span)  # type: ignore[arg-type]
    split = int(d.at.timestamp()) // 60 * 60
    before, after = (
        queries_traffic.Times(waits.start, waits.end, 60, {k: v for k, v in waits.parts.items() if (k[0] >= split) is late}).of() for late in (False, True)
    )
    workers = list(_touched(d))
    back = None
    if d.applied:
        rows = ScalingDecision.objects.filter(pool=d.pool, at__gt=d.at, at__lte=d.at + queries_pools.REVERSED)
        back = (rows.filter(applied__lt=0) if d.applied > 0 else rows.filter(applied__gt=0)).order_by("at").first()
    return {
        "before_p95": before.quantile(0.95),
        "after_p95": after.quantile(0.95),
        "jobs": after.count,
        "over": end > now - timedelta(seconds=1) and end < d.at + AFTER,
        "workers": workers,
        "came": decision_words.came_of(d, workers),
        "back": back,
        "back_words": charts.signed(back.applied) if back else "",
    }


def _touched(d: ScalingDecision) -> list[Worker]:
    """The workers it ordered, or asked to leave."""
    rows = Worker.objects.filter(pool=d.pool).only("id", "name", "state", "ordered_at", "ready_at", "stopped_at", "drain_asked_at", "stop_reason")
    if d.applied > 0:
        return list(rows.filter(ordered_at=d.at)[:40])
    return list(rows.filter(drain_asked_at=d.at)[:40]) if d.applied < 0 else []
