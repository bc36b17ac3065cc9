"""The operators' API of locks, for scripts: read, make, check, import, and every format of the field.

Making a lock asks mirrors and the package index and takes seconds; a conflict is 409 with both sides in `details`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.http import HttpResponse
from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from builds import queries
from builds.locking import asking, formats, making
from builds.locking.formats import Written
from builds.locking.sources import Target
from builds.models import Version
from controlplane.console.scripting import OperatorView
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Invalid, NotFound

_TYPES: dict[str, Any] = {"version": (str, int), "comfyui": str, "constraints": list, "upgrade": bool, "check": bool, "reason": str}


class Lock(OperatorView):
    """GET ?version=3&format=manager reads; POST {"version", "comfyui", "constraints", "upgrade", "check", "reason"} makes."""

    roles = {"POST": "release"}

    def get(self, request: Request, slug: str) -> Response | HttpResponse:
        version = version_of(slug, request.query_params.get("version", ""))
        name = request.query_params.get("format", "")
        if name:
            return download(making.export(version=version, name=name), version=version, name=name)
        held = making.of(version)
        if held is None:
            raise NotFound("not_locked", f"{slug} v{version.number} has no lock yet.", "Make it: POST to this address.")
        answer = asking.said(version, held.lock.document, held.findings)
        return Response(answer | {"made_at": held.made_at.isoformat(), "made_by": held.made_by})

    def post(self, request: Request, slug: str) -> Response:
        body = _body(request)
        version = version_of(slug, body.get("version"))
        held = making.of(version)
        target = Target.of_settings()
        if body.get("comfyui"):
            target = replace(target, ref=body["comfyui"])
        prepared = making.prepare(version=version, target=target, upgrade=body.get("upgrade") is True, constraints=body.get("constraints") or ())
        if not body.get("check"):
            making.keep(version=version, prepared=prepared, actor=request.user.get_username(), reason=body.get("reason") or "", now=timezone.now())
        changed = held is None or held.lock_id != prepared.sha256
        answer = asking.said(version, prepared.document, prepared.findings, changed=changed)
        answer["changes"] = asking.changes(held.lock.document, prepared.document) if held is not None and changed else []
        return Response(answer, status=201 if changed and not body.get("check") else 200)


class Import(OperatorView):
    """POST the bytes of a lock file; ?version=3&format=&pins=0&all_packs=1&check=1."""

    roles = {"POST": "release"}

    def post(self, request: Request, slug: str) -> Response:
        asked = request.query_params
        version = version_of(slug, asked.get("version", ""))
        parts = formats.read(request._request.body, asked.get("format", ""))
        prepared = making.prepare_from(version=version, parts=parts, pins=asked.get("pins") != "0", all_packs=asked.get("all_packs") == "1")
        held = making.of(version)
        changed = held is None or held.lock_id != prepared.sha256
        if asked.get("check") != "1":
            making.keep(
                version=version, prepared=prepared, actor=request.user.get_username(), reason=f"imported from {parts.format}", now=timezone.now()
            )  # fmt: skip
        said = asking.said(version, prepared.document, prepared.findings, changed=changed)
        return Response(said, status=201 if changed and asked.get("check") != "1" else 200)


def version_of(slug: str, wanted: Any) -> Version:
    """The version `wanted` (number, channel or hash), the newest without."""
    workflow = queries.workflow(slug)
    return queries.version(workflow, wanted) if wanted not in (None, "") else asking.version_named(workflow.slug)


def download(written: Written, *, version: Version, name: str) -> HttpResponse:
    """A file to keep, named after the workflow; what it could not hold is told in a header, as findings are in JSON."""
    base = f"{version.workflow.slug}-v{version.number}"
    filename = f"{base}.cpack.zip" if name == "cpack" else f"{base}-{formats.named(name).filename}"
    kind = "application/zip" if name == "cpack" else "application/yaml" if filename.endswith(".yaml") else "application/json"
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "X-Lock-Findings": str(len(written.findings))}
    return HttpResponse(written.data, content_type=f"{kind}; charset=utf-8" if kind != "application/zip" else kind, headers=headers)


def _body(request: Request) -> dict[str, Any]:
    body = jsonbody.load(request._request.body) if request._request.body else {}
    jsonbody.only(body, tuple(_TYPES))
    for field, wanted in _TYPES.items():
        value = body.get(field)
        if value is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)):
            raise Invalid("wrong_type", f"{field} is of the wrong type.", "See docs/locks.md.", details={"field": field})
    if not all(isinstance(line, str) for line in body.get("constraints") or ()) or len(body.get("constraints") or ()) > 100:
        raise Invalid("wrong_type", "constraints must be a list of at most 100 texts.", 'For instance ["numpy<2"].', details={"field": "constraints"})
    return body


urlpatterns = [
    path("workflows/<str:slug>/lock", Lock.as_view(), name="operator-lock"),
    path("workflows/<str:slug>/lock/import", Import.as_view(), name="operator-lock-import"),
]
