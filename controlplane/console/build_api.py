"""The operators' API of builds, for scripts: ask, look, read the log, cancel."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from builds import queries, tasks
from builds.images import asking, building, telling
from builds.models import Build
from controlplane.console.scripting import OperatorView
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Invalid

LISTED = 100


class Builds(OperatorView):
    """GET lists the workflow's builds; POST {"version": 3} asks for one: 202 when it is new, 200 when it was there."""

    roles = {"POST": "release"}

    def get(self, request: Request, slug: str) -> Response:
        workflow = queries.workflow(slug)
        rows = Build.objects.filter(version__workflow=workflow).select_related("version__workflow")[:LISTED]
        return Response({"results": [telling.one(build, steps=False) for build in rows], "next": None})

    def post(self, request: Request, slug: str) -> Response:
        body = jsonbody.load(request._request.body) if request._request.body else {}
        jsonbody.only(body, ("version",))
        wanted = body.get("version")
        if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int | str)):
            raise Invalid("wrong_type", "version must be a number or a channel.", "Leave it out for the newest.", details={"field": "version"})
        workflow = queries.workflow(slug)
        version = queries.version(workflow, wanted) if wanted is not None else queries.latest(workflow)
        if version is None:
            raise Invalid("no_version", f"{slug[:80]} has no version.", "Import a workflow file first.")
        now = timezone.now()
        build = asking.ask(version=version, actor=request.user.get_username(), now=now)
        fresh = build.requested_at == now
        if fresh:
            tasks.start(build)
        return Response(telling.one(building.find(build.id)), status=202 if fresh else 200)


class One(OperatorView):
    """GET: the build with its steps."""

    def get(self, request: Request, build: UUID) -> Response:
        return Response(telling.one(building.find(build)))


class Log(OperatorView):
    """GET ?after=120: log lines behind a number, at most 500."""

    def get(self, request: Request, build: UUID) -> Response:
        found = building.find(build)
        return Response(after(found, request.query_params.get("after", "")))


class Cancel(OperatorView):
    """POST: end it."""

    roles = {"POST": "release"}

    def post(self, request: Request, build: UUID) -> Response:
        building.cancel(building.find(build), actor=request.user.get_username(), now=timezone.now())
        return Response(telling.one(building.find(build)))


def after(build: Build, given: str) -> dict[str, Any]:
    """Lines behind the number `given`, and whether there will be more."""
    seq = int(given) if given.isdecimal() and len(given) < 10 else 0
    lines = telling.lines_after(build, seq)
    return {"state": build.state, "lines": lines, "next": lines[-1]["seq"] if lines else seq, "open": build.state in Build.OPEN}


urlpatterns = [
    path("workflows/<str:slug>/builds", Builds.as_view(), name="operator-builds"),
    path("builds/<uuid:build>", One.as_view(), name="operator-build"),
    path("builds/<uuid:build>/log", Log.as_view(), name="operator-build-log"),
    path("builds/<uuid:build>/cancel", Cancel.as_view(), name="operator-build-cancel"),
]
