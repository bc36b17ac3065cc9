"""/ops/fleet/emergency/ and a pool's emergency page: what is in force, and each measure with its consequence in numbers before it is taken."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from builds.models import Version
from controlplane.console import actions, emergency_words, numbers, pages, pool_found, roles
from controlplane.kernel.errors import Invalid, WorkflowError
from fleet import consequences, emergencies, emergency_calls, queries_pools
from fleet.consequences import Consequence
from fleet.models import EmergencyAction, Pool

TYPED = ("pause", "shed", "clear")
"""Harmful but recoverable: the pool's name is typed and a reason written."""
LENGTHS = (
    ("1800", "30 minutes"),
    ("3600", "1 hour"),
    ("7200", "2 hours"),
    ("14400", "4 hours"),
    ("28800", "8 hours"),
    ("86400", "1 day"),
    ("259200", "3 days"),
)
WAITS = (("60", "1 minute"), ("300", "5 minutes"), ("600", "10 minutes"), ("1800", "30 minutes"), ("3600", "1 hour"))
AGES = (("", "any age"), ("600", "10 minutes"), ("3600", "1 hour"), ("14400", "4 hours"))
FIELDS = {
    "raise": ("base", "max", "for_s"),
    "fast": ("workflow", "version", "inputs", "force", "overflow_s", "include_waiting", "for_s"),
    "pause": ("priority", "for_s"),
    "shed": ("priority", "overflow_s", "for_s"),
    "clear": ("workflow", "customer", "priority", "older_than_s"),
}
USUAL = {"for_s": "14400", "overflow_s": "600", "priority": "low", "older_than_s": ""}
KEEP = {"raise": "Keep the size", "fast": "Run as usual", "pause": "Keep serving", "shed": "Keep taking jobs", "clear": "Keep the queue"}
GREW = 1.1
"""Numbers that grew by more than this since they were shown are shown again."""


@require_safe
@roles.staff
def everywhere(request: HttpRequest) -> HttpResponse:
    """Every measure in force, and every pool's queue."""
    now = timezone.now()
    pools = queries_pools.pools_now(now=now)
    request.halted_pools = sum(p.state == "halted" for p in pools)  # type: ignore[attr-defined]
    context = {
        "emergencies": emergency_words.banner(roles=roles.of(request), now=now),
        "rows": [(p.pool, p.state, consequences.backlog(p.pool, now=now)) for p in pools],
        "here": reverse("ops:emergency"),
    }
    crumbs = [("Fleet", reverse("ops:fleet")), ("Emergency", "")]
    return pages.page(request, "console/emergency_all.html", context, title="Emergency", active="fleet", crumbs=crumbs, now=now)


@require_safe
@roles.staff
def pool(request: HttpRequest, slug: str) -> HttpResponse:
    """A pool's measures, and what can be done."""
    now = timezone.now()
    one = pool_found.plain(slug)
    recent = emergencies.recent(one, now=now)
    context = {
        "pool": one,
        "backlog": consequences.backlog(one, now=now),
        "emergencies": emergency_words.banner(one, roles=roles.of(request), now=now),
        "past": [
            (a, emergency_calls.said(a), emergency_calls.WORDS[emergency_words.kind_of(a)], state, _undo(request, a, state, now), emergency_calls.progress(a))
            for a in recent
            if (state := emergency_calls.state(a, now=now)) != "active"
        ],
        "forms": [
            (kind, word, KEEP[kind], roles.may(request, emergency_calls.NEEDS[kind]), emergency_calls.NEEDS[kind])
            for kind, word in emergency_calls.WORDS.items()
        ],
        "values": _values(one),
        "here": reverse("ops:pool_emergency", args=[slug]),
        **_choices(one),
    }
    return pages.page(request, "console/emergency.html", context, title=f"Emergency on {slug}", active="fleet", crumbs=_crumbs(slug), now=now)


