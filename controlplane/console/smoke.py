"""The smoke matrix: every endpoint with its last result; one version's smoke runs and the inputs they run with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from billing.customers import HOUSE
from builds import smoke_inputs, smoke_keeping
from builds.models import SmokeInput, Version, Workflow
from controlplane.console import actions, numbers, pages, roles, workflows
from controlplane.console.workflows import CHANNEL_WORDS
from controlplane.kernel import jsonbody
from controlplane.kernel.errors import Invalid, NotFound, WorkflowError
from controlplane.kernel.ids import parse_uuid
from fleet import queries_smoke, smoke
from fleet.models import Job, SmokeRun
from fleet.queries_smoke import Cell, Matrix

SHOWN = {"": "All", "failing": "Failing", "never": "Never run", "passed": "Passed"}
TRIGGERS = {"import": "after import", "build": "after a build", "deploy": "after a deploy", "calendar": "daily run", "person": "asked for"}
RUNS_SHOWN = 30
MOST_SHOWN = 200
MAX_JSON = 200_000


@roles.staff
@require_GET
def matrix(request: HttpRequest) -> HttpResponseBase:
    """Every workflow × (newest, each channel's version); the failing ones first."""
    now = timezone.now()
    text, show = request.GET.get("q", "").strip()[:80], request.GET.get("show", "")
    show = show if show in SHOWN else ""
    found = pages.part(request, queries_smoke.matrix)
    if isinstance(found, pages.Failed):
        context = {"failed": found, "headline": "Smoke matrix: not known, it did not load"}
        return pages.page(request, "console/smoke.html", context, title="Smoke matrix", active="smoke", fragment="console/_smoke.html", now=now)
    rows = [(row.workflow, kept) for row in found.rows if (kept := [c for c in row.cells if _wanted(c, show)]) and text.lower() in row.workflow.slug]
    if request.GET.get("format") == "csv":
        return pages.csv_file(f"smoke-{now:%Y%m%dT%H%MZ}", _HEAD, _csv(rows))
    query = request.GET.copy()
    query["format"] = "csv"
    base = f"&q={text}" if text else ""
    context = {
        "matrix": found,
        "rows": _first(rows),
        "shown": min(sum(len(cells) for _, cells in rows), MOST_SHOWN),
        "matching": sum(len(cells) for _, cells in rows),
        "text": text,
        "show": show,
        "chips": [{"label": word, "href": f"?show={key}{base}", "on": show == key, "count": _count(found, key)} for key, word in SHOWN.items()],
        "channel_words": CHANNEL_WORDS,
        "trigger_words": TRIGGERS,
        "headline": headline(found),
        "running": sum(cell.open is not None for cell in found.cells),
        "may_run": roles.may(request, "operator"),
    }
    return pages.page(
        request,
        "console/smoke.html",
        context,
        title="Smoke matrix",
        active="smoke",
        fragment="console/_smoke.html",
        csv_href=f"?{query.urlencode()}" if rows else "",
        now=now,
    )


def _first(rows: list[tuple[Any, list[Cell]]]) -> list[tuple[Any, list[Cell]]]:
    """As many as one page shows. The failing ones are first; filters and CSV reach the rest."""
    left, kept = MOST_SHOWN, []
    for one, cells in rows:
        if left <= 0:
            break
        kept.append((one, cells[:left]))
        left -= len(cells)
    return kept


def headline(found: Matrix) -> str:
    """The matrix in a few words."""
    if found.coverage is None:
        return "Smoke matrix: no endpoint to try yet"
    failing = f"{numbers.count(found.failing)} failing" if found.failing else "none failing"
    # Rounded down: 100% is said only when it is true.
    return f"{int(found.coverage * 100)}% of endpoints covered, {failing}"


def _wanted(cell: Cell, show: str) -> bool:
    return not show or (cell.failing if show == "failing" else cell.state == show)


def _count(found: Matrix, show: str) -> int:
    return sum(_wanted(cell, show) for cell in found.cells)


_HEAD = [
    "workflow",
    "version",
    "channels",
    "newest",
    "result",
    "finished_at",
    "run_s",
    "trigger",
    "error_code",
    "error_message",
    "job",
    "image_result",
    "image",
]


def _csv(rows: list[tuple[Any, list[Cell]]]) -> Iterator[list[Any]]:
    for workflow, cells in rows:
        for c in cells:
            run, error = c.ended, (c.ended.error or {}) if c.ended else {}
            line: list[Any] = [workflow.slug, c.version.number, " ".join(c.channels), c.newest, c.state]
            line += [run.finished_at, run.report.get("run_s"), run.trigger] if run else [None, None, None]
            line += [error.get("code"), error.get("message"), str(run.job_id) if run and run.job_id else None]
            yield [*line, c.image.state if c.image else None, c.image.build.image if c.image and c.image.build else None]


@roles.staff
@require_GET
def workflow(request: HttpRequest, slug: str) -> HttpResponse:
    """The rows of one workflow, among its other pages."""
    now = timezone.now()
    found = workflows.find(slug)
    rows = [(row.workflow, row.cells) for row in queries_smoke.matrix(slug=slug).rows]
    context = {"rows": rows, "channel_words": CHANNEL_WORDS, "trigger_words": TRIGGERS, "back": slug, "may_run": roles.may(request, "operator")}
    csv = f"{reverse('ops:smoke')}?{urlencode({'q': slug, 'format': 'csv'})}" if rows else ""
    return workflows.answer(request, found, "console/workflow_smoke.html", context, tab="smoke", word="Smoke runs", now=now, csv_href=csv)


@roles.needs("operator", "Running smoke runs")
@require_POST
def run(request: HttpRequest) -> HttpResponse:
    """Ask for runs: of one version, of all that fail, or of all."""
    what = request.POST.get("what", "")[:40]

    def act() -> str:
        versions = chosen(what)
        for version in versions:
            smoke.request(version=version, trigger=SmokeRun.Trigger.PERSON, actor=actions.actor(request), now=timezone.now())
        return f"{numbers.plural(len(versions), 'smoke run')} asked for. Each starts when its pool has room."

    return actions.done(request, act, back=_back(request))


def chosen(what: str) -> list[Version]:
    """The versions "all", "failing" or an id names; raises NotFound or Invalid."""
    if what in ("all", "failing"):
        cells = [c for c in queries_smoke.matrix().cells if c.version.runnable and (what == "all" or c.failing)]
        if not cells:
            raise NotFound("nothing_to_run", "Nothing is failing." if what == "failing" else "There is no version that can run.", "Nothing needs to be done.")
        return [c.version for c in cells]
    version_id = parse_uuid(what)
    version = Version.objects.select_related("workflow").defer("graph", "ui_graph").filter(id=version_id).first() if version_id else None
    if version is None:
        raise Invalid("version_unknown", "There is no such version.", "Choose one from the matrix.")
    return [version]


def _back(request: HttpRequest) -> str:
    back = request.POST.get("back", "")[:60]
    version_id = parse_uuid(back)
    if version_id is None and back and Workflow.objects.filter(slug=back).exists():
        return reverse("ops:workflow_smoke", args=[back])
    version = Version.objects.select_related("workflow").only("number", "workflow__slug").filter(id=version_id).first() if version_id else None
    return reverse("ops:smoke_version", args=[version.workflow.slug, version.number]) if version else reverse("ops:smoke")


@roles.staff
@require_http_methods(["GET", "HEAD", "POST"])
def version(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One version: its last runs, and the inputs they run with, which may be written, recorded or generated again."""
    now = timezone.now()
    found = Version.objects.select_related("workflow").filter(workflow__slug=slug, number=number).first()
    if found is None:
        raise Http404
    typed, error = "", ""
    if request.method == "POST":
        if not roles.may(request, "operator"):
            return roles.refuse(request, "operator", "Changing smoke inputs")
        try:
            said = _change(request, found)
        except WorkflowError as refusal:
            typed, error = request.POST.get("inputs", "")[:MAX_JSON], f"{refusal.message} {refusal.suggestion}".strip()
        else:
            return actions.done(request, lambda: said, back=reverse("ops:smoke_version", args=[slug, number]))
    kept = SmokeInput.objects.filter(version=found).first()
    made = smoke_inputs.generate(found.inputs)
    values = kept.inputs if kept else made.inputs
    generated = kept is None or kept.origin == SmokeInput.Origin.GENERATED
    runs = list(found.smoke_runs.select_related("job", "build").order_by("-requested_at", "-id")[:RUNS_SHOWN])
    context = {
        "version": found,
        "workflow": found.workflow,
        "kept": kept,
        "trigger_words": TRIGGERS,
        "missing": made.missing if generated else (),
        "values": [(name, _shown(value), made.why.get(name, "") if generated else "") for name, value in values.items()],
        "typed": typed or json.dumps({n: v for n, v in values.items() if not str(v).startswith("data:")}, indent=1, ensure_ascii=False),
        "error": error,
        "runs": runs,
        "open": next((r for r in runs if r.state in SmokeRun.OPEN), None),
        "recordable": list(Job.objects.filter(version=found, status=Job.Status.SUCCEEDED, customer__slug=HOUSE).exclude(source=Job.SMOKE).order_by("-id")[:5]),
        "may_run": roles.may(request, "operator"),
    }
    word = f"v{found.number} of {found.workflow.slug}"
    crumbs = [("Smoke matrix", reverse("ops:smoke")), (word, "")]
    return pages.page(
        request, "console/smoke_version.html", context, title=f"Smoke runs of {word}", active="smoke", crumbs=crumbs, now=now, status=422 if error else 200
    )


def _change(request: HttpRequest, found: Version) -> str:
    actor, now = actions.actor(request), timezone.now()
    if request.POST.get("act") == "generate":
        smoke_keeping.regenerate(version=found, actor=actor, now=now)
        return "The inputs are generated ones again."
    if request.POST.get("act") == "record":
        job_id = parse_uuid(request.POST.get("job", ""))
        job = Job.objects.select_related("customer", "version__workflow").filter(id=job_id, version=found).first() if job_id else None
        if job is None:
            raise NotFound("job_not_found", "That job is not one of this version's.", "Choose one from the list.")
        smoke.record_inputs(job=job, actor=actor, now=now)
        return "The next smoke run uses the inputs of that job."
    inputs = jsonbody.load(request.POST.get("inputs", "")[:MAX_JSON].encode())
    before = SmokeInput.objects.filter(version=found).values_list("inputs", flat=True).first() or smoke_inputs.generate(found.inputs).inputs
    # Files are not shown in the text field; those that are there stay.
    files = {name: value for name, value in before.items() if name not in inputs and str(value).startswith("data:")}
    smoke_keeping.write(version=found, inputs={**files, **inputs}, actor=actor, now=now)
    return "The next smoke run uses these inputs."


def _shown(value: Any) -> str:
    if isinstance(value, str) and value.startswith("data:"):
        return f"{value[5:].partition(';')[0]}, {len(value) * 3 // 4:,} bytes"
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
