"""What people do with branches: make one, merge one into another with a choice for each conflict, go back, delete."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from builds import branches, heads, revisions, wording
from builds.comparing import Content, diff, telling
from builds.merging import OURS, THEIRS, Clash
from builds.merging.clashes import INPUTS, NODE, VERSION
from builds.models import Version, Workflow
from controlplane.console import actions, once, roles
from controlplane.console.workflows import answer, find
from controlplane.kernel.errors import Conflict, Invalid, WorkflowError

MOST_CLASHES = 100


@roles.needs("release", "Making a branch")
@require_POST
def create(request: HttpRequest, slug: str) -> HttpResponse:
    """A branch at a version."""
    workflow = find(slug)
    name = actions.text(request, "name", most=80)

    def act() -> str:
        made = branches.create(
            workflow=workflow, name=name, at=_version(workflow, request.POST.get("at", "")), actor=actions.actor(request), now=timezone.now()
        )
        return f"Branch {made.name} made at v{made.head.number}. Import onto it to change it."

    return actions.done(request, act, back=reverse("ops:workflow_versions", args=[slug]))


@roles.needs("release", "Restoring a version")
@require_POST
def restore(request: HttpRequest, slug: str) -> HttpResponse:
    """Let a branch stand at another version; refused when it moved since the page was made."""
    workflow = find(slug)
    name = request.POST.get("branch", heads.MAIN)[:60]

    def act() -> str:
        seen = request.POST.get(f"expected-{name}", "")
        expected = _version(workflow, seen) if seen else None
        line = branches.restore(
            workflow=workflow, branch=name, version=_version(workflow, request.POST.get("version", "")), expected=expected,
            actor=actions.actor(request), reason=actions.reason(request), now=timezone.now(),
        )  # fmt: skip
        return f"{name} stands at v{line.head.number} again. What customers run is up to the channels and did not change."

    return actions.done(request, act, back=reverse("ops:workflow_versions", args=[slug]))


@roles.needs("release", "Deleting a branch")
@require_POST
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Take a branch away; its versions stay."""
    workflow = find(slug)
    name = request.POST.get("branch", "")[:60]

    def act() -> str:
        branches.delete(workflow=workflow, branch=name, actor=actions.actor(request), now=timezone.now())
        return f"Branch {name} deleted. Its versions stay."

    return actions.done(request, act, back=reverse("ops:workflow_versions", args=[slug]))


@roles.staff
@require_http_methods(["GET", "HEAD", "POST"])
def merge(request: HttpRequest, slug: str) -> HttpResponse:
    """What the merge would give, and a choice for each conflict; sent, it is done."""
    now = timezone.now()
    workflow = find(slug)
    given = request.POST if request.method == "POST" else request.GET
    into, named = given.get("into", heads.MAIN)[:60], given.get("from", "")[:70]
    choices: dict[str, str] = {}
    error: WorkflowError | None = None
    status = 200
    try:
        source = _source(workflow, named)
        if request.method == "POST":
            if not roles.may(request, "release"):
                return roles.refuse(request, "release", "Merging")
            choices = _choices(request, workflow, into, source)
            if not once.first_time(request):
                messages.info(request, "That was done already; nothing was repeated.")
                return redirect("ops:workflow_versions", slug=slug)
            try:
                return _done(request, workflow, into, source, choices)
            except (Conflict, Invalid) as refusal:
                error, status = refusal, refusal.status
        ready = branches.prepare(workflow=workflow, into=into, source=source, choices=choices)
    except WorkflowError as refusal:
        if refusal.status == 404:
            raise Http404 from None
        messages.error(request, f"{refusal.message} {refusal.suggestion}")
        return redirect("ops:workflow_versions", slug=slug)
    context = {"ready": ready, "from": named, "into": into, "error": error, "message": actions.text(request, "message"), **_shown(ready)}
    return answer(request, workflow, "console/workflow_merge.html", context, tab="versions", word=f"Merge {named} into {into}", now=now, status=status)


