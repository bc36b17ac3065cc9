"""A workflow's lock: what a version's image is made of, what was not exact, and every format to take it along."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from builds.locking import document, formats, making
from builds.models import Version, VersionLock, Workflow
from controlplane.console import actions, lock_api, once, pages, roles, workflows
from controlplane.kernel.errors import Invalid, NotFound, WorkflowError
from fleet import queries_workflows

MAX_FILE = 16_000_000
CSV_HEAD = ["name", "version", "layer", "asked_by", "marker", "address", "hashes"]
LAYER_WORDS = {"torch": "torch and what it needs", "comfyui": "ComfyUI", "packs": "packs only"}


@roles.staff
@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest, slug: str) -> HttpResponseBase:
    """The lock of a version, the newest without ?v=; POST makes or imports one."""
    now = timezone.now()
    workflow, version = _wanted(request, slug)
    if request.method == "POST":
        return _make(request, workflow, version, now)
    held = making.of(version) if version is not None else None
    if held is not None and request.GET.get("format") == "csv":
        return pages.csv_file(f"packages-{slug}-v{version.number if version else 0}", CSV_HEAD, _csv(held))
    return _answer(request, workflow, version, held, now=now)


@roles.staff
@require_GET
def download(request: HttpRequest, slug: str, number: int, name: str) -> HttpResponse:
    """The lock of a version as a file."""
    version = Version.objects.select_related("workflow").filter(workflow__slug=slug, number=number).first()
    if version is None:
        raise Http404
    try:
        return lock_api.download(making.export(version=version, name=name), version=version, name=name)
    except NotFound as error:
        raise Http404 from error


@roles.needs("release", "Locking a version")
def _make(request: HttpRequest, workflow: Workflow, version: Version | None, now: datetime) -> HttpResponse:
    if version is None:
        raise Http404
    back = f"{reverse('ops:workflow_lock', args=[workflow.slug])}?v={version.number}"
    if not once.first_time(request):
        return redirect(back)
    typed = {name: actions.text(request, name, most=2_000) for name in ("constraints", "reason")}
    try:
        prepared, reason = _prepared(request, version, typed)
        making.keep(version=version, prepared=prepared, actor=actions.actor(request), reason=reason, now=now)
    except WorkflowError as refusal:
        return _answer(request, workflow, version, making.of(version), refusal=refusal, typed=typed, now=now)
    return redirect(back)


def _prepared(request: HttpRequest, version: Version, typed: dict[str, str]) -> tuple[making.Prepared, str]:
    upload = request.FILES.get("file")
    if upload is not None:
        if (upload.size or 0) > MAX_FILE:
            raise Invalid("lock_file_too_large", "The file is too large for a lock.", "Choose the lock file alone.")
        parts = formats.read(upload.read())
        prepared = making.prepare_from(version=version, parts=parts, pins=bool(request.POST.get("pins")))
        return prepared, typed["reason"] or f"imported from {parts.format}"
    lines = [line.strip() for line in typed["constraints"].splitlines() if line.strip()]
    return making.prepare(version=version, upgrade=bool(request.POST.get("upgrade")), constraints=lines[:100]), typed["reason"]


def _answer(
    request: HttpRequest,
    workflow: Workflow,
    version: Version | None,
    held: VersionLock | None,
    *,
    refusal: WorkflowError | None = None,
    typed: dict[str, str] | None = None,
    now: datetime,
) -> HttpResponse:
    context: dict[str, Any] = {
        "version": version,
        "versions": list(workflow.versions.all()[:100]),
        "held": held,
        "refusal": refusal,
        "typed": typed or {"constraints": "", "reason": ""},
        "formats": [(name, one.title) for name, one in formats.FORMATS.items()] + [("cpack", "comfy-pack archive")],
    }
    if refusal is not None:
        context["sides"] = [one for one in refusal.details.get("sides") or () if isinstance(one, dict)][:20]
        context["refused_findings"] = [one for one in refusal.details.get("findings") or () if isinstance(one, dict) and one.get("message")]
    csv = ""
    if held is not None and version is not None:
        context |= _shown(held)
        csv = f"?v={version.number}&format=csv"
    return workflows.answer(
        request, workflow, "console/workflow_lock.html", context, tab="lock", word="Lock", now=now, csv_href=csv, status=refusal.status if refusal else 200
    )


def _shown(held: VersionLock) -> dict[str, Any]:
    lock = document.normal(held.lock.document)
    base, comfyui, python = lock["base_image"], lock["comfyui"], lock["python"]
    layers = Counter(one["layer"] for one in lock["python_packages"])
    facts = [
        ("ComfyUI", f"{comfyui['version'] or 'no version'} at {comfyui['commit'][:12]}"),
        ("From", comfyui["repository"]),
        ("Base image", base["reference"] + (f" at {base['digest'][7:19]}" if base["digest"] else ", no digest")),
        ("Python", f"{python['version']} on {lock['platform']['os']}/{lock['platform']['arch']}"),
        ("torch", f"{lock['torch']['version']} for {lock['torch']['backend']}" if lock["torch"]["version"] else "none"),
        ("Packages as of", python["as_of"].replace("T", " ").removesuffix("+00:00") + " UTC" if python["as_of"] else "no time: the index tells none"),
    ]
    unsure = [one for one in held.findings if one.get("level") != "info"]
    parts = [
        _many(len(lock["packs"]), "pack"),
        _many(len(lock["python_packages"]), "Python package"),
        _many(len(lock["models"]), "model"),
        _many(len(lock["classes"]), "node class", "node classes"),
    ]
    return {
        "lock": lock,
        "facts": facts,
        "parts": ", ".join(parts),
        "layers": [(LAYER_WORDS[name], layers[name]) for name in LAYER_WORDS if layers[name]],
        "layer_words": LAYER_WORDS,
        "unsure": unsure,
        "notes": [one for one in held.findings if one.get("level") == "info"],
        "shared": VersionLock.objects.filter(lock=held.lock).exclude(pk=held.pk).count(),
    }


def _many(number: int, word: str, plural: str = "") -> str:
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def _csv(held: VersionLock) -> Any:
    for one in document.normal(held.lock.document)["python_packages"]:
        yield [one["name"], one["version"], one["layer"], " ".join(one["asked_by"]), one["marker"], one["url"], " ".join(one["hashes"])]


def _wanted(request: HttpRequest, slug: str) -> tuple[Workflow, Version | None]:
    workflow = workflows.find(slug)
    number = request.GET.get("v", "")
    if not number:
        return workflow, next(iter(workflow.versions.all()), None)
    version = queries_workflows.version(workflow, int(number)) if number.isdecimal() and len(number) < 7 else None
    if version is None:
        raise Http404
    return workflow, version
