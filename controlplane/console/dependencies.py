"""A workflow's dependencies: packs with versions, classes to decide, models with what is known and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from builds import dependencies, libraries
from builds.dependencies import folders, model_facts, pins
from builds.dependencies.families import TITLES, title
from builds.dependencies.report import AMBIGUOUS, CORE, MISSING, PINNED, RESOLVED, UI_ONLY, Report
from builds.models import Pin, Version, Workflow
from controlplane.console import actions, pages, roles, workflows
from controlplane.kernel.envelope import request_id_of
from controlplane.kernel.errors import Invalid
from fleet import queries_workflows

CHOICE = "pack:"
MAX_CHOICES = 200
CSV_HEAD = ["name", "directory", "type", "status", "node", "class", "input", "url", "size_bytes", "sha256", "licence", "family", "precision", "unknown", "fix"]


@roles.staff
@require_GET
def page(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Everything a version needs, what is missing first."""
    now = timezone.now()
    workflow, version = _wanted(request, slug)
    context: dict[str, Any] = {"version": version}
    csv = ""
    if version is not None:
        report = pages.part(request, lambda: dependencies.of_version(version))
        if request.GET.get("format") == "csv" and isinstance(report, Report):
            return pages.csv_file(f"models-{slug}-v{version.number}", CSV_HEAD, csv_rows(report))
        context["failed" if isinstance(report, pages.Failed) else "report"] = report
        if isinstance(report, Report):
            context |= shown(report)
            context["pins"] = list(_pins(workflow, report))
            query = request.GET.copy()
            query["format"] = "csv"
            csv = f"?{query.urlencode()}" if report.models else ""
    context["may_choose"] = roles.may(request, "release")
    context["reaches"] = [("workflow", "this workflow"), ("all", "all workflows")]
    return workflows.answer(request, workflow, "console/workflow_dependencies.html", context, tab="dependencies", word="Dependencies", now=now, csv_href=csv)


def shown(report: Report) -> dict[str, Any]:
    """A report as the templates take it; the import page shows the same."""
    decide = [one for one in report.of_status(AMBIGUOUS, MISSING) if not one.asleep]
    open_models = [one for one in report.models if one.status != "known" and not one.asleep]
    errors = sum(one["level"] == "error" for one in report.findings)
    return {
        "report": report,
        "decide": decide,
        "decide_more": max(0, len(decide) - MAX_CHOICES),
        "packs": report.packs,
        "models": model_rows(report),
        "open_models": len(open_models),
        "class_rows": sorted(report.classes, key=lambda one: (_ORDER.index(one.status), one.asleep, one.name.lower())),
        "class_words": _WORDS,
        "dep_findings": [one for one in report.findings if one["code"] not in _SHOWN_ELSEWHERE],
        "dep_errors": errors,
        "headline": headline(report, decide=len(decide), models=len(open_models)),
        "families": [("", "not known"), *sorted(TITLES.items(), key=lambda one: one[1])],
        "model_folders": sorted(folders.KINDS),
        "first_open": open_models[0].name if open_models else "",
        "first_folder": open_models[0].directory if open_models else "",
    }