@require_http_methods(["GET", "POST"])
@roles.staff
def take(request: HttpRequest, slug: str, kind: str) -> HttpResponse:
    """GET says what it would do; POST does it, once, if that still holds."""
    if kind not in FIELDS:
        raise Http404(f"There is no measure called {kind}.")
    role = emergency_calls.NEEDS[kind]
    if not roles.may(request, role):
        return roles.refuse(request, role, emergency_calls.WORDS[kind])
    one, now = pool_found.plain(slug), timezone.now()
    given = request.POST if request.method == "POST" else request.GET
    said = {name: str(given.get(name, "")).replace("\x00", "").strip()[:2000] for name in FIELDS[kind]}
    errors: dict[str, str] = {}
    would: Consequence | None = None
    grown = False
    try:
        terms = read(kind, said)
        would = emergency_calls.preview(one, kind, terms, now=now).shown(money_shown=roles.sees_money(request))
        if request.method == "POST":
            errors, grown = _unconfirmed(request, kind, slug, would)
            if not errors and not grown:
                once = f"form:{request.user.pk}:{request.POST.get('once', '')[:32]}" if request.POST.get("once") else ""
                action = emergency_calls.take(one, kind, terms, actor=actions.actor(request), reason=actions.reason(request), once=once, now=now)
                messages.success(request, f"{emergency_calls.said(action)}. {_until(action)}")
                return redirect("ops:pool_emergency", slug)
    except WorkflowError as refusal:
        errors["terms"] = f"{refusal.message} {refusal.suggestion}"
    context = {
        "pool": one,
        "kind": kind,
        "word": emergency_calls.WORDS[kind],
        "said": said,
        "would": would,
        "grown": grown,
        "errors": errors,
        "typed": kind in TYPED,
        "reason": actions.reason(request) if request.method == "POST" else "",
        "button": _button(kind, would, said),
        "keep": KEEP[kind],
        "back": reverse("ops:pool_emergency", args=[slug]),
    }
    title = f"{emergency_calls.WORDS[kind]} on {slug}"
    status = 422 if errors or grown else 200
    crumbs = [*_crumbs(slug)[:-1], ("Emergency", reverse("ops:pool_emergency", args=[slug])), (emergency_calls.WORDS[kind], "")]
    return pages.page(request, "console/emergency_take.html", context, title=title, active="fleet", crumbs=crumbs, status=status, now=now)


@require_POST
@roles.staff
def end(request: HttpRequest, measure_id: Any) -> HttpResponse:
    """Undo a measure."""
    action = emergencies.named(str(measure_id)) if EmergencyAction.objects.filter(id=measure_id).exists() else None
    if action is None:
        raise Http404("There is no such measure.")
    kind = emergency_words.kind_of(action)
    if not roles.may(request, emergency_calls.NEEDS[kind]):
        return roles.refuse(request, emergency_calls.NEEDS[kind], f"Ending {emergency_calls.WORDS[kind].lower()}")

    def act() -> str:
        ended = emergencies.end(action, actor=actions.actor(request), reason=actions.reason(request), now=timezone.now())
        if ended.kind == EmergencyAction.Kind.CLEAR:
            return f"{numbers.plural(ended.cleared, 'cleared job')} of {ended.pool.slug} are submitted again, behind what waits."
        return f"{emergency_calls.WORDS[kind]} on {ended.pool.slug} is ended."

    return actions.done(request, act, back=reverse("ops:pool_emergency", args=[action.pool.slug]))


def read(kind: str, said: dict[str, str]) -> dict[str, Any]:
    """What was typed, as `emergency_calls` takes it. Raises Invalid."""
    terms: dict[str, Any] = {name: said[name] for name in ("workflow", "customer", "priority") if said.get(name)}
    for name, what in (("base", "The minimum"), ("max", "The maximum"), ("version", "The version")):
        if said.get(name):
            terms[name] = int(_number(said[name], name, what, whole=True))
    for name, what in (("for_s", "How long"), ("overflow_s", "The wait"), ("older_than_s", "The age")):
        if said.get(name):
            terms[name] = _number(said[name], name, what)
    if kind == "fast":
        terms["overrides"] = _inputs(said.get("inputs", ""))
        terms["force"] = sorted(terms["overrides"]) if said.get("force") else []
        terms["include_waiting"] = bool(said.get("include_waiting"))
    return terms


