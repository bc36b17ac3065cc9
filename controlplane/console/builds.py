"""Builds: those of a workflow, and each one's steps, layers, log and reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from builds import locking, tasks
from builds.images import asking, building, telling, titles
from builds.images.dockerfile import CHAIN
from builds.images.journal import is_quiet
from builds.models import Build, BuildLine, BuildStep
from controlplane.console import actions, build_api, numbers, pages, roles, workflows
from controlplane.kernel import blobs
from controlplane.kernel.errors import NotFound, WorkflowError

LISTED = 50
LOG_SHOWN = 500
STATE_WORDS = {"running": "Building", "cached": "From the cache", "done": "Made", "failed": "Failed", "canceled": "Canceled"}


@roles.staff
@require_http_methods(["GET", "HEAD", "POST"])
def listing(request: HttpRequest, slug: str) -> HttpResponseBase:
    """The builds of a workflow; POST asks for one."""
    now = timezone.now()
    workflow = workflows.find(slug)
    if request.method == "POST":
        return _ask(request, workflow, now)
    rows = list(Build.objects.filter(version__workflow=workflow).select_related("version__workflow").prefetch_related("steps")[: LISTED + 1])
    known = list(workflow.versions.all()[:100])
    context = {
        "rows": [{"build": b, "seconds": telling.seconds(b), "cache": telling.cache(list(b.steps.all()))} for b in rows[:LISTED]],
        "older": len(rows) > LISTED,
        "choices": known,
        "locked": bool(known) and locking.of(known[0]) is not None,
        "open": any(b.state in Build.OPEN for b in rows),
    }
    return workflows.answer(request, workflow, "console/workflow_builds.html", context, tab="builds", word="Builds", now=now, fragment="console/_builds.html")


@roles.needs("release", "Building an image")
def _ask(request: HttpRequest, workflow: Any, now: datetime) -> HttpResponse:
    number = actions.text(request, "version", most=10)
    version = next((v for v in workflow.versions.all() if str(v.number) == number), None)
    back = redirect("ops:workflow_builds", slug=workflow.slug)
    if version is None:
        messages.error(request, "That version does not exist. Choose one from the list.")
        return back
    try:
        build = asking.ask(version=version, actor=actions.actor(request), now=now)
    except WorkflowError as refusal:
        messages.error(request, f"{refusal.message} {refusal.suggestion}".strip())
        return back
    if build.requested_at == now:
        tasks.start(build)
    elif build.state == Build.State.SUCCEEDED:
        messages.info(request, "This lock has an image already; nothing was built again.")
    return redirect("ops:build", build_id=build.id)


@roles.staff
@require_GET
def page(request: HttpRequest, build_id: UUID) -> HttpResponseBase:
    """One build."""
    now = timezone.now()
    build = _find(build_id)
    rows = list(build.steps.all())
    lines = list(BuildLine.objects.filter(build=build).order_by("-seq")[:LOG_SHOWN])[::-1]
    slug = build.version.workflow.slug
    context: dict[str, Any] = {
        "build": build,
        "open": build.state in Build.OPEN,
        "headline": _headline(build),
        "seconds": telling.seconds(build),
        "so_far": (now - build.started_at).total_seconds() if build.started_at and build.finished_at is None else None,
        "cache": telling.cache(rows),
        "steps": list(_steps(rows)),
        "layers": (layers := _layers(build, rows)),
        "layer_parts": [(layer["title"], layer["size"], f"--c{1 + index % 6}") for index, layer in enumerate(layers)],
        "failure": _failure(build),
        "classes": build.classes or {},
        "vulnerabilities": build.vulnerabilities,
        "lines": lines,
        "first_seq": lines[0].seq if lines else 0,
        "last_seq": lines[-1].seq if lines else 0,
        "may_release": roles.may(request, "release"),
        "steps_word": _step_words(rows),
    }
    crumbs = [("Workflows", reverse("ops:workflows")), (slug, reverse("ops:workflow", args=[slug])), ("Builds", reverse("ops:workflow_builds", args=[slug]))]
    crumbs.append((f"v{build.version.number}, {build.lock_id[:12]}", ""))
    title = f"Build of {build.version}"
    return pages.page(request, "console/build.html", context, title=title, active="workflows", crumbs=crumbs, fragment="console/_build.html", now=now)


def _headline(build: Build) -> str:
    name = str(build.version)
    took = numbers.dur(telling.seconds(build)) if telling.seconds(build) is not None else ""
    if build.state == Build.State.SUCCEEDED:
        return f"The image of {name} is ready, built in {took}"
    if build.state == Build.State.FAILED and build.error:
        return f"The build of {name} failed: {build.error['message'][:110].rstrip('.')}"
    words = {"queued": f"The build of {name} waits for a builder", "running": f"Building the image of {name}", "canceled": f"The build of {name} was canceled"}
    return words.get(build.state, f"The build of {name} failed")


def _steps(rows: list[BuildStep]) -> Iterator[dict[str, Any]]:
    longest = max((row.seconds or 0.0 for row in rows), default=0.0) or 1.0
    for row in rows:
        if not is_quiet(row) or row.state == BuildStep.State.FAILED:
            yield {"row": row, "title": titles.title(row.name), "share": (row.seconds or 0.0) / longest, "word": STATE_WORDS[row.state]}


def _layers(build: Build, rows: list[BuildStep]) -> list[dict[str, Any]]:
    """The layers in their order, what the base image brings first."""
    made = [row for row in rows if row.size_bytes is not None]
    if not made:
        return []
    base = max(0, (build.size_bytes or 0) - sum(row.size_bytes or 0 for row in made))
    ordered = sorted(made, key=lambda row: (CHAIN.index(row.stage) if row.stage in CHAIN else len(CHAIN), _index(row.name), row.position))
    own = [{"title": titles.title(row.name).removeprefix("Layer: "), "size": row.size_bytes, "cached": row.state == "cached"} for row in ordered]
    return [{"title": "Base image", "size": base, "cached": True}, *own] if base else own


def _index(name: str) -> int:
    """The step's place in its stage: the engine names cached steps in any order."""
    found = re.match(r"\[\S+ (\d+)/", name)
    return int(found[1]) if found else 0


