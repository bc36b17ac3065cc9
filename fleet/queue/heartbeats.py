"""Renew leases and pass on what the control plane wants of each running job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F

from fleet import worker_states
from fleet.models import Job, Worker, WorkerChange


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of one job it runs."""

    job_id: UUID
    attempt: int
    progress: float = 0.0
    node: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of it: ok, cancel or lost."""

    job_id: UUID
    attempt: int
    verdict: str


@transaction.atomic
def heartbeat(
    worker: Worker, *, state: str, warming: bool = False, reports: Sequence[Report] = (), usage: dict[str, Any] | None = None, now: datetime
) -> list[Verdict]:
    """Renew the leases the worker still holds. Progress never goes back; a stale attempt is told it lost the job. `warming`: its warm-up runs."""
    lease_until = now + timedelta(seconds=settings.WORKER["LEASE_S"])
    held = {
        row["id"]: row
        for row in Job.objects.select_for_update()
        .filter(id__in=[r.job_id for r in reports], status="running", worker=worker)
        .order_by("id")
        .values("id", "attempt", "progress", "node", "cancel_asked_at")
    }
    verdicts = []
    for report in reports:
        row = held.get(report.job_id)
        if row is None or row["attempt"] != report.attempt:
            verdicts.append(Verdict(report.job_id, report.attempt, "lost"))
            continue
        progress = min(max(row["progress"], report.progress), 1.0)
        visible = progress > row["progress"] or report.node[:120] != row["node"]
        Job.objects.filter(id=report.job_id).update(
            lease_until=lease_until, progress=progress, node=report.node[:120], revision=F("revision") + (1 if visible else 0)
        )
        verdicts.append(Verdict(report.job_id, report.attempt, "cancel" if row["cancel_asked_at"] else "ok"))
    _note(worker, said=state, warming=warming, usage=usage, now=now)
    return verdicts


def note_idle(worker: Worker, *, now: datetime) -> None:
    """A worker that asks for work is alive and idle; written at most once a second."""
    if worker.state == Worker.State.IDLE and worker.seen_at is not None and now - worker.seen_at < timedelta(seconds=1):
        return
    if worker.state == Worker.State.BUSY and Job.objects.filter(worker=worker, status="running").exists():
        return
    _note(worker, said=Worker.State.IDLE, warming=False, usage=None, now=now)


def _note(worker: Worker, *, said: str, warming: bool, usage: dict[str, Any] | None, now: datetime) -> None:
    """Write down that the worker lives. Draining stays draining until it leaves, faulted faulted; a retired worker stays retired."""
    state = worker_states.reported(said, warming=warming, now_is=worker.state)
    changed: dict[str, Any] = {"seen_at": now}
    if usage:
        changed["usage"] = usage
    if state != worker.state:
        changed |= {"state": state, "state_since": now, "idle_since": now if state == Worker.State.IDLE else None}
        if state == Worker.State.DRAINING and worker.drain_asked_at is None:
            changed["drain_asked_at"] = now
    if state == Worker.State.IDLE and worker.ready_at is None:
        changed["ready_at"] = now
    # One that was asked to leave or taken out since it was read keeps that state; its next word is two seconds away.
    same = Worker.objects.filter(id=worker.id, drain_asked_at__isnull=worker.drain_asked_at is None, faulted_at__isnull=worker.faulted_at is None)
    written = same.exclude(state__in=Worker.GONE).update(**changed)
    if written and state != worker.state and worker.ready_at is not None and (came := _came_back(worker.state, state)):
        WorkerChange.objects.create(worker=worker, at=now, kind=came)


def _came_back(before: str, after: str) -> str:
    """What is written down when the ComfyUI of a worker that was ready once goes down or comes up again; nothing of other moves."""
    if after in (WorkerChange.Kind.STARTING, WorkerChange.Kind.LOADING):
        return after
    return WorkerChange.Kind.READY if before in Worker.COMING else ""
