"""What people do when capacity runs short: each measure one call, with an end of its own, audited, and undone by `end`.

Clearing a queue is `fleet.clearing`; what new jobs and claims make of the measures in force is `fleet.overflow` and `fleet.measures`.
Said twice with the same `once`, a measure is taken once. Several may be in force: the strictest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from builds.models import Workflow
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, NotFound
from controlplane.kernel.ids import parse_uuid
from fleet import clearing, emergency_rows, fast_waiting, measures, overflow, wake
from fleet.models import EmergencyAction, Pool

Kind = EmergencyAction.Kind
EXPIRED = "expiry"


def raise_capacity(
    pool: Pool, *, base: int | None = None, maximum: int | None = None, expires_at: datetime, actor: str, reason: str = "", once: str = "", now: datetime
) -> EmergencyAction:
    """Keep at least `base` workers and allow `maximum` of them until then. Raises Invalid."""
    row = emergency_rows.raised(pool, base=base, maximum=maximum, expires_at=expires_at, now=now)
    return _take(row, actor=actor, reason=reason, once=once, now=now)


def fast_mode(
    workflow: Workflow,
    *,
    version: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    force: Collection[str] = (),
    overflow_s: float,
    include_waiting: bool = False,
    expires_at: datetime,
    actor: str,
    reason: str = "",
    once: str = "",
    now: datetime,
) -> EmergencyAction:
    """Run jobs of `workflow` that would wait longer than `overflow_s` as its cheaper `version`, or with these inputs.

    An input the customer wrote stays, save those named in `force`. Jobs that wait already are changed only with `include_waiting`;
    of a long line, what is not changed at once is changed by the loop (`fast_waiting.progress` says how far it is).
    Raises Invalid, NotFound or Conflict.
    """
    row = emergency_rows.fast(
        workflow,
        version=version,
        overrides=overrides,
        force=force,
        overflow_s=overflow_s,
        include_waiting=include_waiting,
        expires_at=expires_at,
        now=now,
    )
    if include_waiting:
        fast_waiting.begin(row, doing=fast_waiting.CHANGE, now=now)
    taken = _take(row, actor=actor, reason=reason, once=once, now=now)
    if taken is row and include_waiting:
        fast_waiting.go_on(row, fence=_nothing, now=now)
    return taken


def pause_class(pool: Pool, *, priority: str, expires_at: datetime, actor: str, reason: str = "", once: str = "", now: datetime) -> EmergencyAction:
    """Serve no jobs of this class and those behind it until then. They keep their places; only a deadline of their own ends them. Raises Invalid."""
    row = emergency_rows.paused(pool, priority=priority, expires_at=expires_at, now=now)
    return _take(row, actor=actor, reason=reason, once=once, now=now)


def shed(pool: Pool, *, priority: str, overflow_s: float, expires_at: datetime, actor: str, reason: str = "", once: str = "", now: datetime) -> EmergencyAction:
    """Answer new jobs of this class and those behind it with 503 and Retry-After while they would wait longer than `overflow_s`. Raises Invalid."""
    row = emergency_rows.shedding(pool, priority=priority, overflow_s=overflow_s, expires_at=expires_at, now=now)
    return _take(row, actor=actor, reason=reason, once=once, now=now)


def end(action: EmergencyAction, *, actor: str, reason: str = "", now: datetime) -> EmergencyAction:
    """Undo a measure now. Ending one that is over changes nothing.

    Of fast mode, waiting jobs that it changed get back what they had asked for; of a cleared queue, the jobs are submitted again.
    What of a long queue is not done at once, the loop does. Raises Conflict when it can no longer be undone.
    """
    with transaction.atomic():
        held = EmergencyAction.objects.select_for_update(of=("self",)).select_related("pool", "workflow", "version").get(id=action.id)
        if held.ended_at is not None:
            return held
        if held.expires_at <= now:
            if held.kind == Kind.CLEAR:
                raise Conflict("undo_too_late", "What was cleared can no longer be submitted again.", "Ask the customers to send these jobs again.")
            return held
        held.ended_at, held.ended_by = max(now, held.starts_at), actor[:120]
        after: dict[str, Any] = {"ended": True}
        if held.kind == Kind.FAST and held.terms.get("waiting"):
            fast_waiting.begin(held, doing=fast_waiting.RESTORE, now=now)
            after["restoring"] = held.terms.get("changed", 0)
        if held.kind == Kind.CLEAR:
            held.terms = {**held.terms, "done": True, "resubmit": "asked"}
        held.save(update_fields=["ended_at", "ended_by", "terms"])
        wake.pool(held.pool_id)  # a class that was paused may be served again
        transaction.on_commit(measures.forget)
        audit.record(
            actor=actor,
            action=f"emergency.end.{held.kind}",
            object_type="pool",
            object_id=held.pool.slug,
            before=_said(held),
            after=after,
            reason=reason,
            now=now,
        )
    measures.forget()
    if held.kind == Kind.FAST and "walk" in held.terms:
        fast_waiting.go_on(held, fence=_nothing, now=now)
    return held


def active(pool: Pool | None = None, *, now: datetime) -> list[EmergencyAction]:
    """Measures in force, the one that ends first in front. A cleared queue is none."""
    found = _open(now=now).exclude(kind=Kind.CLEAR)
    if pool is not None:
        found = found.filter(pool=pool)
    return list(found.order_by("expires_at", "id"))


def recent(pool: Pool, *, now: datetime, most: int = 20) -> list[EmergencyAction]:
    """The pool's measures, the newest first, over ones among them."""
    return list(EmergencyAction.objects.filter(pool=pool).select_related("pool", "workflow", "version").order_by("-starts_at", "-id")[:most])


