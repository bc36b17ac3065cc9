"""Dependencies for scripts, under /ops/api: the report on a workflow or a document, pins, and what is known of models."""

from __future__ import annotations

from typing import Any

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from builds import dependencies, queries
from builds.dependencies import model_facts, pins
from builds.models import Pin, Version, Workflow
from controlplane.console.scripting import OperatorView
from controlplane.kernel import jsonbody
from controlplane.kernel.envelope import request_id_of
from controlplane.kernel.errors import Invalid, NotFound

_PIN = 'Send {"class": "…", "pack": "registry id or repository", "reason": "…", "version": "…"}.'
_MODEL = ("filename", "directory", "url", "sha256", "licence", "family", "size_bytes")


class Dependencies(OperatorView):
    """GET: the report on a version; the newest, or ?version=NUMBER, CHANNEL or HASH."""

    def get(self, request: Request, slug: str) -> Response:
        workflow = queries.workflow(slug)
        version = _version(workflow, request.query_params.get("version"))
        return Response({"workflow": workflow.slug, "version": version.number, "sha256": version.sha256, **dependencies.of_version(version).as_json()})


class OfDocument(OperatorView):
    """POST a document; the report on it, and nothing is kept."""

    def post(self, request: Request) -> Response:
        body = jsonbody.load(request._request.body)
        return Response(dependencies.of_document(document=body.get("document", body)).as_json())


class Pins(OperatorView):
    """Pins of one workflow, with those for all; or those for all only. POST sets one, DELETE with ?class= takes it back."""

    roles = {"POST": "release", "DELETE": "release"}

    def get(self, request: Request, slug: str = "") -> Response:
        rows = Pin.objects.select_related("pack", "workflow").order_by("class_name", "id")
        rows = rows.filter(workflow=None) | rows.filter(workflow=queries.workflow(slug)) if slug else rows.filter(workflow=None)
        return Response({"results": [pin_shown(row) for row in rows[:1_000]]})

    def post(self, request: Request, slug: str = "") -> Response:
        body = jsonbody.load(request._request.body)
        jsonbody.only(body, ("class", "pack", "reason", "version"))
        for field in ("class", "pack", "reason", "version"):
            if not isinstance(body.get(field, ""), str):
                raise Invalid("wrong_type", f"{field} must be text.", _PIN, details={"field": field})
        pin = pins.place(
            class_name=body.get("class", ""),
            pack=body.get("pack", ""),
            reason=body.get("reason", ""),
            version=body.get("version", ""),
            workflow=queries.workflow(slug) if slug else None,
            actor=request.user.get_username(),
            request_id=request_id_of(request._request),
            now=timezone.now(),
        )
        return Response(pin_shown(pin), status=201)

    def delete(self, request: Request, slug: str = "") -> Response:
        pins.remove(
            class_name=request.query_params.get("class", ""),
            reason=request.query_params.get("reason", ""),
            workflow=queries.workflow(slug) if slug else None,
            actor=request.user.get_username(),
            request_id=request_id_of(request._request),
            now=timezone.now(),
        )
        return Response(status=204)


class Models(OperatorView):
    """POST what is known of a model file: its folder, address, sha256, licence, family, size."""

    roles = {"POST": "release"}

    def post(self, request: Request) -> Response:
        body = jsonbody.load(request._request.body)
        jsonbody.only(body, _MODEL)
        size = body.get("size_bytes")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 53):
            raise Invalid("wrong_type", "size_bytes must be a whole number.", "Send the size of the file in bytes.", details={"field": "size_bytes"})
        for field in _MODEL[:-1]:
            if not isinstance(body.get(field, ""), str):
                raise Invalid("wrong_type", f"{field} must be text.", "Send a string, or leave it out.", details={"field": field})
        actor = request.user.get_username()
        row = model_facts.remember(
            **{field: body.get(field, "") for field in _MODEL[:-1]},
            size_bytes=size,
            actor=actor,
            request_id=request_id_of(request._request),
            now=timezone.now(),
        )
        return Response({field: getattr(row, field) for field in _MODEL}, status=201)


def pin_shown(pin: Pin) -> dict[str, Any]:
    """A pin as JSON."""
    return {
        "class": pin.class_name,
        "pack": pin.pack.key,
        "version": pin.version,
        "workflow": pin.workflow.slug if pin.workflow else None,
        "reason": pin.reason,
        "author": pin.author,
        "created_at": pin.created_at.isoformat(),
    }


def _version(workflow: Workflow, wanted: str | None) -> Version:
    version = queries.version(workflow, wanted) if wanted else queries.latest(workflow)
    if version is None:
        raise NotFound("unknown_version", f"{workflow.slug} has no version yet.", "Import one.")
    return version


urlpatterns = [
    path("dependencies", OfDocument.as_view(), name="operator-dependencies-of-document"),
    path("models", Models.as_view(), name="operator-models"),
    path("pins", Pins.as_view(), name="operator-pins"),
    path("workflows/<str:slug>/dependencies", Dependencies.as_view(), name="operator-dependencies"),
    path("workflows/<str:slug>/pins", Pins.as_view(), name="operator-workflow-pins"),
]
