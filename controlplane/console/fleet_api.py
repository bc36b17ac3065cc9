"""Workers for scripts, under /ops/api: list, look, and one call each to cordon, uncordon, drain, replace and take out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.console import roles
from controlplane.console.scripting import OperatorView
from controlplane.kernel import jsonbody, paging
from controlplane.kernel.errors import Forbidden, Invalid, NotFound
from controlplane.kernel.ids import parse_uuid
from fleet import membership, queries_workers, replacing
from fleet.models import Worker
from fleet.presenting import stamp

ACTS: dict[str, Callable[..., Any]] = {
    "cordon": membership.cordon,
    "uncordon": membership.uncordon,
    "drain": membership.drain,
    "replace": replacing.ask,
    "fault": membership.fault,
}


class Workers(OperatorView):
    """GET ?pool=…&state=… lists workers that live, the newest first; a state that is an end lists those that are gone."""

    def get(self, request: Request) -> Response:
        asked = request.query_params
        for name in asked:
            if name not in ("pool", "state", "limit", "cursor"):
                raise Invalid("parameter_unknown", f"There is no parameter {name[:40]!r}.", "Use pool, state, limit and cursor.", details={"field": name[:40]})
        state, slug, size = asked.get("state", ""), asked.get("pool", ""), paging.size(asked.get("limit"))
        if state and state not in Worker.State.values:
            raise Invalid("state_unknown", f"No worker is ever {state[:40]!r}.", f"Use one of {', '.join(Worker.State.values)}.", details={"field": "state"})
        found = Worker.objects.select_related("pool").filter(state__in=[state] if state else Worker.LIVE).order_by("-id")
        if slug:
            found = found.filter(pool__slug=slug.replace("\x00", "")[:60])
        if (cursor := asked.get("cursor")) is not None:
            last = parse_uuid(paging.decode(cursor))
            if last is None:
                raise paging.bad_cursor()
            found = found.filter(id__lt=last)
        rows = list(found[: size + 1])
        here = {name: str(value) for name, value in asked.items() if name != "cursor"}
        more = paging.link(request.build_absolute_uri("/ops/api/workers"), here, str(rows[size - 1].id)) if len(rows) > size else None
        return Response({"results": [_row(w) for w in rows[:size]], "next": more})


class OneWorker(OperatorView):
    """GET: a worker with its life, where its time went, and its last words."""

    def get(self, request: Request, worker: str) -> Response:
        return Response(_detail(request, _find(worker).id))


class Act(OperatorView):
    """POST {"reason": "…"} does it; said twice it is done once."""

    def post(self, request: Request, worker: str, act: str) -> Response:
        if act not in ACTS:
            raise NotFound("act_unknown", f"Nothing is called {act[:40]!r} here.", f"Use one of {', '.join(ACTS)}.")
        if not (roles.may(request._request, "operator") or roles.may(request._request, "fleet")):
            raise Forbidden("role_missing", "This needs the role operator or fleet.", "Ask an administrator for it.", details={"role": "operator"})
        body = jsonbody.load(request._request.body) if request._request.body else {}
        jsonbody.only(body, ("reason",))
        reason = body.get("reason", "")
        if not isinstance(reason, str) or len(reason) > 300:
            raise Invalid(
                "wrong_type", "reason must be text of at most 300 characters.", "Say why in a sentence, or leave it out.", details={"field": "reason"}
            )
        if act == "fault" and not reason.strip():
            raise Invalid("reason_missing", "A worker is taken out for a reason.", "Say what is wrong with it.", details={"field": "reason"})
        held = _find(worker)
        ACTS[act](held, actor=request.user.get_username(), reason=reason.replace("\x00", ""), now=timezone.now())
        return Response(_detail(request, held.id))


def _find(given: str) -> Worker:
    id_ = parse_uuid(given)
    found = Worker.objects.select_related("pool").filter(id=id_).first() if id_ is not None else None
    if found is None:
        raise NotFound("worker_not_found", "There is no such worker.", "GET /ops/api/workers lists those that live.")
    return found


def _row(worker: Worker) -> dict[str, Any]:
    times = ("ordered_at", "registered_at", "ready_at", "seen_at", "drain_asked_at", "cordoned_at", "faulted_at", "preempt_at", "stopped_at")
    said = {name: stamp(getattr(worker, name)) for name in times}
    plain = {
        name: getattr(worker, name) for name in ("name", "instance", "state", "market", "gpu", "zone", "image", "stop_reason", "stop_message", "jobs_done")
    }
    return {"id": str(worker.id), "pool": worker.pool.slug, **plain, "state_since": stamp(worker.state_since), **said}


def _detail(request: Request, worker_id: UUID) -> dict[str, Any]:
    one = queries_workers.one(worker_id, now=timezone.now())
    found = {
        **_row(one.worker),
        "seconds": {bucket: round(ms / 1000, 3) for bucket, ms in one.split.ms.items()},
        "timeline": [{"at": stamp(m.at), "kind": m.kind, "note": m.note, "actor": m.actor} for m in one.timeline],
        "running": str(one.running.id) if one.running is not None else None,
        "replaces": str(one.replaces.id) if one.replaces is not None else None,
        "replaced_by": [str(w.id) for w in one.replaced_by],
        "warm": one.warm,
        "boot_log": one.boot_log,
    }
    if roles.sees_money(request._request):
        found |= {"price_per_hour_microusd": one.price_per_hour_microusd, "cost_microusd": dict(one.split.microusd)}
    return found


urlpatterns = [
    path("workers", Workers.as_view(), name="operator-workers"),
    path("workers/<str:worker>", OneWorker.as_view(), name="operator-worker"),
    path("workers/<str:worker>/<str:act>", Act.as_view(), name="operator-worker-act"),
]
