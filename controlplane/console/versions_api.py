"""The operators' API of versions, for scripts: log, diff, branches, merge, restore.

A version is named by number, branch, channel or the start of its hash. A merge with open conflicts is 409 and lists
each with its key; send the same again with `choices` {key: "ours" | "theirs"}.
"""

from __future__ import annotations

from typing import Any

from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from builds import branches, heads, history, queries, revisions
from builds.comparing import diff, telling
from builds.models import Branch, Version, Workflow
from controlplane.console.scripting import OperatorView
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Invalid


class Versions(OperatorView):
    """GET the log; `?branch=` only what that branch holds."""

    def get(self, request: Request, slug: str) -> Response:
        workflow = queries.workflow(slug)
        name = request.query_params.get("branch", "")
        if name:
            heads.branch(workflow, name)
        log = history.log(workflow, branch=name)
        return Response({"results": [_entry(entry) for entry in log.entries], "left_out": log.left_out})


class Diff(OperatorView):
    """GET ?a=3&b=5: what changes from a to b."""

    def get(self, request: Request, slug: str) -> Response:
        workflow = queries.workflow(slug)
        a, b = (_version(workflow, request.query_params.get(side), field=side) for side in ("a", "b"))
        found = diff(revisions.content_of(a), revisions.content_of(b))
        return Response({"workflow": slug, "a": a.number, "b": b.number, **telling.as_json(found)})


class Branches(OperatorView):
    """GET lists; POST {"name": …, "at": 3} makes one, at main's head when `at` is left out."""

    roles = {"POST": "release"}

    def get(self, request: Request, slug: str) -> Response:
        return Response({"results": [_branch(line) for line in branches.listed(queries.workflow(slug))]})

    def post(self, request: Request, slug: str) -> Response:
        body = _body(request, {"name": str, "at": (str, int)})
        workflow = queries.workflow(slug)
        at = _version(workflow, body["at"], field="at") if body.get("at") is not None else None
        made = branches.create(workflow=workflow, name=_text(body, "name"), at=at, actor=_actor(request), now=timezone.now())
        return Response(_branch(made), status=201)


class OneBranch(OperatorView):
    """DELETE takes the branch away; its versions stay."""

    roles = {"DELETE": "release"}

    def delete(self, request: Request, slug: str, name: str) -> Response:
        branches.delete(workflow=queries.workflow(slug), branch=name, actor=_actor(request), now=timezone.now())
        return Response(status=204)


class Merge(OperatorView):
    """POST {"from": "side", "into": "main", "choices": {…}, "expected": 5, "expected_from": 4, "dry_run": true}."""

    roles = {"POST": "release"}

    def post(self, request: Request, slug: str) -> Response:
        types = {"from": (str, int), "into": str, "choices": dict, "expected": (str, int), "expected_from": (str, int), "message": str, "dry_run": bool}
        body = _body(request, types)
        workflow = queries.workflow(slug)
        into, source = body.get("into") or heads.MAIN, _source(workflow, body)
        if body.get("dry_run"):
            return Response(_prepared(branches.prepare(workflow=workflow, into=into, source=source, choices=body.get("choices"))))
        expected, expected_source = (_version(workflow, body[key], field=key) if body.get(key) is not None else None for key in ("expected", "expected_from"))
        done = branches.merge_branch(
            workflow=workflow, into=into, source=source, choices=body.get("choices"), expected=expected, expected_source=expected_source,
            message=body.get("message") or "", actor=_actor(request), now=timezone.now(),
        )  # fmt: skip
        said = _prepared(done.prepared) | {
            "version": done.version.number,
            "sha256": done.version.sha256,
            "runnable": done.version.runnable,
            "created": done.created,
        }
        return Response(said | {"findings": done.version.findings}, status=201 if done.created else 200)


class Restore(OperatorView):
    """POST {"version": 3, "branch": "main", "expected": 5, "reason": "…"} lets the branch stand at an earlier version again."""

    roles = {"POST": "release"}

    def post(self, request: Request, slug: str) -> Response:
        body = _body(request, {"version": (str, int), "branch": str, "expected": (str, int), "reason": str})
        workflow = queries.workflow(slug)
        expected = _version(workflow, body["expected"], field="expected") if body.get("expected") is not None else None
        line = branches.restore(
            workflow=workflow, branch=body.get("branch") or heads.MAIN, version=_version(workflow, body.get("version"), field="version"), expected=expected,
            actor=_actor(request), reason=body.get("reason") or "", now=timezone.now(),
        )  # fmt: skip
        return Response(_branch(line))


def _source(workflow: Workflow, body: dict[str, Any]) -> str | Version:
    """A branch by its name, else a version."""
    given = body.get("from")
    if isinstance(given, str) and heads.named(workflow, given):
        return given
    return _version(workflow, given, field="from")


def _version(workflow: Workflow, given: Any, *, field: str) -> Version:
    if given is None or given == "":
        raise Invalid("field_missing", f"{field} is missing.", "Name a version by number, branch, channel or hash.", details={"field": field})
    return revisions.at(workflow, str(given).strip()[:70])


def _text(body: dict[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise Invalid("field_missing", f"{field} is missing.", "Send it as text.", details={"field": field})
    return value


def _body(request: Request, types: dict[str, Any]) -> dict[str, Any]:
    body = jsonbody.load(request._request.body)
    jsonbody.only(body, tuple(types))
    for field, wanted in types.items():
        value = body.get(field)
        if value is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)):
            raise Invalid("wrong_type", f"{field} is of the wrong type.", "See what this address takes in the documentation.", details={"field": field})
    return body


def _actor(request: Request) -> str:
    return str(request.user.get_username())


def _entry(entry: history.Entry) -> dict[str, Any]:
    version = entry.version
    return {
        "version": version.number,
        "sha256": version.sha256,
        "parents": list(entry.parents),
        "branches": list(entry.heads),
        "author": version.author,
        "message": version.message,
        "runnable": version.runnable,
        "created_at": version.created_at.isoformat(),
    }


def _branch(line: Branch) -> dict[str, Any]:
    return {"name": line.name, "head": line.head.number, "created_by": line.created_by, "moved_at": line.moved_at.isoformat()}


def _prepared(ready: branches.Prepared) -> dict[str, Any]:
    said: dict[str, Any] = {"result": ready.kind, "into": ready.into.name, "from": ready.source, "ours": ready.ours.number, "theirs": ready.theirs.number}
    said["base"] = ready.base.number if ready.base else None
    if ready.merged is not None:
        said |= {"conflicts": [clash.as_json() for clash in ready.merged.clashes[:500]], "notes": ready.merged.notes, "renumbered": ready.merged.renumbered}
    return said


urlpatterns = [
    path("workflows/<str:slug>/versions", Versions.as_view(), name="operator-versions"),
    path("workflows/<str:slug>/diff", Diff.as_view(), name="operator-diff"),
    path("workflows/<str:slug>/branches", Branches.as_view(), name="operator-branches"),
    path("workflows/<str:slug>/branches/<str:name>", OneBranch.as_view(), name="operator-branch"),
    path("workflows/<str:slug>/merge", Merge.as_view(), name="operator-merge"),
    path("workflows/<str:slug>/restore", Restore.as_view(), name="operator-restore"),
]
