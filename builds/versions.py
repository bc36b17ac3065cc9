"""Immutable versions by content, and the channels and branches that point at them.

A version's id in words is the SHA-256 of its canonical JSON: the same content is the same version,
whoever imports it and on whichever database. The database refuses to change it (migration 0002).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Max

from builds import exposing, heads, judging, locked_models
from builds.exposed import ExposedInput, load_all
from builds.findings import Finding, errors_in
from builds.graphs import parse, refuse_cycle
from builds.links import models
from builds.models import Branch, BranchMove, Channel, Version, Workflow
from builds.schema import schema
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid, NotFound

# Channels that serve customers: only what can run may stand there.
SERVING = (Channel.Name.LIMITED, Channel.Name.PRODUCTION)


def canonical_json(obj: Any) -> bytes:
    """Sorted keys, no white space, whole floats as integers (as in RFC 8785), so that a trip through a database changes nothing."""
    return json.dumps(_canonical(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def content_sha256(
    graph: Mapping[str, Any],
    inputs: Iterable[ExposedInput | Mapping[str, Any]],
    *,
    timeout_s: int = 300,
    stall_s: int = 120,
    lock: Any = None,
    ui_graph: Any = None,
) -> str:
    """The identity of a version."""
    content: dict[str, Any] = {"graph": graph, "inputs": [_stored(one) for one in inputs], "timeout_s": timeout_s, "stall_s": stall_s}
    # Left out when empty, so that versions made before locks existed keep their hash.
    content |= {name: part for name, part in (("lock", lock), ("ui_graph", ui_graph)) if part is not None}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def warm_key(graph: Mapping[str, Any]) -> str:
    """Hash of the model files a graph loads, so that a job finds a worker that holds them; empty when it loads none."""
    named = sorted({f"{reference.input}={reference.name}" for reference in models(graph)})
    return hashlib.sha256("\n".join(named).encode()).hexdigest() if named else ""


def create(**given: Any) -> Version:
    """`create_or_find`, for callers that do not mind which."""
    return create_or_find(**given)[0]


def create_or_find(
    *,
    workflow: Workflow,
    graph: Mapping[str, Any],
    exposed: Iterable[Any] | None = None,
    library: Any = None,
    draft: bool = True,
    **kept: Any,
) -> tuple[Version, bool]:
    """The version with this content and whether it is new. `exposed` may say its own titles, defaults and narrower ranges.

    With `draft`, a faulty graph is kept with its findings; without, it is refused with the first of them.
    The rest is as for `keep`.
    """
    graph = parse(graph)
    refuse_cycle(graph)
    items = exposing.choose(graph, library) if exposed is None else exposing.chosen(graph, library, exposed)
    found = judging.judge(graph, library, items, ui_graph=kept.get("ui_graph"), workflow=workflow)
    if not draft:
        refuse_faulty(found)
    return keep(workflow=workflow, graph=graph, items=items, found=found, **kept)


def keep(
    *,
    workflow: Workflow,
    graph: Mapping[str, Any],
    items: list[ExposedInput],
    found: list[Finding],
    message: str = "",
    author: str,
    parent: Version | None = None,
    merged_from: Version | None = None,
    branch: str = heads.MAIN,
    expected: Version | None = None,
    timeout_s: int = 300,
    stall_s: int = 120,
    lock: Any = None,
    ui_graph: Any = None,
    now: datetime,
) -> tuple[Version, bool]:
    """Store what was already exposed and judged, and let `branch` stand there; the same content is the same version.

    Its parent is the head of the branch unless one is named. With `expected`, the branch must still stand there: else
    Conflict, and nothing is kept. Content that the branch's history holds already moves nothing; going back is `branches.restore`.
    """
    if not 1 <= timeout_s <= 86_400 or not 1 <= stall_s <= 86_400:
        raise Invalid("timeout_out_of_range", "A time limit is not between one second and one day.", "Choose 1 to 86400 seconds.")
    sha256 = content_sha256(graph, items, timeout_s=timeout_s, stall_s=stall_s, lock=lock, ui_graph=ui_graph)
    with transaction.atomic():
        Workflow.objects.select_for_update().get(pk=workflow.pk)
        line = heads.branch(workflow, branch, for_change=True) if branch != heads.MAIN or workflow.versions.exists() else None
        if expected is not None and line is not None and line.head_id != expected.pk:
            raise heads.moved(line)
        reason = BranchMove.Reason.MERGE if merged_from else BranchMove.Reason.COMMIT
        same = Version.objects.filter(workflow=workflow, sha256=sha256).first()
        if same:
            # An import of what is behind the head changes nothing; a merge that comes out there was asked for.
            if line is not None and line.head_id != same.pk and (merged_from or not heads.holds(workflow, head=line.head, version=same)):
                _stand(line, same, reason, message=message, by=author, now=now)
            return _judged(same, found), False
        latest = Version.objects.filter(workflow=workflow).aggregate(number=Max("number"))["number"] or 0
        version = Version.objects.create(
            workflow=workflow,
            number=latest + 1,
            sha256=sha256,
            parent=parent or (line.head if line else None),
            merged_from=merged_from,
            author=author[:120],
            message=message[:500],
            graph=graph,
            ui_graph=ui_graph,
            inputs=[one.dump() for one in items],
            schema=schema(items),
            lock=lock,
            findings=found,
            runnable=not errors_in(found),
            warm_key=warm_key(graph),
            timeout_s=timeout_s,
            stall_s=stall_s,
            created_at=now,
        )
        if line is None:
            heads.start(workflow=workflow, name=heads.MAIN, at=version, by=author, message=message, now=now)
        else:
            heads.move(line=line, expected=line.head, to=version, reason=reason, message=message, by=author, now=now)
        audit.record(
            actor=author,
            action="version.create",
            object_type="version",
            object_id=str(version.pk),
            after={"workflow": workflow.slug, "number": version.number, "sha256": sha256, "runnable": version.runnable, "branch": branch},
            reason=message[:500],
            now=now,
        )
    return version, True


def refuse_faulty(found: list[Finding]) -> None:
    """Raise the first error among findings, with all of them as details."""
    errors = errors_in(found)
    if errors:
        first = errors[0]
        more = f" And {len(errors) - 1} more." if len(errors) > 1 else ""
        raise Invalid(first["code"], first["message"] + more, first["suggestion"], details={"node": first["node"], "field": first["field"], "findings": found})


def recheck(*, version: Version, library: Any) -> Version:
    """Judge a version again: against another node library, or after it got a lock."""
    fetched = locked_models.fetchable(version.pk)
    found = judging.judge(version.graph, library, load_all(version.inputs), ui_graph=version.ui_graph, workflow=version.workflow, fetched=fetched)
    return _judged(version, found)


def promote(*, workflow: Workflow, channel: str, version: Version, actor: str, reason: str = "", now: datetime) -> Channel:
    """Let `channel` point at `version`."""
    if channel not in Channel.Name.values:
        raise NotFound("unknown_channel", f"There is no channel called {str(channel)[:40]}.", f"Channels are {', '.join(Channel.Name.values)}.")
    if version.workflow_id != workflow.pk:
        raise Conflict("version_of_other_workflow", f"That version does not belong to {workflow.slug}.", "Choose one of its own versions.")
    with transaction.atomic():
        held = Workflow.objects.select_for_update().get(pk=workflow.pk)
        if held.archived_at is not None:
            raise Conflict("workflow_archived", f"{workflow.slug} is archived.", "Bring it back before you promote a version.")
        fresh = Version.objects.only("runnable", "findings").get(pk=version.pk)
        if channel in SERVING and not fresh.runnable:
            raise Conflict(
                "version_not_runnable",
                f"Version {version.number} of {workflow.slug} has errors and cannot go to {channel}.",
                "Mend what its findings say, import it again and promote that version.",
                details={"findings": errors_in(fresh.findings)},
            )
        before = Channel.objects.filter(workflow=workflow, name=channel).select_related("version").first()
        if before and before.version_id == version.pk:
            return before
        moved, _ = Channel.objects.update_or_create(workflow=workflow, name=channel, defaults={"version": version, "moved_at": now, "moved_by": actor[:120]})
        audit.record(
            actor=actor,
            action="channel.promote",
            object_type="workflow",
            object_id=workflow.slug,
            before={"channel": channel, "version": before.version.number if before else None},
            after={"channel": channel, "version": version.number},
            reason=reason,
            now=now,
        )
    return moved


def _stand(line: Branch, version: Version, reason: str, *, message: str, by: str, now: datetime) -> None:
    """Move a branch to a version that was there already."""
    before = line.head
    heads.move(line=line, expected=before, to=version, reason=reason, message=message, by=by, now=now)
    audit.record(
        actor=by, action="branch.move", object_type="workflow", object_id=line.workflow.slug, before={"branch": line.name, "version": before.number},
        after={"branch": line.name, "version": version.number}, reason=message[:500], now=now,
    )  # fmt: skip


def _judged(version: Version, found: list[Finding]) -> Version:
    runnable = not errors_in(found)
    if (version.findings, version.runnable) != (found, runnable):
        version.findings, version.runnable = found, runnable
        version.save(update_fields=["findings", "runnable"])
    return version


def _stored(one: ExposedInput | Mapping[str, Any]) -> dict[str, Any]:
    # Empty fields are left out, so that a field added to ExposedInput later changes no hash.
    return {key: value for key, value in ExposedInput.load(one).dump().items() if value not in (None, "", False)}


def _canonical(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        # By its shortest decimal form, which is what PostgreSQL's jsonb keeps of it.
        return int(Decimal(repr(value)))
    if isinstance(value, Mapping):
        return {str(key): _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return value
