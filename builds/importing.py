"""From an uploaded document to a version: read, judge, expose, keep.

`examine` keeps nothing; `import_graph` keeps what it found. A graph that runs in a
circle is never kept; one with other faults is, as a draft, with its findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from builds import branches, catalogue, exposing, heads, judging, libraries, versions
from builds.conversion import Inexact
from builds.dependencies import explaining
from builds.exposed import ExposedInput, load_all
from builds.findings import WARNING, Finding, errors_in, finding
from builds.graphs import canvas, parse, refuse_cycle
from builds.models import Branch, Version, Workflow
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid, NotFound

_CURRENT: Any = object()
RESERVED = frozenset({"import"})
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?")


@dataclass(frozen=True)
class Examined:
    """What a document holds, before anything is kept."""

    graph: dict[str, dict[str, Any]]
    exposed: list[ExposedInput]
    findings: list[Finding]
    canvas: dict[str, Any] | None = None

    @property
    def runnable(self) -> bool:
        return not errors_in(self.findings)


@dataclass(frozen=True)
class ImportResult:
    """What an import kept; `created` is False when this content was there already."""

    workflow: Workflow
    version: Version
    created: bool
    findings: list[Finding]


def examine(*, document: Any, expose: Iterable[Any] | None = None, library: Any, parent: Version | None = None) -> Examined:
    """Read and judge a document. Without `expose`, the inputs of `parent` are kept where they still exist, else a handful is chosen."""
    drawn = canvas(document)
    workflow = parent.workflow if parent else None
    try:
        graph = parse(document, library=library)
    except Inexact as error:
        raise explaining.refusal(error, ui_graph=drawn, workflow=workflow, library=library) from error
    refuse_cycle(graph)
    notes: list[Finding] = []
    if expose is not None:
        items = exposing.chosen(graph, library, expose)
    else:
        items, notes = _carried(graph, library, parent) if parent else ([], [])
        items = items or exposing.choose(graph, library)
    return Examined(graph, items, [*judging.judge(graph, library, items, ui_graph=drawn, workflow=workflow), *notes], drawn)


def import_graph(
    *,
    document: Any,
    slug: str | None = None,
    name: str | None = None,
    message: str = "",
    author: str,
    parent: Version | None = None,
    branch: str = heads.MAIN,
    make_branch: bool = False,
    expose: Iterable[Any] | None = None,
    draft: bool = False,
    category: str | None = None,
    description: str | None = None,
    pool_slug: str | None = None,
    timeout_s: int = 300,
    stall_s: int = 120,
    library: Any = _CURRENT,
    now: datetime,
) -> ImportResult:
    """Keep the graph in `document` as a version of workflow `slug`, made when it is new, at the head of `branch`.

    With `make_branch`, a branch that is not there yet is made where main stands. Raises NotFound for an unknown one otherwise.
    """
    if library is _CURRENT:
        library = libraries.current()
    slug = _slug(slug, name)
    workflow = Workflow.objects.filter(slug=slug).first()
    if workflow and workflow.archived_at is not None:
        raise Conflict("workflow_archived", f"{slug} is archived.", "Import under another slug, or bring it back first.")
    starts_branch = make_branch and not (workflow and Branch.objects.filter(workflow=workflow, name=branch).exists()) and branch != heads.MAIN
    if starts_branch:
        branches.check_name(branch)
    elif workflow is None and branch != heads.MAIN:
        raise NotFound("unknown_branch", f"{slug} is new and has no branch {branch[:60]}.", "Import it on main first.", details={"branch": branch[:60]})
    before = parent or (heads.head(workflow, heads.MAIN if starts_branch else branch) if workflow else None)
    if parent and (workflow is None or parent.workflow_id != workflow.pk):
        raise Conflict("version_of_other_workflow", "The parent belongs to another workflow.", "Name a version of the same workflow.")
    seen = examine(document=document, expose=expose, library=library, parent=before)
    if not draft:
        versions.refuse_faulty(seen.findings)
    with transaction.atomic():
        if workflow is None:
            workflow = _workflow(
                slug=slug,
                name=(name or "").strip()[:120] or slug.replace("-", " ").capitalize(),
                category=category or catalogue.category_of(seen.graph, seen.exposed),
                description=(description or "")[:500],
                pool_slug=pool_slug or "default",
                author=author,
                now=now,
            )
        if starts_branch and before is not None:
            branches.create(workflow=workflow, name=branch, at=before, actor=author, now=now)
        version, created = versions.keep(
            workflow=workflow,
            graph=seen.graph,
            ui_graph=seen.canvas,
            items=seen.exposed,
            message=message,
            author=author,
            parent=parent,
            branch=heads.MAIN if starts_branch and before is None else branch,
            timeout_s=timeout_s,
            stall_s=stall_s,
            found=seen.findings,
            now=now,
        )
        if starts_branch and before is None:
            branches.create(workflow=workflow, name=branch, at=version, actor=author, now=now)
    return ImportResult(workflow, version, created, seen.findings)


def _workflow(*, slug: str, name: str, author: str, now: datetime, **fields: str) -> Workflow:
    try:
        with transaction.atomic():
            workflow = Workflow.objects.create(slug=slug, name=name, owner=author[:80], created_at=now, **fields)
    except IntegrityError:
        # Somebody made it a moment ago; then this is its next version.
        return Workflow.objects.get(slug=slug)
    audit.record(actor=author, action="workflow.create", object_type="workflow", object_id=slug, after={"name": name}, now=now)
    return workflow


def _slug(slug: str | None, name: str | None) -> str:
    if slug is None:
        slug = slugify(name or "")[:60].strip("-_").replace("_", "-")
        if not slug:
            raise Invalid("slug_missing", "The workflow has neither a slug nor a name to make one of.", "Give a slug such as product-shot.")
    if not _SLUG.fullmatch(slug):
        raise Invalid(
            "slug_malformed", f"{slug[:80]!r} cannot be part of an address.", "Use small letters, digits and hyphens, at most 60.", details={"slug": slug[:80]}
        )
    if slug in RESERVED:
        raise Invalid("slug_reserved", f"{slug!r} is an address of the console.", "Choose another slug.", details={"slug": slug})
    return slug


def _carried(graph: Mapping[str, Mapping[str, Any]], library: Any, parent: Version) -> tuple[list[ExposedInput], list[Finding]]:
    """The parent's exposed inputs as far as the new graph still has them: customers' calls should go on working."""
    kept: list[ExposedInput] = []
    notes: list[Finding] = []
    for old in load_all(parent.inputs):
        before = parent.graph.get(old.node, {})
        wanted = exposing.said(old)
        if old.default == before.get("inputs", {}).get(old.input):
            # It followed the graph, so it follows the new one.
            wanted.pop("default", None)
            wanted.pop("required", None)
        try:
            if graph.get(old.node, {}).get("class_type") != before.get("class_type"):
                raise Invalid("expose_unknown_node", "Another node stands there now.")
            kept += exposing.chosen(graph, library, [wanted])
        except Invalid:
            message = f"The earlier input {old.name} (node {old.node}, {old.input}) is no longer there."
            notes.append(
                finding(
                    WARNING,
                    "input_dropped",
                    message,
                    "Expose its successor under the same name, or customers' calls will fail.",
                    node=old.node,
                    field=old.input,
                )
            )
    return kept, notes