def _inputs(text: str) -> dict[str, Any]:
    """Lines of name=value; a value is JSON or else text."""
    made: dict[str, Any] = {}
    for line in text.replace(",", "\n").splitlines() if "{" not in text and '"' not in text else text.splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if not name and not equals:
            continue
        if not equals or not name:
            raise Invalid("inputs_unreadable", f"{line.strip()[:60]!r} is not an input.", "Write one a line, such as steps=12.", details={"field": "inputs"})
        try:
            made[name] = json.loads(value)
        except ValueError:
            made[name] = value
    return made


def _number(text: str, field: str, what: str, *, whole: bool = False) -> float:
    value = actions.number(text, whole=whole)
    if value is None:
        raise Invalid("not_a_number", f"{what} must be a {'whole ' if whole else ''}number.", "Write digits only.", details={"field": field})
    return value


def _unconfirmed(request: HttpRequest, kind: str, slug: str, would: Consequence) -> tuple[dict[str, str], bool]:
    """What is still missing, and whether the numbers have grown since they were shown."""
    errors: dict[str, str] = {}
    if kind in TYPED:
        if request.POST.get("confirm", "").strip() != slug:
            errors["confirm"] = f"Type {slug} exactly as it is written here."
        if not actions.reason(request):
            errors["reason"] = "Write why; it is kept in the audit log."
    shown = actions.number(request.POST.get("amount", ""))
    return errors, shown is not None and would.amount > max(shown * GREW, shown + 5)


def _button(kind: str, would: Consequence | None, said: dict[str, str]) -> str:
    n = would.amount if would else 0
    if kind == "raise":
        return f"Allow {numbers.plural(n, 'more worker')}" if would and would.figures["workers_more"] else "Raise capacity"
    if kind == "clear":
        return f"End {numbers.plural(n, 'waiting job')}"
    if kind == "pause":
        return f"Pause {numbers.plural(n, 'waiting job')}"
    return f"Turn on fast mode for {said.get('workflow', '')[:60]}" if kind == "fast" else f"Shed new {said.get('priority', '')[:10]} jobs"


def _undo(request: HttpRequest, action: EmergencyAction, state: str, now: datetime) -> bool:
    may = roles.may(request, emergency_calls.NEEDS[emergency_words.kind_of(action)])
    return may and action.kind == EmergencyAction.Kind.CLEAR and state in ("cleared", "clearing") and action.expires_at > now and action.cleared > 0


def _until(action: EmergencyAction) -> str:
    return "They can be submitted again for 24 h." if action.kind == EmergencyAction.Kind.CLEAR else f"It ends by itself at {action.expires_at:%H:%M} UTC."


def _values(one: Pool) -> dict[str, Any]:
    return USUAL | {"base": one.base, "max": one.max + max(1, one.max // 2), "workflow": "", "version": "", "inputs": "", "customer": ""}


def _choices(one: Pool) -> dict[str, Any]:
    workflows = emergency_calls.workflows_of(one)
    slugs = [(w.slug, w.slug) for w in workflows]
    versions = Version.objects.filter(workflow__in=workflows, runnable=True).order_by("workflow__slug", "-number").values_list("workflow__slug", "number")[:200]
    by_slug: dict[str, list[int]] = {}
    for slug, number in versions:
        by_slug.setdefault(slug, []).append(number)
    return {
        "lengths": LENGTHS,
        "waits": WAITS,
        "ages": AGES,
        "classes": [("low", "low"), ("normal", "normal and low")],
        "any_class": [("", "any"), ("low", "low"), ("normal", "normal"), ("high", "high")],
        "workflows": slugs,
        "any_workflow": [("", "any"), *slugs],
        "versions": "; ".join(f"{slug}: {', '.join(map(str, found[:8]))}" for slug, found in by_slug.items())[:400],
    }


def _crumbs(slug: str) -> list[tuple[str, str]]:
    return [("Fleet", reverse("ops:fleet")), (slug, reverse("ops:pool", args=[slug])), ("Emergency", "")]