def model_rows(report: Report) -> list[dict[str, Any]]:
    """Each file once, with every node that loads it; what is open comes first."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in sorted(report.models, key=lambda one: (one.asleep, one.status == "known", one.directory, one.name)):
        row = rows.setdefault((one.name, one.directory), {**vars(one), "nodes": [], "family": title(one.family) if one.family else ""})
        if one.node not in row["nodes"]:
            row["nodes"].append(one.node)
    return list(rows.values())


_ORDER = (MISSING, AMBIGUOUS, RESOLVED, PINNED, CORE, UI_ONLY)
_WORDS = {
    MISSING: ("Not known", "bad"),
    AMBIGUOUS: ("To decide", "warn"),
    RESOLVED: ("Found", "ok"),
    PINNED: ("Pinned", "acc"),
    CORE: ("ComfyUI", ""),
    UI_ONLY: ("Canvas only", ""),
}
# Each has its own place on the page.
_SHOWN_ELSEWHERE = frozenset({"pack_ambiguous", "pack_unknown", "model_source_unknown", "model_ambiguous", "model_folder_unknown"})


def headline(report: Report, *, decide: int, models: int) -> str:
    """The one sentence that says whether anything is open."""
    said = []
    if decide:
        said.append(f"{decide} node class{'' if decide == 1 else 'es'} to decide")
    if models:
        said.append(f"{models} model{'' if models == 1 else 's'} without a known source")
    packs = len(report.packs)
    whole = f"{packs} pack{'' if packs == 1 else 's'} and {len(report.models)} model{'' if len(report.models) == 1 else 's'}, all with a known source"
    if not packs and not report.models:
        whole = "Nothing beyond ComfyUI itself"
    return ", ".join(said) if said else whole


def csv_rows(report: Report) -> Iterator[list[Any]]:
    for one in report.models:
        yield [
            *(one.name, one.directory, one.type, one.status, one.node, one.class_type, one.input, one.url, one.size_bytes, one.sha256),
            *(one.licence, one.family, one.precision, " ".join(one.unknown), one.fix),
        ]


@roles.needs("release", "Choosing a pack")
@require_POST
def choose(request: HttpRequest, slug: str) -> HttpResponse:
    """Pin the chosen packs, with one reason."""
    workflow = workflows.find(slug)
    back = reverse("ops:workflow_dependencies", args=[slug])
    reach = None if request.POST.get("reach") == "all" else workflow
    return actions.done(request, lambda: place(request, workflow=reach), back=back)


def place(request: HttpRequest, *, workflow: Workflow | None) -> str:
    """Pin what the form chose; tells what was done. Raises Invalid when nothing was chosen."""
    chosen = [(name.removeprefix(CHOICE), str(value).strip()) for name, value in request.POST.items() if name.startswith(CHOICE) and str(value).strip()]
    if not chosen:
        raise Invalid("nothing_chosen", "No pack was chosen.", "Choose one for at least one class.")
    now = timezone.now()
    for class_name, pack in chosen[:MAX_CHOICES]:
        pins.place(
            class_name=class_name.replace("\x00", ""),
            pack=pack.replace("\x00", "")[:400],
            reason=actions.reason(request),
            workflow=workflow,
            actor=actions.actor(request),
            request_id=request_id_of(request),
            now=now,
        )
    names = ", ".join(name for name, _ in chosen[:3])
    return f"Kept: {names}{f' and {len(chosen) - 3} more' if len(chosen) > 3 else ''} {'is' if len(chosen) == 1 else 'are'} pinned."


@roles.needs("release", "Taking a pin back")
@require_POST
def unpin(request: HttpRequest, slug: str) -> HttpResponse:
    """Take one pin back."""
    workflow = workflows.find(slug)
    name = actions.text(request, "class", most=200)

    def act() -> str:
        pins.remove(
            class_name=name, workflow=None if request.POST.get("reach") == "all" else workflow, reason=actions.reason(request), actor=actions.actor(request),
            request_id=request_id_of(request), now=timezone.now(),
        )  # fmt: skip
        return f"{name} is no longer pinned."

    return actions.done(request, act, back=reverse("ops:workflow_dependencies", args=[slug]))


@roles.needs("release", "Describing a model")
@require_POST
def describe(request: HttpRequest, slug: str) -> HttpResponse:
    """Keep what a person knows of a model file."""
    workflows.find(slug)
    size = actions.text(request, "size_bytes", most=20).replace(",", "")

    def act() -> str:
        if size and not (size.isdecimal() and len(size) < 16):
            raise Invalid("wrong_type", "The size is not a whole number.", "Give it in bytes.", details={"field": "size_bytes"})
        row = model_facts.remember(
            filename=actions.text(request, "filename", most=400),
            directory=actions.text(request, "directory", most=120),
            url=actions.text(request, "url", most=1_000),
            sha256=actions.text(request, "sha256", most=80),
            size_bytes=int(size) if size else None,
            licence=actions.text(request, "licence", most=120),
            family=actions.text(request, "family", most=60),
            actor=actions.actor(request),
            request_id=request_id_of(request),
            now=timezone.now(),
        )
        library = libraries.current()
        if library is not None:
            libraries.recheck_versions(library=library)
        return f"Kept what you know of {row.filename}."

    return actions.done(request, act, back=reverse("ops:workflow_dependencies", args=[slug]))


def _wanted(request: HttpRequest, slug: str) -> tuple[Workflow, Version | None]:
    workflow = workflows.find(slug)
    number = request.GET.get("v", "")
    version = queries_workflows.version(workflow, int(number) if number.isdecimal() and len(number) < 7 else None)
    if number and version is None:
        raise Http404
    return workflow, version


def _pins(workflow: Workflow, report: Report) -> Iterator[Pin]:
    """The pins that count for this report."""
    names = [one.name for one in report.classes]
    yield from (
        Pin.objects.filter(Q(workflow=workflow) | Q(workflow=None), class_name__in=names[:2_000]).select_related("pack", "workflow").order_by("class_name")
    )
