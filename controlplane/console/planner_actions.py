"""Announce a batch or an event from the planner, and cancel one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from controlplane.console import actions, planner_form, roles
from controlplane.console.planner_form import Typed
from controlplane.kernel.errors import Invalid, NotFound
from fleet import announcing
from fleet.models import Pool


@require_POST
@roles.needs("fleet", "Announcing demand")
def announce(request: HttpRequest) -> HttpResponse:
    """A batch, or an event when `kind` says so."""
    pool = Pool.objects.filter(slug=actions.text(request, "pool", most=60)).first()
    if pool is None:
        raise Http404("There is no such pool.")
    now = timezone.now()

    def act() -> str:
        typed = Typed(request.POST)
        starts = planner_form.moment(typed, "starts_at", now=now) or now
        ends = planner_form.moment(typed, "ends_at", now=now)
        if actions.text(request, "kind") == "event":
            factor = typed.number("factor", 1.0, least=0.01, most=100)
            workers = int(typed.number("workers", 0, most=1000, whole=True))
            _refuse(typed)
            if ends is None:
                raise Invalid("ends_missing", "The event needs an end.", "Write a time such as 2026-11-27 18:00.")
            made = announcing.event(
                pool=pool, name=actions.text(request, "name", most=120), starts_at=starts, ends_at=ends, factor=factor, workers=workers,
                actor=actions.actor(request), now=now,
            )  # fmt: skip
            return f"{made.name} is announced for {pool.slug}."
        jobs, _, workflow = planner_form.batch(typed, pool, now=now)
        if jobs is None:
            typed.errors.setdefault("jobs", "How many jobs?")
        _refuse(typed)
        made = announcing.batch(pool=pool, jobs=jobs or 0, workflow=workflow, starts_at=starts, ends_at=ends, actor=actions.actor(request), now=now)
        return f"{made.jobs:,} jobs are announced for {pool.slug}; its workers are made ready for them."

    return actions.done(request, act, back=_back(pool))


@require_POST
@roles.needs("fleet", "Canceling an announcement")
def cancel(request: HttpRequest, planned_id: UUID) -> HttpResponse:
    """Take an announcement back."""
    try:
        planned = announcing.find(planned_id)
    except NotFound as missing:
        raise Http404(missing.message) from None

    def act() -> str:
        announcing.cancel(planned, actor=actions.actor(request), reason=actions.reason(request), now=timezone.now())
        return "It is not announced any more."

    return actions.done(request, act, back=_back(planned.pool))


def _refuse(typed: Typed) -> None:
    if typed.errors:
        field, said = next(iter(typed.errors.items()))
        raise Invalid("announcement_invalid", f"Nothing was announced: {field.replace('_', ' ')}.", said)


def _back(pool: Pool) -> str:
    query: dict[str, Any] = {"tab": "batches", "pool": pool.slug}
    return f"{reverse('ops:planner')}?{urlencode(query)}"