def named(text: object) -> EmergencyAction:
    """The measure with this id; raises NotFound."""
    id_ = parse_uuid(text)
    found = EmergencyAction.objects.select_related("pool", "workflow", "version").filter(id=id_).first() if id_ else None
    if found is None:
        raise NotFound("emergency_not_found", "There is no such measure.", "List them: GET /ops/api/emergencies.")
    return found


def settle(*, fence: Callable[[], None], now: datetime) -> str:
    """One round of the loop: write down which measures have expired, and go on with queues being cleared, submitted again, changed or put back."""
    over = list(EmergencyAction.objects.filter(ended_at__isnull=True, expires_at__lte=now).select_related("pool").order_by("expires_at")[:50])
    for action in over:
        with transaction.atomic():
            fence()
            if EmergencyAction.objects.filter(id=action.id, ended_at__isnull=True).update(ended_at=action.expires_at, ended_by=EXPIRED):
                wake.pool(action.pool_id)
                audit.record(
                    actor="controller", action=f"emergency.expire.{action.kind}", object_type="pool", object_id=action.pool.slug, before=_said(action), now=now
                )
    if over:
        measures.forget()
    walked = fast_waiting.go_on_all(fence=fence, now=now)
    worked = clearing.go_on_all(fence=fence, now=now)
    return ", ".join(part for part in (f"{len(over)} expired" if over else "", walked, worked) if part) or "none over"


def _take(row: EmergencyAction, *, actor: str, reason: str, once: str, now: datetime) -> EmergencyAction:
    """Write the measure down and audit it, once."""
    if once and (before := earlier(once)) is not None:
        return before
    row.starts_at, row.actor, row.reason, row.once = now, actor[:120], reason.strip()[:300], once[:64]
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            transaction.on_commit(measures.forget)
            audit.record(actor=actor, action=f"emergency.{row.kind}", object_type="pool", object_id=row.pool.slug, after=_said(row), reason=row.reason, now=now)
    except IntegrityError:
        before = earlier(once) if once else None
        if before is None:
            raise
        return before
    measures.forget()
    overflow.forget()
    return row


def earlier(once: str) -> EmergencyAction | None:
    """What was done for this token before."""
    return EmergencyAction.objects.select_related("pool", "workflow", "version").filter(once=once[:64]).first()


def _open(*, now: datetime) -> QuerySet[EmergencyAction]:
    return EmergencyAction.objects.filter(ended_at__isnull=True, starts_at__lte=now, expires_at__gt=now).select_related("pool", "workflow", "version")


def _said(action: EmergencyAction) -> dict[str, Any]:
    """The measure as the audit log keeps it."""
    said: dict[str, Any] = {"measure": str(action.id), "kind": action.kind, "until": action.expires_at.isoformat()}
    for name in ("base", "max", "overflow_s", "priority"):
        if getattr(action, name) is not None:
            said[name] = getattr(action, name)
    if action.workflow_id is not None and action.workflow is not None:
        said["workflow"] = action.workflow.slug
    if action.version_id is not None and action.version is not None:
        said["version"] = action.version.number
    terms = {name: value for name, value in action.terms.items() if name != "walk"}
    return said | {name: value for name, value in (("overrides", action.overrides), ("terms", terms)) if value}


def _nothing() -> None:
    """The fence of a caller that leads no loop."""
