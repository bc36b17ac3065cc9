"""The operators' API, for scripts: import a workflow, list, promote. Signed in by session or HTTP Basic; the role counts as in the console."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from django.contrib.auth import authenticate
from django.contrib.auth.models import AbstractBaseUser
from django.urls import path
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from builds import heads, importing, queries, versions
from builds.models import Version, Workflow
from controlplane.console import roles
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Forbidden, Invalid, Unauthenticated

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="comfyplane operators"'}
_FIELDS = ("document", "slug", "name", "message", "description", "category", "expose", "draft", "promote", "branch")


class Basic(BaseAuthentication):
    """An operator's user name and password on every call."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, None] | None:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        if request.headers.get("Origin") or request.headers.get("Sec-Fetch-Site"):
            # A browser that remembers the password would send it from anybody's page.
            raise Forbidden("browser_refused", "A page in a browser may not use a password here.", "Call from a script, or sign in to the console.")
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Unauthenticated("login_malformed", "The Basic credentials cannot be read.", "Send base64 of name:password.", headers=_CHALLENGE) from None
        user = authenticate(request._request, username=name.replace("\x00", ""), password=password) if name and password else None
        if user is None:
            raise Unauthenticated("login_refused", "That name and password do not fit.", "`manage.py credentials` shows the login.", headers=_CHALLENGE)
        return user, None

    def authenticate_header(self, request: Request) -> str:
        return _CHALLENGE["WWW-Authenticate"]


class HasRole(BasePermission):
    """Staff; a view names the role each method wants in `roles`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        user: Any = request.user
        if user is None or not user.is_authenticated:
            raise Unauthenticated("login_missing", "This address is for operators.", "Send HTTP Basic credentials.", headers=_CHALLENGE)
        request._request.user = user
        role = getattr(view, "roles", {}).get(request.method or "", "viewer")
        if not user.is_staff or (role != "viewer" and not roles.may(request._request, role)):
            raise Forbidden("role_missing", f"This needs the role {role}.", "Ask an administrator for it.", details={"role": role})
        return True


class OperatorView(APIView):
    """Not part of the customers' document."""

    schema = None
    authentication_classes = [Basic, SessionAuthentication]
    permission_classes = [HasRole]
    roles: dict[str, str] = {}


class Workflows(OperatorView):
    """GET lists; POST imports an API-format graph."""

    roles = {"POST": "release"}

    def get(self, request: Request) -> Response:
        return Response({"results": [_workflow(w) for w in Workflow.objects.order_by("slug")[:500]], "next": None})

    def post(self, request: Request) -> Response:
        body = jsonbody.load(request._request.body)
        # A bare graph is accepted too, so that an exported file can be sent as it is.
        if "document" not in body:
            body = {"document": body, "slug": request.query_params.get("slug"), "draft": request.query_params.get("draft") in ("1", "true")}
        jsonbody.only(body, _FIELDS)
        for field in ("slug", "name", "message", "description", "category", "promote", "branch"):
            if body.get(field) is not None and not isinstance(body[field], str):
                raise Invalid("wrong_type", f"{field} must be text.", "Send a string, or leave it out.", details={"field": field})
        if body.get("expose") is not None and not isinstance(body["expose"], list):
            raise Invalid("wrong_type", "expose must be a list.", 'Name node inputs, for instance ["3.seed"].', details={"field": "expose"})
        now, actor = timezone.now(), request.user.get_username()
        result = importing.import_graph(
            document=body["document"],
            slug=body.get("slug"),
            name=body.get("name"),
            message=body.get("message") or "",
            branch=body.get("branch") or heads.MAIN,
            description=body.get("description"),
            category=body.get("category"),
            expose=body.get("expose"),
            draft=body.get("draft") is True,
            author=actor,
            now=now,
        )
        if channel := body.get("promote"):
            versions.promote(workflow=result.workflow, channel=channel, version=result.version, actor=actor, now=now)
        answer = {"workflow": result.workflow.slug, **_version(result.version), "created": result.created, "findings": result.findings}
        return Response(answer, status=201 if result.created else 200)


class Channel(OperatorView):
    """POST {"version": n} points a channel at a version."""

    roles = {"POST": "release"}

    def post(self, request: Request, slug: str, channel: str) -> Response:
        body = jsonbody.load(request._request.body)
        jsonbody.only(body, ("version", "reason"))
        number = body.get("version")
        if isinstance(number, bool) or not isinstance(number, int):
            raise Invalid("wrong_type", "version must be a whole number.", "Send the number of a version.", details={"field": "version"})
        workflow = queries.workflow(slug)
        version = queries.version(workflow, number)
        moved = versions.promote(
            workflow=workflow, channel=channel, version=version, actor=request.user.get_username(), reason=str(body.get("reason") or ""), now=timezone.now()
        )
        return Response({"workflow": workflow.slug, "channel": moved.name, **_version(version)})


def _workflow(workflow: Workflow) -> dict[str, Any]:
    channels = {c.name: c.version.number for c in workflow.channels.select_related("version")}
    return {"id": workflow.slug, "name": workflow.name, "category": workflow.category, "archived": workflow.archived_at is not None, "channels": channels}


def _version(version: Version) -> dict[str, Any]:
    return {"version": version.number, "sha256": version.sha256, "runnable": version.runnable, "schema": version.schema}


urlpatterns = [
    path("workflows", Workflows.as_view(), name="operator-workflows"),
    path("workflows/<str:slug>/channels/<str:channel>", Channel.as_view(), name="operator-channel"),
]
