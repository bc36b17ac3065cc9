"""Branches of a workflow: make one, merge one into another, go back, delete.

A version never changes; a branch is a name that moves over versions. Whoever prepares a change on a head
names it, and is refused when somebody moved the branch meanwhile. Every step is in the audit trail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from builds import ancestry, graphs, heads, judging, libraries, versions
from builds.comparing import Content
from builds.merging import Merged, merge
from builds.models import Branch, BranchMove, Channel, Version, Workflow
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid

MOST = 200
# Read as something else wherever a version is named.
_TAKEN = re.compile(r"v?\d+|[0-9a-f]{8,64}|head")

UP_TO_DATE, FAST_FORWARD, MERGED = "up_to_date", "fast_forward", "merged"


@dataclass(frozen=True)
class Prepared:
    """A merge before anything is kept. `merged` is None when nothing has to be put together: the branch is up to date, or just moves on."""

    kind: str
    into: Branch
    source: str
    ours: Version
    theirs: Version
    base: Version | None
    merged: Merged | None = None
    bases: int = 1


@dataclass(frozen=True)
class Result:
    """What a merge did, and the version the branch stands at now."""

    kind: str
    version: Version
    created: bool
    prepared: Prepared


def listed(workflow: Workflow) -> list[Branch]:
    """All branches with their heads, main first."""
    heavy = [f"head__{name}" for name in ("graph", "ui_graph", "inputs", "schema", "lock", "findings")]
    rows = Branch.objects.filter(workflow=workflow).select_related("head").defer(*heavy).order_by("name")
    found = list(rows)
    if not any(line.name == heads.MAIN for line in found) and workflow.versions.exists():
        found.append(heads.branch(workflow))
    return sorted(found, key=lambda line: line.name != heads.MAIN)


def check_name(name: str) -> None:
    """Raise Invalid for a name that could not be told from a number, a channel or a hash."""
    if not isinstance(name, str) or not heads.NAME.fullmatch(name) or ".." in name:
        raise Invalid(
            "branch_name_malformed", f"{str(name)[:60]!r} cannot name a branch.", "Use small letters, digits, dots, hyphens and underscores, at most 60.",
            details={"field": "name"},
        )  # fmt: skip
    if _TAKEN.fullmatch(name) or name in Channel.Name.values:
        raise Invalid("branch_name_taken", f"{name!r} would be read as a version's number, hash or channel.", "Choose another name.", details={"field": "name"})


@transaction.atomic
def create(*, workflow: Workflow, name: str, at: Version | None = None, actor: str, now: datetime) -> Branch:
    """A branch at a version, or where main stands. Raises Conflict when the name is taken."""
    check_name(name)
    _locked(workflow)
    at = at or heads.branch(workflow, for_change=True).head
    _own(workflow, at)
    if workflow.branches.count() >= MOST:
        raise Conflict("too_many_branches", f"{workflow.slug} has {MOST} branches.", "Delete one that is merged.")
    taken = Conflict("branch_exists", f"{workflow.slug} has a branch {name} already.", "Choose another name, or import onto it.", details={"branch": name})
    if workflow.branches.filter(name=name).exists():
        raise taken
    try:
        with transaction.atomic():
            made = heads.start(workflow=workflow, name=name, at=at, by=actor, now=now)
    except IntegrityError:
        raise taken from None
    _audit("branch.create", made, actor=actor, after=at, now=now)
    return made


@transaction.atomic
def restore(
    *, workflow: Workflow, branch: str = heads.MAIN, version: Version, expected: Version | None = None, actor: str, reason: str = "", now: datetime
) -> Branch:
    """Let the branch stand at an earlier version again. The versions it leaves stay, under their numbers."""
    _locked(workflow)
    _own(workflow, version)
    line = heads.branch(workflow, branch, for_change=True)
    if expected is not None and line.head_id != expected.pk:
        raise heads.moved(line)
    before = line.head
    if before.pk == version.pk:
        raise Conflict("already_there", f"The branch {branch} stands at v{version.number} already.", "Nothing is to be done.")
    heads.move(line=line, expected=before, to=version, reason=BranchMove.Reason.RESTORE, message=reason, by=actor, now=now)
    _audit("branch.restore", line, actor=actor, before=before, after=version, reason=reason, now=now)
    return line


@transaction.atomic
def delete(*, workflow: Workflow, branch: str, actor: str, now: datetime) -> None:
    """Take a branch away; its versions stay. The main branch cannot be deleted."""
    if branch == heads.MAIN:
        raise Conflict("main_branch", "The main branch cannot be deleted.", "Restore it to another version instead.")
    line = heads.branch(workflow, branch)
    _audit("branch.delete", line, actor=actor, before=line.head, now=now)
    line.delete()


def prepare(*, workflow: Workflow, into: str = heads.MAIN, source: str | Version, choices: Mapping[str, str] | None = None, library: Any = None) -> Prepared:
    """What merging a branch, or a version, into a branch would give. Keeps nothing. `library` converts canvases; default: the current one."""
    line = heads.branch(workflow, into)
    theirs = source if isinstance(source, Version) else heads.branch(workflow, source).head
    _own(workflow, theirs)
    named = f"v{theirs.number}" if isinstance(source, Version) else source
    parents = heads.parents(workflow)
    found = ancestry.nearest(parents, line.head_id, theirs.pk)
    # After crossed merges there are several; the newest holds most of what both sides share.
    base = Version.objects.filter(pk__in=found).order_by("-number").first()
    if theirs.pk in ancestry.ancestors(parents, line.head_id):
        return Prepared(UP_TO_DATE, line, named, line.head, theirs, base)
    if line.head_id in ancestry.ancestors(parents, theirs.pk):
        return Prepared(FAST_FORWARD, line, named, line.head, theirs, base)
    library = library if library is not None else libraries.current()
    convert = (lambda canvas: graphs.parse(canvas, library=library)) if library is not None else None
    merged = merge(Content.of(base) if base else None, Content.of(line.head), Content.of(theirs), choices, convert=convert)
    return Prepared(MERGED, line, named, line.head, theirs, base, merged, len(found))


def merge_branch(
    *,
    workflow: Workflow,
    into: str = heads.MAIN,
    source: str | Version,
    choices: Mapping[str, str] | None = None,
    expected: Version | None = None,
    expected_source: Version | None = None,
    message: str = "",
    actor: str,
    library: Any = None,
    now: datetime,
) -> Result:
    """Merge and keep. Raises Conflict with every open conflict as details, or when a branch is not where it was `expected`.

    The same content is the same version: where the outcome is one that is there already, the branch moves to it.
    """
    _living(workflow)
    heads.branch(workflow, into, for_change=True)
    ready = prepare(workflow=workflow, into=into, source=source, choices=choices, library=library)
    for line, at, wanted in ((ready.into, ready.ours, expected), (None, ready.theirs, expected_source)):
        if wanted is not None and at.pk != wanted.pk:
            raise heads.moved(line or heads.branch(workflow, str(source)))
    if ready.kind == UP_TO_DATE:
        return Result(UP_TO_DATE, ready.ours, False, ready)
    message = message or f"Merge {ready.source} into {into}"
    if ready.merged is None:
        with transaction.atomic():
            _locked(workflow)
            heads.move(line=ready.into, expected=ready.ours, to=ready.theirs, reason=BranchMove.Reason.MERGE, message=message, by=actor, now=now)
            _audit("branch.merge", ready.into, actor=actor, before=ready.ours, after=ready.theirs, reason=message, now=now)
        return Result(FAST_FORWARD, ready.theirs, False, ready)
    if ready.merged.open:
        count = len(ready.merged.open)
        raise Conflict(
            "merge_conflicts", f"Both sides changed {count} thing{'' if count == 1 else 's'} differently.", "Choose ours or theirs for each, by its key.",
            details={"conflicts": [clash.as_json() for clash in ready.merged.open[:200]], "count": count, "base": ready.base.number if ready.base else None,
                     "ours": ready.ours.number, "theirs": ready.theirs.number},
        )  # fmt: skip
    content = ready.merged.content
    library = library if library is not None else libraries.current()
    graph = dict(content.graph)
    with transaction.atomic():
        version, created = versions.keep(
            workflow=workflow,
            graph=graph,
            items=content.inputs,
            found=[*judging.judge(graph, library, content.inputs, workflow=workflow), *ready.merged.notes],
            message=message,
            author=actor,
            parent=ready.ours,
            merged_from=ready.theirs,
            branch=into,
            expected=ready.ours,
            timeout_s=content.timeout_s,
            stall_s=content.stall_s,
            lock=content.lock,
            ui_graph=content.ui_graph,
            now=now,
        )
        _audit("branch.merge", ready.into, actor=actor, before=ready.ours, after=version, reason=message, now=now, choices=dict(choices or {}))
    return Result(MERGED, version, created, ready)


def _living(workflow: Workflow) -> None:
    if workflow.archived_at is not None:
        raise Conflict("workflow_archived", f"{workflow.slug} is archived.", "Bring it back before you change its branches.")


def _locked(workflow: Workflow) -> None:
    _living(Workflow.objects.select_for_update().get(pk=workflow.pk))


def _own(workflow: Workflow, version: Version) -> None:
    if version.workflow_id != workflow.pk:
        raise Conflict("version_of_other_workflow", f"That version does not belong to {workflow.slug}.", "Choose one of its own versions.")


def _audit(
    action: str, line: Branch, *, actor: str, before: Version | None = None, after: Version | None = None, reason: str = "", now: datetime, **more: Any
) -> None:
    more = {key: value for key, value in more.items() if value}
    states = [{"branch": line.name, "version": one.number} if one else {} for one in (before, after)]
    audit.record(
        actor=actor, action=action, object_type="workflow", object_id=line.workflow.slug, before=states[0], after=states[1] | more,
        reason=reason, now=now,
    )  # fmt: skip
