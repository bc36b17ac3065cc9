"""Actions on a pool: raise its maximum, add workers for a while, pause and resume its sizing, drain it. Each with its confirm page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.console import actions, numbers, once, pages, pool_found, roles
from controlplane.kernel.errors import Invalid, WorkflowError
from fleet import emergencies, pool_drain, pools, queries_pools, scaling
from fleet.models import Pool, Worker
from fleet.queries_pools import PoolNow

DURATIONS = (("15m", "15 minutes"), ("30m", "30 minutes"), ("1h", "1 hour"), ("2h", "2 hours"), ("4h", "4 hours"), ("8h", "8 hours"), ("24h", "1 day"))
LONG_DURATIONS = (*DURATIONS[2:], ("3d", "3 days"), ("7d", "7 days"))
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
ADD = {"workers": "", "add_for": "1h", "add_reason": ""}
PAUSE = {"pause_for": "1h", "pause_reason": ""}
DRAIN = {"drain_for": "1h", "drain_reason": ""}


def forms(here: PoolNow) -> dict[str, Any]:
    """What the dialogs of a pool's page show."""
    more = min(pools.MOST_WORKERS, max(here.ready + here.starting, here.pool.base) + 1)
    return {
        "durations": DURATIONS,
        "drain_durations": LONG_DURATIONS,
        "add_values": ADD | {"workers": more},
        "pause_values": PAUSE,
        "drain_values": DRAIN,
        "drain_button": f"Drain {numbers.plural(here.live, 'worker')}",
    }


def duration(text: str, *, field: str) -> timedelta:
    """A time chosen from a list. Raises Invalid for another."""
    if text not in {key for key, _ in (*DURATIONS, *LONG_DURATIONS)}:
        raise Invalid("duration_invalid", "Choose for how long from the list.", "It ends by itself when the time is over.", details={"field": field})
    return timedelta(seconds=int(text[:-1]) * _SECONDS[text[-1]])


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Adding workers")
def add(request: HttpRequest, slug: str) -> HttpResponse:
    """Keep more workers for a while."""

    def act(pool: Pool, values: dict[str, Any], now: datetime) -> str:
        wanted = actions.number(str(values["workers"]))
        if wanted is None or wanted < 1:
            raise Invalid("workers_invalid", "Write how many workers, a whole number.", "1 or more.", details={"field": "workers"})
        until = now + duration(values["add_for"], field="add_for")
        most = max(int(wanted), pool.max)
        emergencies.raise_capacity(
            pool, base=int(wanted), maximum=most, expires_at=until, actor=actions.actor(request), reason=values["add_reason"], once=_once(request), now=now
        )
        return f"{slug} keeps at least {numbers.plural(wanted, 'worker')} until {until:%H:%M} UTC."

    return _page(request, slug, ADD, "add", act)


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Pausing autoscaling")
def pause(request: HttpRequest, slug: str) -> HttpResponse:
    """Change nothing of the pool's size for a while. The name has to be typed."""

    def act(pool: Pool, values: dict[str, Any], now: datetime) -> str:
        _typed(request, slug)
        _reason(values, "pause_reason")
        until = now + duration(values["pause_for"], field="pause_for")
        pools.pause(pool, until=until, reason=values["pause_reason"], actor=actions.actor(request), now=now)
        return f"Autoscaling of {slug} is paused until {until:%H:%M} UTC."

    return _page(request, slug, PAUSE, "pause", act)


@require_http_methods(["GET", "POST"])
@roles.needs("fleet", "Draining a pool")
def drain(request: HttpRequest, slug: str) -> HttpResponse:
    """Every worker finishes its job and leaves; none is ordered meanwhile. The name has to be typed."""

    def act(pool: Pool, values: dict[str, Any], now: datetime) -> str:
        _typed(request, slug)
        _reason(values, "drain_reason")
        until = now + duration(values["drain_for"], field="drain_for")
        asked = pool_drain.drain(pool, until=until, reason=values["drain_reason"], actor=actions.actor(request), now=now)
        return f"{numbers.plural(asked, 'worker')} of {slug} finish and leave. Resume autoscaling to undo it."

    return _page(request, slug, DRAIN, "drain", act)