def _step_words(rows: list[BuildStep]) -> str:
    told = telling.cache(rows)
    return f"{told['cached']} of {told['steps']} from the cache" if told["steps"] else ""


def _failure(build: Build) -> dict[str, Any] | None:
    if build.state != Build.State.FAILED or not build.error:
        return None
    details = build.error.get("details") or {}
    return {
        **build.error,
        "step": titles.title(build.failed_step) if build.failed_step else "",
        "tail": details.get("tail") or [],
        "packs": details.get("packs") or {},
        "missing": details.get("missing") or [],
    }


@roles.staff
@require_GET
def lines(request: HttpRequest, build_id: UUID) -> HttpResponse:
    """Log lines behind ?after=, as JSON: what the page asks for where it cannot hear the stream."""
    return JsonResponse(build_api.after(_find(build_id), request.GET.get("after", "")), headers={"Cache-Control": "no-store"})


@roles.staff
@require_GET
def log(request: HttpRequest, build_id: UUID) -> HttpResponseBase:
    """The whole log as text."""
    build = _find(build_id)

    def every() -> Iterator[str]:
        for line in BuildLine.objects.filter(build=build).order_by("seq").iterator(chunk_size=2000):
            yield f"{line.at:%Y-%m-%dT%H:%M:%S}Z {line.text}\n"

    return StreamingHttpResponse(every(), content_type="text/plain; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"})


@roles.staff
@require_GET
def dockerfile(request: HttpRequest, build_id: UUID) -> HttpResponse:
    """The Dockerfile it was built from."""
    build = _find(build_id)
    if not build.dockerfile:
        raise Http404
    return HttpResponse(build.dockerfile, content_type="text/plain; charset=utf-8", headers=_attached(f"Dockerfile-{build.lock_id[:12]}"))


@roles.staff
@require_GET
def sbom(request: HttpRequest, build_id: UUID) -> HttpResponseBase:
    """Its bill of materials, CycloneDX JSON."""
    build = _find(build_id)
    if not build.sbom_sha256:
        raise Http404
    name = re.sub(r"[^a-z0-9-]", "", build.version.workflow.slug)
    return FileResponse(
        blobs.open(build.sbom_sha256), content_type="application/vnd.cyclonedx+json", headers=_attached(f"sbom-{name}-{build.lock_id[:12]}.cdx.json")
    )


@roles.needs("release", "Canceling a build")
@require_POST
def cancel(request: HttpRequest, build_id: UUID) -> HttpResponse:
    """Ask for its end."""
    build = _find(build_id)

    def act() -> str:
        ended = building.cancel(build, actor=actions.actor(request), reason=actions.reason(request), now=timezone.now())
        return "The build was canceled." if ended.state == Build.State.CANCELED else "The build ends in a moment."

    return actions.done(request, act, back=reverse("ops:build", args=[build.id]))


def _find(build_id: UUID) -> Build:
    try:
        return building.find(build_id)
    except NotFound:
        raise Http404 from None


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