def _done(request: HttpRequest, workflow: Workflow, into: str, source: str | Version, choices: dict[str, str]) -> HttpResponse:
    expected = {side: _version(workflow, request.POST[side]) if request.POST.get(side) else None for side in ("expected", "expected_source")}
    done = branches.merge_branch(
        workflow=workflow, into=into, source=source, choices=choices, message=actions.text(request, "message"), actor=actions.actor(request),
        now=timezone.now(), **expected,
    )  # fmt: skip
    said = {
        branches.UP_TO_DATE: f"{into} holds all of it already.",
        branches.FAST_FORWARD: f"{into} moved on to v{done.version.number}.",
        branches.MERGED: f"Merged as v{done.version.number}." if done.created else f"The outcome is v{done.version.number}, and {into} stands there now.",
    }[done.kind]
    messages.success(request, said if done.version.runnable else f"{said} It cannot run before its findings are mended.")
    query = urlencode({"a": done.prepared.ours.number, "b": done.version.number})
    return redirect(f"{reverse('ops:workflow_diff', args=[workflow.slug])}?{query}")


def _choices(request: HttpRequest, workflow: Workflow, into: str, source: str | Version) -> dict[str, str]:
    """Key → side, as chosen one by one, and for the rest at once."""
    made: dict[str, str] = {}
    for name, side in request.POST.items():
        if name.startswith("side.") and side in (OURS, THEIRS):
            key = request.POST.get(f"key.{name.removeprefix('side.')}", "")
            if key:
                made[key[:600]] = str(side)
    rest = request.POST.get("rest", "")
    for _ in range(10 if rest in (OURS, THEIRS) else 0):
        # A choice may lay open what it leads to.
        ready = branches.prepare(workflow=workflow, into=into, source=source, choices=made)
        if ready.merged is None or not ready.merged.open:
            break
        made |= {clash.key: rest for clash in ready.merged.open}
    return made


def _shown(ready: branches.Prepared) -> dict[str, Any]:
    if ready.merged is None:
        return {"clashes": [], "clashes_left": 0, "open": 0, "outcome": "", "notes": []}
    clashes = sorted(ready.merged.clashes, key=lambda clash: bool(clash.chosen))
    found = diff(Content.of(ready.ours), ready.merged.content)
    return {
        "clashes": [(at, clash, _label(clash, ready), _sides(clash)) for at, clash in enumerate(clashes[:MOST_CLASHES])],
        "clashes_left": max(0, len(clashes) - MOST_CLASHES),
        "open": len(ready.merged.open),
        "outcome": telling.summary(found),
        "notes": ready.merged.notes[:50],
    }


def _label(clash: Clash, ready: branches.Prepared) -> str:
    """What people call the place of a conflict."""
    if clash.node in (INPUTS, VERSION):
        return f"{'API input' if clash.node == INPUTS else 'Limit'} {telling.cut(clash.field, 100)}"
    graphs = [ready.merged.content.graph] if ready.merged else []
    node = next((graph[clash.node] for graph in (*graphs, ready.ours.graph, ready.theirs.graph) if clash.node in graph), None)
    title = telling.cut(wording.title(node), 80) if node else f"Node {clash.node}"
    return f"{title}, {'the whole node' if clash.field == NODE else telling.cut(clash.field.removeprefix('@'), 80)}"


def _sides(clash: Clash) -> list[tuple[str, str]]:
    return [(side, telling.cut(telling.shown(value), 240)) for side, value in (("base", clash.base), (OURS, clash.ours), (THEIRS, clash.theirs))]


def _source(workflow: Workflow, named: str) -> str | Version:
    return named if heads.named(workflow, named) else revisions.at(workflow, named)


def _version(workflow: Workflow, text: str) -> Version:
    return revisions.at(workflow, text.strip()[:70])