@require_POST
@roles.needs("fleet", "Raising a maximum")
def maximum(request: HttpRequest, slug: str) -> HttpResponse:
    """Raise the pool's maximum, as an alert proposes."""
    pool = pool_found.plain(slug)

    def act() -> str:
        wanted = actions.number(actions.text(request, "maximum"))
        if wanted is None or wanted <= pool.max:
            raise Invalid("maximum_invalid", f"The maximum of {slug} is {pool.max:,} already.", "Reload the page for the newest figures.")
        pools.change(pool, {"max": int(wanted)}, actor=actions.actor(request), reason="Raised from a capacity forecast", now=timezone.now())
        return f"{slug} may have {int(wanted):,} workers now; before it was {pool.max:,}."

    return actions.done(request, act, back=reverse("ops:pool", args=[slug]))


@require_POST
@roles.needs("fleet", "Resuming a pool")
def resume(request: HttpRequest, slug: str) -> HttpResponse:
    """Order workers again after a crash loop."""
    pool = pool_found.plain(slug)

    def act() -> str:
        scaling.resume(pool, actor=actions.actor(request), now=timezone.now())
        return f"{slug} orders workers again. If they keep failing to start it stops by itself."

    return actions.done(request, act, back=reverse("ops:pool", args=[slug]))


@require_POST
@roles.needs("fleet", "Resuming autoscaling")
def unpause(request: HttpRequest, slug: str) -> HttpResponse:
    """Let sizing act again."""
    pool = pool_found.plain(slug)

    def act() -> str:
        pools.unpause(pool, actor=actions.actor(request), now=timezone.now())
        return f"Autoscaling of {slug} acts again."

    return actions.done(request, act, back=reverse("ops:pool", args=[slug]))


def _page(request: HttpRequest, slug: str, usual: dict[str, str], what: str, act: Callable[[Pool, dict[str, Any], datetime], str]) -> HttpResponse:
    """The confirm page of an action, and what it does when it is sent."""
    now = timezone.now()
    here = pool_found.found(slug, now=now, request=request)
    queries_pools.fill(here, list(Worker.objects.filter(pool=here.pool, state__in=Worker.LIVE).only("state", "price_per_hour_microusd")))
    shown, errors = forms(here), {}
    values: dict[str, Any] = dict(shown[f"{what}_values"])
    if request.method == "POST":
        values |= {name: actions.text(request, name, most=300) for name in usual}
        try:
            if once.first_time(request):
                messages.success(request, act(here.pool, values, now))
            return redirect("ops:pool", slug)
        except WorkflowError as refusal:
            field = _FIELDS.get(refusal.details.get("field", ""), refusal.details.get("field", "")) or "workers"
            errors[field if field in values or field == "confirm" else next(iter(values))] = f"{refusal.message} {refusal.suggestion}"
    context = shown | {
        f"{what}_values": values,
        "what": what,
        "title_text": _TITLES[what].format(slug),
        "errors": errors,
        "here": here,
        "pool": here.pool,
    }
    crumbs = [("Fleet", reverse("ops:fleet")), (slug, reverse("ops:pool", args=[slug])), (_TITLES[what].split(" ")[0], "")]
    title = context["title_text"]
    return pages.page(request, "console/pool_action.html", context, title=title, active="fleet", crumbs=crumbs, status=422 if errors else 200)


_TITLES = {"add": "Add workers to {}", "pause": "Pause autoscaling of {}?", "drain": "Drain {}?"}
_FIELDS = {"base": "workers", "max": "workers", "until": "pause_for", "expires_at": "add_for"}


def _once(request: HttpRequest) -> str:
    return request.POST.get("once", "")[:32]


def _typed(request: HttpRequest, slug: str) -> None:
    """The name, typed: a script without one is refused as a hand without care would be."""
    if actions.text(request, "confirm") != slug:
        raise Invalid("name_not_typed", f"Type {slug} to confirm.", "It guards against the wrong pool.", details={"field": "confirm"})


def _reason(values: dict[str, Any], field: str) -> None:
    if not values[field]:
        raise Invalid("reason_missing", "Say why in a few words.", "It is kept in the audit log.", details={"field": field})
