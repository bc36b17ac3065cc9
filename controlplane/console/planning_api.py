"""The operators' API of planning, for scripts: what is announced, announce, cancel; replay changed terms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.urls import path
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from rest_framework.request import Request
from rest_framework.response import Response

from builds import queries
from controlplane.console import roles
from controlplane.console.scripting import OperatorView
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Invalid, NotFound
from fleet import announcing
from fleet.models import Pool
from fleet.planning import replay

_FIELDS = ("pool", "kind", "name", "workflow", "jobs", "factor", "workers", "starts_at", "ends_at")


class Announcements(OperatorView):
    """GET ?pool= lists what is announced; POST {"pool", "kind": "batch"|"event", …} announces."""

    roles = {"POST": "fleet"}

    def get(self, request: Request) -> Response:
        slug = request.query_params.get("pool")
        found = announcing.open_ones(pool=_pool(slug) if slug else None, now=timezone.now())
        return Response({"results": [announcing.as_json(one) for one in found[:500]], "next": None})

    def post(self, request: Request) -> Response:
        body = jsonbody.load(request._request.body)
        jsonbody.only(body, _FIELDS)
        now, actor = timezone.now(), request.user.get_username()
        pool, kind = _pool(_typed(body, "pool", str)), _typed(body, "kind", str, "batch")
        starts, ends = _moment(body, "starts_at") or now, _moment(body, "ends_at")
        name = _typed(body, "name", str, "")
        if kind == "event":
            if ends is None:
                raise Invalid("missing_field", "ends_at is missing.", "Say when the event ends.", details={"field": "ends_at"})
            made = announcing.event(
                pool=pool, name=name, starts_at=starts, ends_at=ends, factor=_number(body, "factor", 1.0),
                workers=_typed(body, "workers", int, 0), actor=actor, now=now,
            )  # fmt: skip
        elif kind == "batch":
            workflow = queries.workflow(_typed(body, "workflow", str)) if body.get("workflow") is not None else None
            made = announcing.batch(
                pool=pool, jobs=_typed(body, "jobs", int), workflow=workflow, name=name, starts_at=starts, ends_at=ends, actor=actor, now=now
            )
        else:
            raise Invalid("wrong_type", "kind must be batch or event.", "Leave it out for a batch.", details={"field": "kind"})
        return Response(announcing.as_json(made), status=201)


class Announcement(OperatorView):
    """GET one; DELETE cancels it."""

    roles = {"DELETE": "fleet"}

    def get(self, request: Request, planned: UUID) -> Response:
        return Response(announcing.as_json(announcing.find(planned)))

    def delete(self, request: Request, planned: UUID) -> Response:
        done = announcing.cancel(announcing.find(planned), actor=request.user.get_username(), now=timezone.now())
        return Response(announcing.as_json(done))


class Replay(OperatorView):
    """POST {"changes": {…}, "hours": 24}: what changed terms would have done. Saves nothing."""

    roles = {"POST": "viewer"}

    def post(self, request: Request, slug: str) -> Response:
        body = jsonbody.load(request._request.body)
        jsonbody.only(body, ("changes", "hours"))
        changes = _typed(body, "changes", dict, {})
        hours = _number(body, "hours", 24.0)
        found = replay.of_pool(_pool(slug), changes, hours=hours, now=timezone.now())
        return Response(found.as_json(money_shown=roles.sees_money(request._request)))


_MISSING: Any = object()


def _typed(body: dict[str, Any], name: str, kind: Any, default: Any = _MISSING) -> Any:
    value = body.get(name)
    if value is None:
        if default is _MISSING:
            raise Invalid("missing_field", f"{name} is missing.", "Send it.", details={"field": name})
        return default
    if isinstance(value, bool) or not isinstance(value, kind):
        raise Invalid("wrong_type", f"{name} has another type.", "See docs/quotes.md.", details={"field": name})
    return value


def _number(body: dict[str, Any], name: str, default: float) -> float:
    try:
        return float(_typed(body, name, int | float, default))
    except OverflowError:
        raise Invalid("wrong_type", f"{name} is too large.", "Send a smaller number.", details={"field": name}) from None


def _moment(body: dict[str, Any], name: str) -> datetime | None:
    text = _typed(body, name, str, None)
    if text is None:
        return None
    try:
        at = parse_datetime(text[:64])
        at = at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at.astimezone(UTC) if at is not None else None
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise Invalid("wrong_type", f"{name} must be a time.", "Send RFC 3339 such as 2026-03-02T12:00:00Z.", details={"field": name})
    return at


def _pool(slug: str) -> Pool:
    found = Pool.objects.filter(slug=slug[:60]).first() if "\x00" not in slug else None
    if found is None:
        raise NotFound("pool_not_found", f"There is no pool called {slug[:60]!r}.", "Check its name.")
    return found


urlpatterns = [
    path("announcements", Announcements.as_view(), name="operator-announcements"),
    path("announcements/<uuid:planned>", Announcement.as_view(), name="operator-announcement"),
    path("pools/<str:slug>/replay", Replay.as_view(), name="operator-replay"),
]
