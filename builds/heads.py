"""The head of a branch: where it stands, and the one door through which it moves.

A move is a compare-and-set on the head, in the transaction of what moves it; every move is a
`BranchMove`, so that each can be undone by another. Every workflow with a version has a branch `main`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from django.db import transaction

from builds import ancestry
from builds.models import Branch, BranchMove, Version, Workflow
from controlplane.kernel.errors import Conflict, NotFound

MAIN = "main"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


def branch(workflow: Workflow, name: str = MAIN, *, for_change: bool = False) -> Branch:
    """The branch called `name`, with its head; raises NotFound.

    A workflow whose versions are older than branches has a main branch all the same: it stands at the newest version, and is
    written down when it is read `for_change`.
    """
    found = named(workflow, name)
    if found is None and name == MAIN:
        found = _adopted(workflow, keep=for_change)
    if found is None:
        raise NotFound(
            "unknown_branch", f"{workflow.slug} has no branch called {str(name)[:60]}.", "List its branches, or make one.", details={"branch": str(name)[:60]}
        )
    return found


def named(workflow: Workflow, name: Any) -> Branch | None:
    """The branch of that name as it is kept, if there is one."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return None
    return Branch.objects.select_related("head").filter(workflow=workflow, name=name).first()


def head(workflow: Workflow, name: str = MAIN) -> Version | None:
    """Where the branch stands; None for the main branch of a workflow without versions."""
    if name == MAIN and not workflow.versions.exists():
        return None
    return branch(workflow, name).head


def parents(workflow: Workflow) -> dict[Any, tuple[Any, ...]]:
    """Version id → ids of its parents."""
    rows = Version.objects.filter(workflow=workflow).values_list("id", "parent_id", "merged_from_id")
    return {pk: tuple(one for one in above if one is not None) for pk, *above in rows}


def holds(workflow: Workflow, *, head: Version, version: Version) -> bool:
    """Whether `version` is in the history of `head`."""
    return version.pk in ancestry.ancestors(parents(workflow), head.pk)


def start(*, workflow: Workflow, name: str, at: Version, by: str, message: str = "", now: datetime) -> Branch:
    """A new branch that stands at `at`. The caller has locked the workflow and checked the name."""
    made = Branch.objects.create(workflow=workflow, name=name, head=at, created_at=now, created_by=by[:120], moved_at=now)
    _record(made, None, at, BranchMove.Reason.CREATE, message=message, by=by, now=now)
    return made


def move(*, line: Branch, expected: Version, to: Version, reason: str, message: str = "", by: str, now: datetime) -> Branch:
    """Let the branch stand at `to`, if it still stands at `expected`; raises Conflict when somebody moved it."""
    with transaction.atomic():
        if not Branch.objects.filter(pk=line.pk, head=expected).update(head=to, moved_at=now):
            raise moved(line)
        _record(line, expected, to, reason, message=message, by=by, now=now)
    line.head, line.moved_at = to, now
    return line


def moved(line: Branch) -> Conflict:
    """The refusal of a change that was prepared on another head than there is now."""
    now_at = Branch.objects.filter(pk=line.pk).values_list("head__number", flat=True).first()
    where = f"it stands at v{now_at}" if now_at else "it was deleted"
    return Conflict(
        "branch_moved", f"The branch {line.name} was moved by somebody else meanwhile: {where} now.", "Look at what changed there and try again.",
        details={"branch": line.name, "head": now_at},
    )  # fmt: skip


def _adopted(workflow: Workflow, *, keep: bool) -> Branch | None:
    """The main branch of a workflow whose versions are older than branches."""
    newest = Version.objects.filter(workflow=workflow).order_by("-number").first()
    if newest is None:
        return None
    at, by = newest.created_at, newest.author
    if not keep:
        return Branch(workflow=workflow, name=MAIN, head=newest, created_at=at, created_by=by, moved_at=at)
    with transaction.atomic():
        Workflow.objects.select_for_update().get(pk=workflow.pk)
        there = Branch.objects.select_related("head").filter(workflow=workflow, name=MAIN).first()
        return there or start(workflow=workflow, name=MAIN, at=newest, by=by, message="Made for the versions that were there", now=at)


def _record(line: Branch, before: Version | None, after: Version, reason: str, *, message: str, by: str, now: datetime) -> None:
    BranchMove.objects.create(branch=line, before=before, after=after, reason=reason, message=message[:500], by=by[:120], at=now)
