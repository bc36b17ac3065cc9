"""Reads of one worker for its page: its life in order, where its time and money went, what it ran, what it said."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from controlplane.kernel.errors import NotFound
from fleet import buckets, worker_hours
from fleet.models import Attempt, Job, Worker, WorkerChange

SHOWN_ATTEMPTS = 20
OLDEST = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of the timeline."""

    at: datetime
    kind: str
    """ordered, registered, ready, drain, preempt, stopped, lost, or a kind of WorkerChange."""
    note: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of its life in one bucket."""

    bucket: str
    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        return (self.until - self.since).total_seconds()


@dataclass(frozen=True, slots=True)
class Health:
    """What its last attempts say, beside those of the other workers of its pool."""

    ended: int = 0
    failed: int = 0
    """For a reason that may be the worker's: not the customer's input, and not canceled."""
    others_ended: int = 0
    others_failed: int = 0
    silent_s: float | None = None


@dataclass(frozen=True, slots=True)
class OneWorker:
    """Everything about one worker."""

    worker: Worker
    price_per_hour_microusd: int
    """As agreed when it was ordered; its pool's where nothing was."""
    split: buckets.Split
    """Milliseconds and micro-dollars by bucket over its whole life, at most the last 30 days."""
    stretches: list[Stretch]
    """The last six hours of its life, in order, each in one bucket."""
    timeline: list[Moment]
    attempts: list[Attempt]
    """The last ones, newest first, with job, workflow and version."""
    running: Job | None
    boot_log: list[str]
    warm: list[str]
    stored: dict[str, Any]
    """Figures of its host's model store, as it reported them."""
    replaces: Worker | None
    replaced_by: list[Worker]
    health: Health = field(default_factory=Health)


def one(worker_id: UUID, *, now: datetime) -> OneWorker:
    """One worker; raises NotFound."""
    worker = Worker.objects.select_related("pool", "offer", "replaces").filter(id=worker_id).first()
    if worker is None:
        raise NotFound("worker_not_found", "There is no such worker.", "Look at its pool for the workers there are.")
    start = max(worker.ordered_at, (worker.stopped_at or now) - OLDEST)
    changes = list(WorkerChange.objects.filter(worker=worker).order_by("at", "id"))
    life = worker_hours.lives([worker], start=start)[worker.id]
    end = worker.stopped_at or now
    recent = buckets.timeline(life, start=end - timedelta(hours=6), end=end, now=now)
    ran = worker.stop_reason not in buckets.NEVER_RAN
    return OneWorker(
        worker=worker,
        price_per_hour_microusd=life.price_per_hour_microusd,
        split=buckets.split(life, start=start, end=end, now=now) if ran else buckets.Split(),
        stretches=[Stretch(bucket, buckets.from_ms(since), buckets.from_ms(until)) for bucket, since, until in recent] if ran else [],
        timeline=_timeline(worker, changes),
        attempts=list(Attempt.objects.filter(worker=worker).select_related("job__workflow", "job__version").order_by("-id")[:SHOWN_ATTEMPTS]),
        running=Job.objects.filter(worker=worker, status=Job.Status.RUNNING).select_related("workflow", "version").first(),
        boot_log=_lines(worker),
        warm=[str(key) for key in worker.warm] if isinstance(worker.warm, list) else [],
        stored=worker.usage.get("store") or {} if isinstance(worker.usage, dict) else {},
        replaces=worker.replaces,
        replaced_by=list(Worker.objects.filter(replaces=worker).order_by("ordered_at")[:10]),
        health=_health(worker, now=now),
    )


def _timeline(worker: Worker, changes: list[WorkerChange]) -> list[Moment]:
    ended = "lost" if worker.state == Worker.State.LOST else "stopped"
    given = [
        (worker.ordered_at, "ordered", ""),
        (worker.registered_at, "registered", ""),
        (worker.ready_at, "ready", ""),
        (worker.drain_asked_at, "drain", ""),
        (worker.preempt_at, "preempt", "Its provider takes it away then."),
        (worker.stopped_at, ended, " ".join(part for part in (worker.stop_reason, worker.stop_message) if part)),
    ]
    found = [Moment(at, kind, note) for at, kind, note in given if at is not None]
    found += [Moment(change.at, change.kind, change.note, change.actor) for change in changes]
    if worker.faulted_at is not None and not any(change.kind == "faulted" for change in changes):
        found.append(Moment(worker.faulted_at, "faulted", worker.stop_message))
    return sorted(found, key=lambda moment: moment.at)


def _lines(worker: Worker) -> list[str]:
    """The last words of a worker that did not come up; while it warms up, what its ComfyUI wrote when that failed."""
    kept = worker.engine_log if isinstance(worker.engine_log, list) else []
    said = worker.warmup.get("log") if isinstance(worker.warmup, dict) else None
    return [str(line)[:500] for line in kept or (said if isinstance(said, list) else [])][:40]


def _health(worker: Worker, *, now: datetime) -> Health:
    newest = Attempt.objects.order_by("-id").values_list("id", flat=True).first() or 0
    rows = Attempt.objects.filter(
        id__gt=newest - 20_000, worker__pool=worker.pool_id, state__in=["succeeded", "failed"], ended_at__gte=now - timedelta(minutes=30)
    ).exclude(failure_class__in=["customer_input", "customer_cancel", "external"])
    mine = ended = failed = mine_failed = 0
    for worker_id, state in rows.order_by("-id").values_list("worker_id", "state")[:2000]:
        if worker_id == worker.id:
            mine, mine_failed = mine + 1, mine_failed + (state == "failed")
        else:
            ended, failed = ended + 1, failed + (state == "failed")
    silent = (now - worker.seen_at).total_seconds() if worker.seen_at is not None and worker.stopped_at is None else None
    return Health(mine, mine_failed, ended, failed, None if silent is None else max(0.0, silent))
