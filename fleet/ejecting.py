"""Take out workers that fail what works elsewhere: few at a time, never below the pool's base, and never for a bad workflow (`fleet.blame`).

What was done is seen where a person's doing is: in the audit trail, on the worker's timeline, and as the reason beside its state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Max

from builds.models import Version
from controlplane.kernel.errors import Conflict
from fleet import blame, floors, membership, providers, replacing
from fleet.blame import Suspect, Tried
from fleet.models import Attempt, Pool, Worker, WorkerChange
from fleet.providers.base import Provider

log = logging.getLogger(__name__)

ACTOR = "blame"
WINDOW = timedelta(minutes=30)
LOOK_BACK = 20_000
"""How many attempts of all pools are looked through."""
MOST = 1_000
"""Attempts of one pool that are judged, the newest."""
SHARE = 0.1
"""At most this share of a pool is taken out at once; one in any pool."""
COUNTED = ("platform", "capacity", "workflow", "quality")
"""Failures that may be the worker's. Input, cancellation and the outside world are not."""
NOT_ITS_DOING = ("deadline_passed",)


def step(pool: Pool, *, provider: Provider | None = None, fence: Callable[[], None], now: datetime) -> list[str]:
    """Judge the pool's workers by what they ran lately; says what was done. Cheap while nothing fails."""
    newest = Attempt.objects.aggregate(id=Max("id"))["id"] or 0
    lately = Attempt.objects.filter(id__gt=newest - LOOK_BACK, worker__pool=pool, ended_at__gte=now - WINDOW, ended_at__lte=now)
    failing = lately.filter(state="failed", failure_class__in=COUNTED, worker__state__in=Worker.READY).order_by().values("worker").annotate(n=Count("id"))
    if not any(row["n"] >= blame.LEAST_FAILED for row in failing):
        return []
    tried = _tried(pool, lately)
    said = [_act(pool, suspect, provider or providers.of(pool), fence=fence, now=now) for suspect in blame.workers(tried)]
    said += [f"{_version(s.who)} fails on several workers, {s.failed} of {s.tried}" for s in blame.workflows(tried)[:3]]
    return [words for words in said if words]


def reason(suspect: Suspect) -> str:
    """Why, in one sentence with its figures."""
    luck = f"1 in {min(10**9, round(1 / max(suspect.p, 1e-9))):,}"
    return (
        f"It failed {suspect.failed:,} of {suspect.tried:,} jobs; other workers failed {suspect.others_failed:,} of {suspect.others_tried:,} "
        f"of the same workflows. Luck would do that {luck} times at most."
    )


def _tried(pool: Pool, lately: Any) -> list[Tried]:
    """What is judged. Of a worker that was put back to work, only what came after that."""
    put_back = WorkerChange.objects.filter(worker__pool=pool, worker__state__in=Worker.LIVE, kind=WorkerChange.Kind.CLEARED).order_by()
    since = dict(put_back.values_list("worker_id").annotate(at=Max("at")))
    rows = lately.filter(state__in=["succeeded", "failed"]).order_by("-id")
    columns = ("worker_id", "job__version_id", "state", "failure_class", "error__code", "ended_at", "job_id", "job__customer_id")
    found = []
    for worker, version, state, failure_class, code, ended, job, customer in rows.values_list(*columns)[:MOST]:
        if state == "failed" and (failure_class not in COUNTED or code in NOT_ITS_DOING):
            continue
        if worker in since and ended <= since[worker]:
            continue
        found.append(Tried(worker, version, state == "failed", ended.timestamp(), job, customer))
    return found


def _act(pool: Pool, suspect: Suspect, provider: Provider, *, fence: Callable[[], None], now: datetime) -> str:
    """Take the worker out, or have it replaced first where the pool would fall below its base; empty when nothing more may be done now."""
    live = list(Worker.objects.filter(pool=pool, state__in=Worker.LIVE).only("id", "name", "state", "cordoned_at", "preempt_at", "drain_asked_at", "pool_id"))
    able = [w for w in live if w.state in Worker.READY and w.cordoned_at is None and w.preempt_at is None]
    worker = next((w for w in able if w.id == suspect.who), None)
    if worker is None or _out(live) >= max(1, int(len(live) * SHARE)):
        return ""
    why = reason(suspect)
    if len(able) - 1 >= floors.of(pool, now=now).base:
        with transaction.atomic():
            fence()
            membership.fault(worker, actor=ACTOR, reason=why, now=now)
        log.warning("worker taken out", extra={"worker": worker.name, "p": suspect.p, "failed": suspect.failed, "tried": suspect.tried})
        return f"{worker.name} taken out: {why}"
    if _asked(worker):
        return ""
    try:
        with transaction.atomic():
            fence()
            replacing.ask(worker, provider=provider, actor=ACTOR, reason=why, now=now)
    except Conflict as refused:
        return f"{worker.name} is suspect, and stays: {refused.message}"[:200]
    return f"{worker.name} is replaced: {why}"


def _out(live: Iterable[Worker]) -> int:
    return sum(1 for w in live if w.state == Worker.State.FAULTED)


def _asked(worker: Worker) -> bool:
    return WorkerChange.objects.filter(worker=worker, kind=WorkerChange.Kind.REPLACING).exists()


def _version(who: object) -> str:
    version = Version.objects.select_related("workflow").filter(id=who).first() if isinstance(who, UUID) else None
    return f"{version.workflow.slug} v{version.number}" if version is not None else "A workflow"
