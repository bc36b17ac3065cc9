"""Smoke runs for scripts, under /ops/api/smoke: the matrix, ask for runs, look at one."""

from __future__ import annotations

from typing import Any

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from builds import queries
from controlplane.console.scripting import OperatorView
from controlplane.console.smoke import chosen
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Invalid, NotFound
from controlplane.kernel.ids import parse_uuid
from fleet import queries_smoke, smoke
from fleet.models import SmokeRun
from fleet.presenting import stamp

_ONE_OF = 'Send {"workflow": "slug", "version": 3}, {"failing": true} or {"all": true}.'


class Smoke(OperatorView):
    """GET shows the matrix; POST asks for runs."""

    roles = {"POST": "operator"}

    def get(self, request: Request) -> Response:
        return Response(shown(queries_smoke.matrix()))

    def post(self, request: Request) -> Response:
        body = jsonbody.load(request._request.body)
        jsonbody.only(body, ("workflow", "version", "failing", "all"))
        if isinstance(slug := body.get("workflow"), str):
            number = body.get("version")
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | str)):
                raise Invalid("wrong_type", "version must be a number or the name of a channel.", _ONE_OF, details={"field": "version"})
            found = queries.version(queries.workflow(slug), number)
            versions = chosen(str(found.pk))
        elif body.get("all") is True or body.get("failing") is True:
            versions = chosen("all" if body.get("all") is True else "failing")
        else:
            raise Invalid("nothing_named", "The body names nothing to run.", _ONE_OF)
        actor = request.user.get_username()
        runs = [smoke.request(version=v, trigger=SmokeRun.Trigger.PERSON, actor=actor, now=timezone.now()) for v in versions]
        return Response({"runs": [one(run) for run in runs]}, status=202)


class OneRun(OperatorView):
    """One run."""

    def get(self, request: Request, run: str) -> Response:
        run_id = parse_uuid(run)
        found = SmokeRun.objects.select_related("version__workflow", "build").filter(id=run_id).first() if run_id else None
        if found is None:
            raise NotFound("smoke_run_not_found", "There is no such smoke run.", "List them with GET /ops/api/smoke.")
        return Response(one(found))


def shown(found: queries_smoke.Matrix) -> dict[str, Any]:
    """The matrix as JSON."""
    return {
        "endpoints": found.endpoints,
        "covered": found.covered,
        "failing": found.failing,
        "results": [
            {
                "workflow": row.workflow.slug,
                "version": cell.version.number,
                "channels": cell.channels,
                "newest": cell.newest,
                "state": cell.state,
                "last": one(cell.ended) if cell.ended else None,
                "open": str(cell.open.id) if cell.open else None,
                "image": one(cell.image) if cell.image else None,
            }
            for row in found.rows
            for cell in row.cells
        ],
    }


def one(run: SmokeRun) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "id": str(run.id),
        "workflow": run.version.workflow.slug,
        "version": run.version.number,
        "trigger": run.trigger,
        "state": run.state,
        "requested_at": stamp(run.requested_at),
        "requested_by": run.requested_by,
        "finished_at": stamp(run.finished_at),
        "run_s": run.report.get("run_s"),
        "image": run.build.image if run.build else None,
        "job": str(run.job_id) if run.job_id else None,
        "error": run.error,
    }


urlpatterns = [
    path("smoke", Smoke.as_view(), name="operator-smoke"),
    path("smoke/runs/<str:run>", OneRun.as_view(), name="operator-smoke-run"),
]
