"""Emergency measures for scripts, under /ops/api: one POST takes one, DELETE undoes it, `dry_run` says what it would do."""

from __future__ import annotations

import hashlib
from typing import Any

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.console import roles
from controlplane.console.scripting import OperatorView
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Forbidden, Invalid, NotFound
from fleet import emergencies, emergency_calls
from fleet.models import EmergencyAction, Pool


class Measures(OperatorView):
    """GET lists what is in force anywhere."""

    def get(self, request: Request) -> Response:
        now = timezone.now()
        return Response({"results": [emergency_calls.shown(a, now=now) for a in emergencies.active(now=now)], "next": None})


class PoolMeasures(OperatorView):
    """GET lists a pool's measures, the newest first."""

    def get(self, request: Request, slug: str) -> Response:
        now = timezone.now()
        return Response({"results": [emergency_calls.shown(a, now=now) for a in emergencies.recent(_pool(slug), now=now)], "next": None})


class Take(OperatorView):
    """POST takes a measure; the same Idempotency-Key takes it once."""

    def post(self, request: Request, slug: str, kind: str) -> Response:
        pool, now = _pool(slug), timezone.now()
        _may(request, kind)
        body = jsonbody.load(request._request.body) if request._request.body else {}
        reason, dry = body.pop("reason", ""), body.pop("dry_run", False)
        if not isinstance(reason, str) or not isinstance(dry, bool):
            field = "dry_run" if isinstance(reason, str) else "reason"
            raise Invalid("wrong_type", f"{field} is not what it should be.", "reason is text, dry_run true or false.", details={"field": field})
        if dry:
            would = emergency_calls.preview(pool, kind, body, now=now).shown(money_shown=roles.sees_money(request._request))
            return Response({"dry_run": True, "would": would.lines, **would.figures})
        action = emergency_calls.take(pool, kind, body, actor=request.user.get_username(), reason=reason, once=_once(request), now=now)
        return Response(emergency_calls.shown(action, now=now), status=201)


class Measure(OperatorView):
    """GET shows a measure; DELETE undoes it."""

    def get(self, request: Request, measure: str) -> Response:
        return Response(emergency_calls.shown(emergencies.named(measure), now=timezone.now()))

    def delete(self, request: Request, measure: str) -> Response:
        action, now = emergencies.named(measure), timezone.now()
        _may(request, {"pause_class": "pause"}.get(action.kind, action.kind))
        ended = emergencies.end(action, actor=request.user.get_username(), reason=request.query_params.get("reason", "")[:300], now=now)
        return Response(emergency_calls.shown(ended, now=now), status=202 if ended.kind == EmergencyAction.Kind.CLEAR else 200)


def _pool(slug: str) -> Pool:
    found = Pool.objects.filter(slug=slug[:60]).first() if "\x00" not in slug else None
    if found is None:
        raise NotFound("pool_not_found", f"There is no pool called {slug[:60]!r}.", "Check its short name.")
    return found


def _may(request: Request, kind: str) -> None:
    role = emergency_calls.NEEDS.get(kind, "operator")
    if not roles.may(request._request, role):
        raise Forbidden("role_missing", f"This needs the role {role}.", "Ask an administrator for it.", details={"role": role})


def _once(request: Request) -> str:
    """The caller's Idempotency-Key as a token of their own."""
    key: Any = request.headers.get("Idempotency-Key", "")
    return hashlib.sha256(f"{request.user.pk}:{key}".encode()).hexdigest() if key else ""


urlpatterns = [
    path("emergencies", Measures.as_view(), name="operator-emergencies"),
    path("emergencies/<str:measure>", Measure.as_view(), name="operator-emergency"),
    path("pools/<str:slug>/emergencies", PoolMeasures.as_view(), name="operator-pool-emergencies"),
    path("pools/<str:slug>/emergencies/<str:kind>", Take.as_view(), name="operator-take-emergency"),
]
