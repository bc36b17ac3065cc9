"""Import a workflow from a file or pasted JSON: look first, then keep; what is needed and what is missing, each with its fix."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from builds import containers, dependencies, graphs, heads, importing, libraries
from builds.graphs import MAX_BYTES
from builds.models import Workflow
from controlplane.console import dependencies as dependency_page
from controlplane.console import numbers, pages, roles
from controlplane.kernel.errors import Invalid, TooLarge, WorkflowError


@roles.needs("release", "Importing a workflow")
@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """The form; `look` shows what an import would give, `pin` keeps a choice of packs and looks again, `keep` makes the version."""
    now = timezone.now()
    values = {name: request.POST.get(name, "").replace("\0", "")[: MAX_BYTES + 1] for name in ("slug", "name", "message", "branch", "document")}
    values["slug"] = values["slug"] or request.GET.get("slug", "")[:60]
    values["branch"] = (values["branch"] or request.GET.get("branch", "")).strip()[:80]
    context: dict[str, Any] = {
        "values": values,
        "draft": request.POST.get("draft") == "on",
        "limit": numbers.size(MAX_BYTES),
        "findings": [],
        "error": None,
        "seen": None,
        "may_choose": True,
    }
    status = 200
    document: Any = None
    if request.method == "POST":
        try:
            document, values["document"] = _document(request)
            if request.POST.get("do") == "keep":
                kept = importing.import_graph(
                    document=document, slug=values["slug"].strip() or None, name=values["name"].strip() or None, message=values["message"].strip(),
                    branch=values["branch"] or heads.MAIN, make_branch=True, author=request.user.get_username(), draft=context["draft"], now=now,
                )  # fmt: skip
                said = f"Kept as v{kept.version.number}." if kept.created else f"Nothing changed: this is v{kept.version.number} already."
                messages.success(request, said if kept.version.runnable else f"{said} It is a draft, it cannot run before its findings are mended.")
                return redirect("ops:workflow", slug=kept.workflow.slug)
            if request.POST.get("do") == "pin":
                context["said"] = dependency_page.place(request, workflow=None)
            context |= _needs(request, document, values["slug"].strip())
            context |= _look(document, values["slug"].strip(), values["branch"])
        except WorkflowError as error:
            status = error.status
            context |= {"error": error, "findings": error.details.get("findings", []) or _problems(error), "draftable": "findings" in error.details}
            if error.details.get("findings"):
                context |= _look(document, values["slug"].strip(), values["branch"])
            if document is not None and "report" not in context:
                context |= _needs(request, document, values["slug"].strip())
    context["errors_found"] = sum(f.get("level") == "error" for f in context["findings"])
    return pages.page(
        request, "console/import.html", context, title="Import a workflow", active="workflows", crumbs=[("Workflows", "/ops/workflows/"), ("Import", "")],
        now=now, status=status,
    )  # fmt: skip


def _look(document: Any, slug: str, branch: str) -> dict[str, Any]:
    """What the document holds, judged against the current node library, without keeping anything."""
    workflow = Workflow.objects.filter(slug=slug).first() if slug else None
    line = heads.named(workflow, branch) if workflow else None
    parent = line.head if line else heads.head(workflow) if workflow else None
    newest = workflow.versions.aggregate(number=Max("number"))["number"] if workflow else None
    seen = importing.examine(document=document, library=libraries.current(), parent=parent)
    return {"seen": seen, "findings": seen.findings, "next_number": (newest or 0) + 1, "existing": workflow}


def _needs(request: HttpRequest, document: Any, slug: str) -> dict[str, Any]:
    """What the document needs, also when it cannot be imported for want of it; nothing when it cannot be read at all."""
    try:
        workflow = Workflow.objects.filter(slug=slug).first() if slug else None
        report = dependencies.of_document(document=document, workflow=workflow)
    except WorkflowError:
        return {}
    return dependency_page.shown(report)


def _problems(error: WorkflowError) -> list[dict[str, Any]]:
    """What a conversion could not do exactly, as findings."""
    problems = error.details.get("problems")
    return [{"level": "error", **one} for one in problems if isinstance(one, dict)] if isinstance(problems, list) and len(problems) > 1 else []


def _document(request: HttpRequest) -> tuple[Any, str]:
    """The uploaded or pasted JSON and its text."""
    upload = request.FILES.get("file")
    if upload is not None:
        if containers.is_container(upload.read(16)):
            return _contained(upload)
        upload.seek(0)
        if upload.size is not None and upload.size > MAX_BYTES:
            raise TooLarge("file_too_large", f"The file has {numbers.size(upload.size)}.", f"A workflow may have {numbers.size(MAX_BYTES)}.")
        raw = upload.read(MAX_BYTES + 1)
    else:
        raw = request.POST.get("document", "").encode()
    if len(raw) > MAX_BYTES:
        raise TooLarge("file_too_large", "The text is too long.", f"A workflow may have {numbers.size(MAX_BYTES)}.")
    if not raw.strip():
        raise Invalid("document_missing", "There is no workflow to read.", "Choose a file, or paste its JSON.")
    try:
        text = raw.decode("utf-8-sig")
        return json.loads(text), text
    except (ValueError, RecursionError) as problem:
        where = f" at line {problem.lineno}, column {problem.colno}" if isinstance(problem, json.JSONDecodeError) else ""
        raise Invalid("not_json", f"This is not JSON{where}.", "Send the file ComfyUI saved or exported, as it is.") from None


def _contained(upload: UploadedFile[Any]) -> tuple[Any, str]:
    """The workflow inside a picture or an archive, and its text."""
    if upload.size is not None and upload.size > settings.MAX_FILE_BYTES:
        raise TooLarge(
            "file_too_large", f"The file has {numbers.size(upload.size)}.", f"A picture or archive may have {numbers.size(settings.MAX_FILE_BYTES)}."
        )
    upload.seek(0)
    document = graphs.load(upload.read(settings.MAX_FILE_BYTES))
    return document, json.dumps(document, ensure_ascii=False)
